"""The clicking page in a real browser: what is clicked is what the importer reads."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from browser import Browser
from PIL import Image

from cmtl_jax import annotate, pictures
from cmtl_jax.annotate import __main__ as command
from cmtl_jax.datasets import annotations
from cmtl_jax.importers import importing

SHIFT, CONTROL = 8, 2
SQUARE = (220, 30, 30)  # the colour that a test looks for on the screen


class Page:
    """The clicking page in the browser, worked with the mouse and the keyboard alone."""

    def __init__(self, browser, path):
        self.browser, self.url = browser, path.as_uri()
        self.open()
        browser.run("localStorage.clear()")
        self.open()

    def open(self):
        self.browser.open("about:blank#")
        self.browser.open(self.url)

    def choose(self, *paths):
        before = self.browser.run("document.querySelectorAll('#list li').length")
        self.browser.choose("#pictures", *paths)
        number = before + len(paths)
        self.browser.wait(f"document.querySelectorAll('#list li').length === {number}")
        self.browser.wait("document.querySelector('#size').textContent !== ''")

    def show(self, name):
        self.browser.run(
            "[...document.querySelectorAll('#list li')].find(item => "
            f"item.querySelector('.name').textContent === {json.dumps(name)}).click()"
        )
        self.browser.wait(
            f"document.querySelector('#title').textContent === {json.dumps(name)} && "
            "document.querySelector('#size').textContent !== ''"
        )

    def view(self):
        """Left, top and zoom: of the picture on the screen."""
        left, top, width = self.browser.run(
            "(() => { const box = document.querySelector('#picture').getBoundingClientRect();"
            "return [box.left, box.top, box.width]; })()"
        )
        return left, top, width / int(self.text("#size").split()[0])

    def screen(self, x, y):
        """Where a place of the upright picture is on the screen."""
        left, top, zoom = self.view()
        return left + x * zoom, top + y * zoom

    def click(self, x, y, **more):
        self.browser.click(*self.screen(x, y), **more)

    @property
    def count(self):
        return int(self.browser.run("document.querySelector('#count').textContent"))

    def text(self, selector):
        return self.browser.run(f"document.querySelector({selector!r}).textContent")

    def save(self) -> pathlib.Path:
        path = self.browser.downloads / "points.json"
        path.unlink(missing_ok=True)
        self.browser.key("s", CONTROL)
        return self.browser.downloaded(path.name)

    def saved(self) -> dict:
        return json.loads(self.save().read_text())


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.close()


@pytest.fixture
def page(browser, tmp_path):
    path = tmp_path / "click heads.html"
    path.write_bytes(annotate.page())
    browser.problems.clear()
    yield Page(browser, path)
    assert browser.problems == []


def draw(path, height=300, width=400, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(1).integers(0, 60, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


POINTS = [(10.0, 10.0), (12.5, 150.2), (390.3, 290.9), (200.0, 100.0), (0.0, 0.0), (399.9, 299.9)]


def test_clicks_are_what_is_imported(page, tmp_path):
    names = ["a b – Straße.png", "a b – Straße.jpg", "empty.png", "not looked at.png"]
    for name in names:
        draw(tmp_path / "my pictures" / name)
    page.choose(*sorted((tmp_path / "my pictures").iterdir()))
    for name, points in ((names[0], POINTS), (names[1], POINTS[:2])):
        page.show(name)
        for x, y in points:
            page.click(x, y)
        assert page.count == len(points)
    page.browser.key("Enter")  # finished, on to the .png of the same stem
    assert page.text("#title") == names[0]
    page.show("empty.png")
    page.browser.key("f")
    report = importing.import_points(
        [page.save()], tmp_path / "out", folder=tmp_path / "my pictures"
    )
    table = annotations.read_json_table(tmp_path / "out/points.json")
    assert sorted(table) == sorted(names[:3])
    np.testing.assert_allclose(table[names[0]], POINTS, atol=0.051)
    np.testing.assert_allclose(table[names[1]], POINTS[:2], atol=0.051)
    assert len(table["empty.png"]) == 0
    assert any(
        "not looked at.png" in note and "without annotation" in note for note in report.notes
    )
    assert any(names[0] in note and "not marked as finished" in note for note in report.notes)
    assert not any(names[1] in note for note in report.notes)


def mark(path, orientation, height=240, width=320):
    """A picture with a small square; gives the square's middle in the upright picture."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[36:52, 200:216] = SQUARE
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {".webp": {"lossless": True}, ".jpg": {"quality": 95}}.get(path.suffix, {})
    Image.fromarray(pixels).save(path, exif=exif, **options)
    return middle(pictures.read(path, 3))


def middle(pixels):
    rows, columns = np.nonzero(np.abs(pixels.astype(int) - SQUARE).max(axis=2) < 60)
    assert len(rows) > 20
    return np.array([columns.mean() + 0.5, rows.mean() + 0.5])


