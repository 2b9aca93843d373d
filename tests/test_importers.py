"""Annotations of other programs become the points that were marked, or a line that says why not."""

import json
import shutil
import unicodedata

import annotation_files
import numpy as np
import pytest
import scipy.io
from annotation_files import WRITERS
from PIL import Image

from cmtl_jax import pictures
from cmtl_jax.datasets import annotations
from cmtl_jax.datasets.density_map import DensityRule
from cmtl_jax.datasets.point_folder import PointFolder
from cmtl_jax.errors import UserError
from cmtl_jax.importers import __main__ as command
from cmtl_jax.importers import heads, importing, output, registry
from cmtl_jax.importers.marked import BOX, POINT, Mark, Marked

HEIGHT, WIDTH = 60, 90
POINTS = {
    "a b – Straße.jpg": [(20.5, 10.25), (85.0, 1.0), (3.0, 29.0), (10.0, 12.0), (80.125, 3.5)],
    "IMG_2.png": [(5.0, 5.0)],
    "nobody.jpg": [],
}


def draw(path, height=HEIGHT, width=WIDTH, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(path.as_posix().encode())
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    """Pictures of POINTS."""
    for name in POINTS:
        draw(tmp_path / "my pictures" / name)
    return tmp_path / "my pictures"


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def imported(report_folder):
    """The points of a written folder, as float64 of its files, by 'split/name'."""
    return {
        "/".join(filter(None, [split, name])): np.reshape(points, (-1, 2))
        for split in ("", "train", "test")
        if (path := report_folder / split / "points.json").exists()
        for name, points in json.loads(path.read_text()).items()
    }


def run(tmp_path, folder, *sources, **options):
    report = importing.import_points(
        sources or [folder], tmp_path / "out", folder=folder, **options
    )
    return report, imported(tmp_path / "out")


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_each_format_is_recognised_and_gives_the_points(tmp_path, folder, writer):
    title, tells_empty = WRITERS[writer]
    (tmp_path / "labels").mkdir()
    writer(tmp_path / "labels", POINTS, dict.fromkeys(POINTS, (HEIGHT, WIDTH)))
    report, found = run(tmp_path, folder, tmp_path / "labels")
    assert report.problems == []
    assert [line.partition(":")[0] for line in report.recognised] == [title]
    expected = {name: points for name, points in POINTS.items() if points or tells_empty}
    assert found.keys() == expected.keys()
    for name, points in expected.items():
        np.testing.assert_allclose(found[name], np.reshape(points, (-1, 2)), atol=1e-5)
    left_out = [note for note in report.notes if "without any mark" in note]
    assert len(left_out) == (not tells_empty) and all("nobody.jpg" in note for note in left_out)
    # What was written is what the data set reads.
    items = PointFolder(config=PointFolder.config(DensityRule(), tmp_path / "out")).find(
        tmp_path / "out"
    )
    assert items.warnings == []
    for item in items.splits["train"]:
        data, points = item.read()
        assert data == (folder / item.id).read_bytes()
        np.testing.assert_allclose(points, np.reshape(expected[item.id], (-1, 2)), atol=1e-5)


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_real_points_come_back_from_each_format(tmp_path, shared, writer):
    source = shared / "data/ShanghaiTech/part_A_final/train_data"
    points, sizes = {}, {}
    for number in (3, 25):
        name = f"№ {number}.jpg"
        (tmp_path / "pictures").mkdir(exist_ok=True)
        shutil.copy(source / f"images/IMG_{number}.jpg", tmp_path / "pictures" / name)
        mat = scipy.io.loadmat(source / f"ground_truth/GT_IMG_{number}.mat")
        location = mat["image_info"][0, 0][0, 0][0].astype(np.float64) - 1
        points[name] = list(map(tuple, location.tolist()))
        sizes[name] = Image.open(tmp_path / "pictures" / name).size[::-1]
    assert {name: len(some) for name, some in points.items()} == {"№ 3.jpg": 262, "№ 25.jpg": 220}
    (tmp_path / "labels").mkdir()
    writer(tmp_path / "labels", points, sizes)
    _, found = run(tmp_path, tmp_path / "pictures", tmp_path / "labels")
    for name, some in points.items():  # float32 holds them to 3e-5 pixels
        np.testing.assert_allclose(found[name], some, atol=1e-4)


def test_listed_pictures_are_empty_on_request(tmp_path, folder):
    annotation_files.via_2_json(tmp_path, POINTS, {})
    _, found = run(tmp_path, folder, tmp_path / "via_export_json.json", listed_are_empty=True)
    assert len(found["nobody.jpg"]) == 0


def test_boxes_become_their_top_centre_and_this_is_said(tmp_path, folder):
    boxes = [[10, 20, 30, 8], [-5, -3, 20, 10], [80, 50, 20, 30]]
    value = {
        "images": [{"id": 1, "file_name": "IMG_2.png"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": box} for box in boxes],
        "categories": [{"id": 1, "name": "person"}],
    }
    path = write(tmp_path / "coco.json", value)
    report, found = run(tmp_path, folder, path)
    # Moved into the picture where the box is not wholly outside.
    np.testing.assert_allclose(found["IMG_2.png"], [(25, 20), (5, 0), (89.5, 50)])
    assert any("3 boxes became points, the middle of their upper" in note for note in report.notes)
    report, found = run(tmp_path, folder, path, box_point="centre", overwrite=True)
    np.testing.assert_allclose(found["IMG_2.png"], [(25, 24), (5, 2), (89.5, 59.5)])
    assert any("their centre" in note for note in report.notes)


def test_shapes_of_labelme(tmp_path, folder):
    shapes = [
        {"label": "head", "shape_type": "rectangle", "points": [[40, 30], [20, 10]]},  # upwards
        {"label": "head", "shape_type": "circle", "points": [[50, 50], [55, 50]]},
        {"label": "head", "shape_type": "polygon", "points": [[2, 9], [12, 3], [8, 20]]},
        {"label": "head", "shape_type": "line", "points": [[2, 9], [12, 3]]},
    ]
    value = {"shapes": shapes, "imagePath": "IMG_2.png", "imageHeight": HEIGHT, "imageWidth": WIDTH}
    report, found = run(tmp_path, folder, write(tmp_path / "x.json", value))
    np.testing.assert_allclose(found["IMG_2.png"], [(30, 10), (50, 50), (7, 3)])
    notes = " | ".join(report.notes)
    assert "2 boxes became" in notes and "1 circles" in notes and "1 marks left out: line" in notes


def test_shapes_of_via(tmp_path, folder):
    shapes = [
        {"name": "rect", "x": 10, "y": 20, "width": 6, "height": 8},
        {"name": "ellipse", "cx": 30, "cy": 40, "rx": 3, "ry": 5},
        {"name": "polygon", "all_points_x": [1, 5, 3], "all_points_y": [7, 9, 11]},
        {"name": "polyline", "all_points_x": [1, 5], "all_points_y": [7, 9]},
    ]
    regions = [{"shape_attributes": shape, "region_attributes": {}} for shape in shapes]
    value = {"k": {"filename": "https://example.org/a/IMG_2.png", "size": 1, "regions": regions}}
    _, found = run(tmp_path, folder, write(tmp_path / "x.json", value))
    np.testing.assert_allclose(found["IMG_2.png"], [(13, 20), (30, 40), (3, 7)])


def test_shapes_of_cvat(tmp_path, folder):
    path = write(
        tmp_path / "x.xml",
        '<annotations><image name="IMG_2.png" width="90" height="60"><tag label="street"/>'
        '<box label="p" xtl="10" ytl="20" xbr="16" ybr="40"/>'
        '<box label="p" xtl="10" ytl="20" xbr="16" ybr="40" rotation="30.0"/>'
        '<ellipse label="p" cx="30" cy="31" rx="2" ry="3"/>'
        '<skeleton label="p"><points label="left_eye" outside="0" points="50.0,20.0"/>'
        '<points label="right_eye" outside="0" points="54,22"/>'
        '<points label="nose" outside="1" points="0,0"/>'
        '<points label="foot" outside="0" points="52,58"/></skeleton>'
        '<mask label="p" rle="1" left="0" top="0" width="2" height="2"/></image></annotations>',
    )
    report, found = run(tmp_path, folder, path)
    np.testing.assert_allclose(found["IMG_2.png"], [(13, 20), (30, 31), (52, 21)])
    notes = " | ".join(report.notes)
    assert "marks left out: rotated box" in notes and "marks left out: mask" in notes


def test_areas_of_crowds_are_not_people(tmp_path, folder):
    value = {
        "images": [{"id": 1, "file_name": "IMG_2.png"}, {"id": 2, "file_name": "nobody.jpg"}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": [10, 20, 4, 4], "iscrowd": 0},
            {"image_id": 1, "category_id": 1, "bbox": [0, 0, 90, 60], "iscrowd": 1},
            {"image_id": 2, "category_id": 1, "bbox": [0, 0, 90, 60], "iscrowd": 1},
        ],
        "categories": [{"id": 1, "name": "person"}],
    }
    report, found = run(tmp_path, folder, write(tmp_path / "coco.json", value))
    assert {name: points.tolist() for name, points in found.items()} == {"IMG_2.png": [[12, 20]]}
    assert any("crowd area" in note for note in report.notes)
    assert any("nobody.jpg left out" in line and "crowd area" in line for line in report.problems)


def test_labels_are_asked_for_where_there_are_several(tmp_path, folder):
    value = {
        "images": [{"id": 1, "file_name": "IMG_2.png"}, {"id": 2, "file_name": "nobody.jpg"}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": [10, 20, 4, 4]},
            {"image_id": 1, "category_id": 2, "bbox": [30, 20, 4, 4]},
            {"image_id": 2, "category_id": 2, "bbox": [30, 20, 4, 4]},
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "car"}],
    }
    path = write(tmp_path / "coco.json", value)
    with pytest.raises(UserError, match=r"several labels \(car 2, person 1\).*--label"):
        run(tmp_path, folder, path)
    with pytest.raises(UserError, match="no marks with label 'head'; there are car 2, person 1"):
        run(tmp_path, folder, path, labels=["head"])
    assert not (tmp_path / "out").exists()
    report, found = run(tmp_path, folder, path, labels=["person"])
    assert {name: points.tolist() for name, points in found.items()} == {
        "IMG_2.png": [[12, 20]],
        "nobody.jpg": [],
    }
    assert any("other labels alone" in n and "nobody.jpg" in n for n in report.notes)
    _, found = run(tmp_path, folder, path, labels=["all"], overwrite=True)
    assert [len(points) for points in found.values()] == [2, 1]


def test_points_are_checked_picture_by_picture(tmp_path, folder):
    write(
        tmp_path / "heads.csv",
        "file,x,y\nIMG_2.png,1,2\nIMG_2.png,1,2\nIMG_2.png,nan,2\nIMG_2.png,95,2\nIMG_2.png,-1,2\n"
        "nobody.jpg,4,inf\nnobody.jpg,4,5\n",
    )
    report, found = run(tmp_path, folder, tmp_path / "heads.csv")
    assert found["IMG_2.png"].tolist() == [[1, 2], [1, 2], [95, 2], [-1, 2]]
    assert found["nobody.jpg"].tolist() == [[4, 5]]
    for name, what in [
        ("IMG_2.png", "1 point without finite coordinates"),
        ("IMG_2.png", "2 points outside the picture"),
        ("IMG_2.png", "1 point where another one is"),
        ("nobody.jpg", "1 point without finite"),
    ]:
        assert any(note.startswith(f"{name}: {what}") for note in report.notes), what
    assert sum("without annotation" in note for note in report.notes) == 1
    scipy.io.savemat(tmp_path / "IMG_2.mat", {"annPoints": [[np.nan, 1.0], [3.0, 4.0]]})
    report, found = run(tmp_path, folder, tmp_path / "IMG_2.mat", overwrite=True)
    assert found["IMG_2.png"].tolist() == [[2, 3]]
    assert any("1 point without finite" in note for note in report.notes)


def test_x_and_y_swapped_are_not_imported(tmp_path, folder):
    write(tmp_path / "heads.csv", "file,x,y\nnobody.jpg,1,1\n" + "IMG_2.png,20,80\n" * 4)
    report, found = run(tmp_path, folder, tmp_path / "heads.csv")
    assert list(found) == ["nobody.jpg"]
    assert any("IMG_2.png left out" in line and "swapped" in line for line in report.problems)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_points_are_on_the_same_pixel(tmp_path, orientation):
    pixels = np.zeros((5, 9), np.uint8)
    pixels[1, 7] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    ((y, x),) = np.argwhere(pictures.read(tmp_path / "a.png")[..., 0] == 255)
    turned = heads.turn(np.array([[7.5, 1.5]]), heads.orientation(tmp_path / "a.png"), 5, 9)
    assert turned.tolist() == [[x + 0.5, y + 0.5]]


def test_pictures_annotated_lying_are_turned_with_their_boxes(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored picture's left side is the upright one's top
    picture = draw(tmp_path / "a.jpg", height=60, width=90, exif=exif)
    marks = [Mark(POINT, (10.0, 20.0)), Mark(BOX, (30.0, 10.0, 50.0, 30.0))]
    lying = heads.of(Marked(tmp_path / "a.json", marks, size=(60, 90)), picture)
    assert lying.points.tolist() == [[40, 10], [40, 30]] and lying.turned
    upright = heads.of(Marked(tmp_path / "a.json", marks, size=(90, 60)), picture)
    assert upright.points.tolist() == [[10, 20], [40, 10]] and not upright.turned
    with pytest.raises(
        UserError, match=r"a\.jpg has 60 x 90 pixels, but .*a\.json is of .*45 x 30"
    ):
        heads.of(Marked(tmp_path / "a.json", marks, size=(30, 45)), picture)
    write(tmp_path / "heads.csv", "file,x,y\na.jpg,10,20\n")
    report, _ = run(tmp_path, tmp_path, tmp_path / "heads.csv")
    assert any("turned by EXIF" in note and "a.jpg" in note for note in report.notes)


def test_pictures_are_found_by_folders_spelling_and_stem(tmp_path):
    root = tmp_path / "pictures"
    for name in ("a/1.jpg", "b/1.jpg", "b/é.JPG", "c/x.jpg", "c/x.png", "d/GT.jpg"):
        draw(root / name.lower() if name.endswith("JPG") else root / name)
    (root / "b/é.jpg").rename(root / "b/É.JPG")
    table = {
        "a/1.jpg": [[1, 1]],
        "C:\\work\\b\\1.jpg": [[2, 2]],
        unicodedata.normalize("NFD", "é.jpg"): [[3, 3]],
        "x.jpg": [[4, 4]],
        "elsewhere/c/x.png": [[5, 5]],
        "gone.jpg": [[6, 6]],
    }
    report, found = run(tmp_path, root, write(tmp_path / "points.json", table))
    assert {name: points.tolist() for name, points in found.items()} == {
        "a/1.jpg": [[1, 1]],
        "b/1.jpg": [[2, 2]],
        "b/É.JPG": [[3, 3]],
        "c/x.jpg": [[4, 4]],
        "c/x.png": [[5, 5]],
    }
    assert len(report.problems) == 1 and "gone.jpg" in report.problems[0]
    assert any("d/GT.jpg" in note for note in report.notes)


def test_two_pictures_of_one_stem_are_not_mixed_up(tmp_path):
    root = tmp_path / "pictures"
    for name in ("a/x.jpg", "a/x.png", "b/y.jpg", "c/y.jpg"):
        draw(root / name)
    write(tmp_path / "labels/b/y.csv", "1,2\n")
    write(tmp_path / "labels/c/y.csv", "3,4\n")
    write(tmp_path / "labels/a/x.csv", "5,6\n")
    report, found = run(tmp_path, root, tmp_path / "labels")
    assert {name: points.tolist() for name, points in found.items()} == {
        "b/y.jpg": [[1, 2]],
        "c/y.jpg": [[3, 4]],
    }
    assert any("a/x.jpg, a/x.png" in line for line in report.problems)
    table = write(tmp_path / "points.json", {"x.jpg": [[1, 1]], "x.png": [[2, 2]]})
    _, found = run(tmp_path, root, table, overwrite=True)
    assert found["a/x.jpg"].tolist() == [[1, 1]] and found["a/x.png"].tolist() == [[2, 2]]


def test_an_annotation_beside_its_picture_needs_no_folder(tmp_path):
    for name in ("one/x.jpg", "two/x.jpg"):
        write(draw(tmp_path / "data" / name).with_suffix(".csv"), f"{len(name)},1\n1,2\n")
    (tmp_path / "data/notes.txt").write_text("taken in May")
    report = importing.import_points([tmp_path / "data"], tmp_path / "data/out")
    assert report.problems == [] and report.splits == {"": (2, 4)}
    again = importing.import_points([tmp_path / "data"], tmp_path / "data/out")
    assert again.splits == report.splits  # what was written is no source


def test_a_picture_annotated_twice_is_left_out(tmp_path, folder):
    sources = [write(tmp_path / f"{i}.json", {"IMG_2.png": [[i, i]]}) for i in (1, 2)]
    other = write(tmp_path / "3.json", {"nobody.jpg": []})
    report, found = run(tmp_path, folder, *sources, other)
    assert list(found) == ["nobody.jpg"]
    assert any("IMG_2.png left out: annotated 2 times" in line for line in report.problems)


def test_splits_are_kept(tmp_path):
    root = tmp_path / "data"
    for name in ("images/train/a.jpg", "images/val/b.jpg", "c.jpg"):
        draw(root / name)
        write((root / name.replace("images", "labels")).with_suffix(".txt"), "0 0.5 0.5 0.2 0.2\n")
    report, found = run(tmp_path, root)
    assert set(found) == {"train/images/a.jpg", "test/images/b.jpg", "train/c.jpg"}
    assert report.splits == {"train": (2, 2), "test": (1, 1)}
    assert any("outside train/ and test/" in note for note in report.notes)
    places = output.places(["train/a.jpg", "valid/b.jpg", "test/c.jpg"])
    assert [place.split for place in places.values()] == ["train", "train", "test"]
    assert output.places(["x/a.jpg"]) == {"x/a.jpg": output.Place("", "x/a.jpg")}
    with pytest.raises(UserError, match="choose another --out"):
        run(tmp_path, root, root / "c.txt")


def test_nothing_is_overwritten_unasked(tmp_path, folder):
    first = write(tmp_path / "1.json", {"IMG_2.png": [[1, 1]]})
    second = write(tmp_path / "2.json", {"nobody.jpg": [[2, 2]], "IMG_2.png": [[1, 1]]})
    other = write(tmp_path / "3.json", {"IMG_2.png": [[9, 9]], "a b – Straße.jpg": [[9, 9]]})
    run(tmp_path, folder, first)
    _, found = run(tmp_path, folder, second)  # more pictures: nothing of the first is changed
    assert {name: points.tolist() for name, points in found.items()} == {
        "IMG_2.png": [[1, 1]],
        "nobody.jpg": [[2, 2]],
    }
    with pytest.raises(UserError, match=r"IMG_2\.png.*--overwrite"):
        run(tmp_path, folder, other)
    assert imported(tmp_path / "out").keys() == found.keys()
    assert not (tmp_path / "out/a b – Straße.jpg").exists()
    draw(folder / "nobody.jpg", height=61)
    with pytest.raises(UserError, match="nobody.jpg"):
        run(tmp_path, folder, second)
    _, found = run(tmp_path, folder, second, other, overwrite=True)[1], None
    assert (tmp_path / "out/nobody.jpg").read_bytes() == (folder / "nobody.jpg").read_bytes()


def test_an_interrupted_import_can_be_repeated(tmp_path, folder, monkeypatch):
    path = write(tmp_path / "points.json", POINTS)
    written, real = [], output.work_folder.write

    def failing(path, data):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        real(path, data)

    monkeypatch.setattr(output.work_folder, "write", failing)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, folder, path)
    assert imported(tmp_path / "out") == {}
    monkeypatch.setattr(output.work_folder, "write", real)
    times = {file: file.stat().st_mtime_ns for file in written}
    _, found = run(tmp_path, folder, path)
    assert found.keys() == POINTS.keys()
    assert times == {file: file.stat().st_mtime_ns for file in written}
    table = tmp_path / "out/points.json"
    before = table.stat().st_mtime_ns
    run(tmp_path, folder, path)
    assert table.stat().st_mtime_ns == before  # prepared data of it stays valid


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("a.json", "{", "a.json is not valid JSON"),
        ("a.json", '{"project": 1, "config": 2, "file": 3}', "a.json is JSON with keys project, "),
        ("a.json", '{"images": [{"id": 1}], "annotations": []}', "not COCO.*file_name"),
        ("a.json", '{"shapes": [{"shape_type": "point"}], "imagePath": "x"}', "not LabelMe"),
        ("a.csv", "left,top\n1,2\n", "a.csv is CSV with first entry"),
        ("a.csv", "file,x,y\nIMG_2.png,1,two\n", "line 2.*correct the line"),
        ("a.csv", "1,2\n1\n", "line 2"),
        ("a.xml", "<annotations>", "not valid XML"),
        ("a.xml", "<annotations><track/></annotations>", "tracks of a video"),
        ("a.xml", "<annotation><object/></annotation>", "XML with root annotation"),
        ("a.txt", "hello", "a.txt is TXT"),
        ("a.txt", "0 0.5 0.5 0.1 0.1 0.2 0.3\n", "not a box"),
        ("a.mat", "no", "not a readable .mat"),
        ("a.zip", "PK", "a.zip is an archive; unpack it"),
        ("a.json", '{"gone.png": [[1, 1]]}', "nothing to import: 1 annotated pictures are not in"),
        ("a.json", '{"IMG_2.png": {"points": [], "finished": false}}', "without any mark"),
    ],
)
def test_bad_files_are_one_line(tmp_path, folder, name, text, match):
    with pytest.raises(UserError, match=match) as raised:
        run(tmp_path, folder, write(tmp_path / "bad" / name, text))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_one_bad_file_does_not_stop_the_others(tmp_path, folder):
    write(tmp_path / "labels/IMG_2.csv", "1,2\n")
    write(tmp_path / "labels/nobody.csv", "1,2\n1,oops\n")
    (folder / "IMG_3.png").write_bytes(b"")
    write(tmp_path / "labels/IMG_3.csv", "1,2\n")
    report, found = run(tmp_path, folder, tmp_path / "labels")
    assert list(found) == ["IMG_2.png"]
    assert len(report.problems) == 2
    assert any("nobody.csv, line 2" in line for line in report.problems)
    assert any("IMG_3.png" in line and "not a picture" in line for line in report.problems)