def click_the_square(page, folder, name):
    page.show(name)
    page.browser.screenshot(folder / "screen.png")
    page.browser.click(*middle(np.asarray(Image.open(folder / "screen.png").convert("RGB"))))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_turned_pictures_are_seen_as_the_training_sees_them(page, tmp_path, suffix):
    expected = {}
    for orientation in range(1, 9):
        name = f"{orientation}{suffix}"
        expected[name] = mark(tmp_path / name, orientation)
    assert len({tuple(np.round(place)) for place in expected.values()}) == 8
    page.choose(*(tmp_path / name for name in expected))
    for name in expected:
        click_the_square(page, tmp_path, name)
    saved = page.saved()
    for name, place in expected.items():
        height, width = pictures.size(tmp_path / name)
        assert (saved[name]["width"], saved[name]["height"]) == (width, height)
        np.testing.assert_allclose(saved[name]["points"], [place], atol=1, err_msg=name)


def test_other_tags_do_not_shift_points(page, tmp_path):
    pixels = np.full((240, 320, 3), 255, np.uint8)
    pixels[36:52, 200:216] = SQUARE
    # Browsers show a picture smaller whose resolution tags ask for it.
    exif = Image.Exif()
    exif[0x011A] = exif[0x011B] = 144.0
    exif[0x0128] = 2
    exif.get_ifd(0x8769).update({0xA002: 160, 0xA003: 120})
    Image.fromarray(pixels).save(tmp_path / "resolution.jpg", quality=95, exif=exif)
    xmp = b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    Image.fromarray(pixels).save(tmp_path / "xmp.jpg", quality=95, xmp=xmp)
    page.choose(tmp_path / "resolution.jpg", tmp_path / "xmp.jpg")
    for name in ("resolution.jpg", "xmp.jpg"):
        click_the_square(page, tmp_path, name)
        expected = middle(pictures.read(tmp_path / name, 3))
        np.testing.assert_allclose(page.saved()[name]["points"], [expected], atol=1)


def test_a_large_turned_picture(page, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (6000, 4000), 128).save(tmp_path / "large.jpg", exif=exif)
    page.choose(tmp_path / "large.jpg")
    assert page.text("#size").startswith("4000 x 6000 pixels")
    place = (3917.0, 5871.0)
    for _ in range(3):
        x, y = page.screen(*place)
        page.browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-900)
    page.click(*place)
    np.testing.assert_allclose(page.saved()["large.jpg"]["points"], [place], atol=0.051)


def test_points_are_moved_removed_undone_and_redone(page, tmp_path):
    page.choose(draw(tmp_path / "a.png"))
    for x, y in POINTS[:4]:
        page.click(x, y)
    page.browser.drag(*page.screen(*POINTS[3]), *page.screen(250, 130))
    moved = [*map(list, POINTS[:3]), [250, 130]]

    def points():
        return page.saved()["a.png"]["points"]

    np.testing.assert_allclose(points(), moved, atol=0.051)
    page.click(*POINTS[1], button="right")
    np.testing.assert_allclose(points(), [moved[0], *moved[2:]], atol=0.051)
    page.click(*POINTS[0])  # selects
    assert page.count == 3
    page.browser.key("Delete")
    np.testing.assert_allclose(points(), moved[2:], atol=0.051)
    page.click(moved[2][0] - 1, moved[2][1] - 1, modifiers=SHIFT)  # right beside another one
    assert page.count == 3
    for count in (2, 3, 4, 4, 3):
        page.browser.key("z", CONTROL)
        assert page.count == count
    page.browser.key("y", CONTROL)
    page.browser.key("z", CONTROL | SHIFT)
    np.testing.assert_allclose(points(), moved, atol=0.051)
    page.click(5, 290)
    page.browser.key("y", CONTROL)  # nothing to redo after another change
    assert page.count == 5


def test_zoom_and_pan_do_not_add_points(page, tmp_path):
    page.choose(draw(tmp_path / "a.png"))
    left, top, zoom = page.view()
    x, y = 700, 300  # wheel events know whole pixels alone
    there = (x - left) / zoom, (y - top) / zoom
    page.browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-500)
    assert page.view()[2] > 1.5 * zoom
    np.testing.assert_allclose(page.screen(*there), (x, y), atol=0.05)
    page.browser.drag(x, y, x + 60, y - 40)
    np.testing.assert_allclose(page.screen(*there), (x + 60, y - 40), atol=0.05)
    assert page.count == 0
    page.click(187.3, 93.6)
    page.browser.key("0")
    page.click(20, 30)
    page.browser.click(290, 120)  # beside the picture
    np.testing.assert_allclose(
        page.saved()["a.png"]["points"], [(187.3, 93.6), (20, 30)], atol=0.051
    )


def test_work_is_kept_in_the_browser(page, tmp_path):
    first, second = draw(tmp_path / "a.png"), draw(tmp_path / "b.png")
    page.choose(first, second)
    page.show("a.png")
    page.click(*POINTS[0])
    page.browser.key("f")
    before = page.saved()
    page.open()
    page.choose(first, second)
    assert page.saved() == before
    assert page.text("#title") == "b.png"  # the first that is not finished
    draw(first, height=310)  # another picture of the same name
    page.open()
    page.choose(first)
    assert page.count == 0