def test_formats_can_be_chosen(tmp_path, folder):
    write(tmp_path / "labels/IMG_2.csv", "1,2\n")
    write(tmp_path / "labels/IMG_2.json", "[[3, 4]]")
    _, found = run(tmp_path, folder, tmp_path / "labels", format="json")
    assert found["IMG_2.png"].tolist() == [[3, 4]]
    assert set(registry.NAMES) == {
        "coco", "csv", "cvat", "json", "labelme", "mat", "via", "yolo"
    }  # fmt: skip


def test_the_command(tmp_path, folder, capsys):
    path = write(tmp_path / "points.json", {**POINTS, "gone\x1b.png": []})
    arguments = [str(path), f"--pictures={folder}", f"--out={tmp_path / 'my out'}"]
    assert command.main(arguments) == 1  # something was left out
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "recognised points of this project (JSON): 4 pictures in points.json",
        f"{tmp_path / 'my out'}\t3 pictures\t6 heads",
    ]
    assert "gone\\x1b.png" in err and f"--config.dataset.raw_dir='{tmp_path / 'my out'}'" in err
    assert command.main([str(folder / "IMG_2.png"), f"--out={tmp_path / 'other'}"]) == 1
    assert "no annotations" in capsys.readouterr().err
    assert command.main([str(path), f"--out={tmp_path}"]) == 1
    assert "name another" in capsys.readouterr().err
    assert command.main([str(tmp_path / "none.json"), f"--out={tmp_path / 'other'}"]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_what_is_written_is_read_by_the_readers(tmp_path, folder):
    run(tmp_path, folder, write(tmp_path / "points.json", POINTS))
    table = annotations.read_json_table(tmp_path / "out/points.json")
    assert {name: points.tolist() for name, points in table.items()} == {
        name: [list(point) for point in points] for name, points in POINTS.items()
    }