def test_saved_points_are_loaded_again(page, tmp_path):
    page.choose(draw(tmp_path / "a.png"))
    page.click(7, 7)
    table = {
        "folder/a.png": {"width": 400, "height": 300, "finished": True, "points": [[1.5, 2]]},
        "away.jpg": [[3, 4], [5, 6]],
    }
    (tmp_path / "points.json").write_text(json.dumps(table))
    page.browser.choose("#points", tmp_path / "points.json")
    page.browser.wait("document.querySelector('#ask').open")
    page.browser.run("document.querySelector('#ask button[value=yes]').click()")
    page.browser.wait("document.querySelectorAll('#list li').length === 2")
    assert page.count == 1 and page.text("#total span").startswith("3 heads")
    saved = page.saved()
    assert saved["a.png"] == table["folder/a.png"]
    assert saved["away.jpg"] == {"finished": True, "points": [[3, 4], [5, 6]]}
    page.browser.key("z", CONTROL)
    np.testing.assert_allclose(page.saved()["a.png"]["points"], [[7, 7]], atol=0.051)
    (tmp_path / "other.json").write_text('{"a.png": {"x": 1}}')
    page.browser.choose("#points", tmp_path / "other.json")
    page.browser.wait("document.querySelector('#notes .bad') !== null")
    assert "other.json holds no points" in page.text("#notes .bad")


def test_points_of_a_picture_of_another_size_are_put_aside(page, tmp_path):
    table = {"a.png": {"width": 800, "height": 600, "finished": True, "points": [[700, 500]]}}
    (tmp_path / "points.json").write_text(json.dumps(table))
    page.browser.choose("#points", tmp_path / "points.json")
    page.browser.wait("document.querySelectorAll('#list li').length === 1")
    page.browser.choose("#pictures", draw(tmp_path / "a.png"))
    page.browser.wait("document.querySelector('#size').textContent !== ''")
    assert page.count == 0
    assert "800 x 600" in page.text("#banner")


def test_a_folder_is_dropped(page, tmp_path):
    draw(tmp_path / "photos/a.png")
    draw(tmp_path / "photos/deep/b.png")
    (tmp_path / "photos/readme.txt").write_text("no picture")
    page.browser.drop(700, 400, tmp_path / "photos")
    page.browser.wait("document.querySelectorAll('#list li').length === 2")
    names = page.browser.run(
        "[...document.querySelectorAll('#list .name')].map(n => n.textContent)"
    )
    assert names == ["a.png", "deep/b.png"]


def test_what_cannot_be_shown_is_said_and_passed_over(page, tmp_path):
    Image.new("L", (20, 20)).save(tmp_path / "a.tif")
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    hostile = draw(tmp_path / "c <img src=x onerror=document.title=1>&amp;.png")
    page.choose(tmp_path / "a.tif", tmp_path / "b.jpg", hostile)
    assert page.text("#title") == hostile.name
    assert page.browser.run("document.querySelectorAll('#list li.broken').length") == 2
    assert page.browser.run("document.querySelectorAll('img').length") == 1
    page.click(5, 5)
    page.browser.key("f")
    assert list(page.saved()) == [hostile.name]


def test_the_page_asks_for_nothing(page, tmp_path):
    page.choose(draw(tmp_path / "a.png"))
    page.browser.key("?")
    assert page.browser.run("document.querySelector('#keys').open")
    schemes = {url.partition(":")[0] for url in page.browser.requests}
    assert "file" in schemes and schemes <= {"file", "blob", "data", "about"}


def test_real_points(page, shared, tmp_path):
    source = shared / "data/ShanghaiTech/part_B_final/test_data"
    picture = tmp_path / "pictures" / "IMG_1.jpg"
    picture.parent.mkdir()
    shutil.copy(source / "images/IMG_1.jpg", picture)
    points = annotations.read_shanghaitech(source / "ground_truth/GT_IMG_1.mat")
    page.choose(picture)
    for x, y in points.tolist():
        page.click(x, y, modifiers=SHIFT)
    importing.import_points([page.save()], tmp_path / "out", folder=picture.parent)
    found = annotations.read_json_table(tmp_path / "out/points.json")["IMG_1.jpg"]
    np.testing.assert_allclose(found, points, atol=0.051)


def test_the_command_writes_the_page(tmp_path, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr(command.webbrowser, "open", lambda url: opened.append(url) or True)
    monkeypatch.setenv("DISPLAY", ":0")
    path = tmp_path / "deep" / "page.html"
    assert command.main([f"--out={path}"]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert opened == [path.as_uri()]
    assert path.read_bytes() == annotate.page()
    assert command.main([f"--out={path}", "--no-browser"]) == 0 and len(opened) == 1
    path.write_text("mine")
    assert command.main([f"--out={path}"]) == 1
    assert "is there already" in capsys.readouterr().err
    assert path.read_text() == "mine"
