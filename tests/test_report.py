"""The report: self-contained, escaped, small; per_image.csv and metrics.json."""

import base64
import csv
import io
import json
import math
import pathlib
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from cmtl_jax.evaluation import plots, report
from cmtl_jax.metrics import CountMetrics, ImageMetrics

ROOT = pathlib.Path(__file__).resolve().parent.parent
NASTY = "<script>alert(\"1\")</script> & 'x' {{ 7 * 7 }}, ü 群.jpg"


def _images(num, counts=(0, 600), groups=True):
    rng = np.random.default_rng(0)
    return [
        ImageMetrics(
            id=f"IMG_{i}" if i else NASTY,
            count_true=int(rng.integers(*counts)),
            count_pred=float(rng.uniform(*counts)),
            group_true=i % 10 if groups else None,
            group_pred=3 if groups else None,
            game=(1.0, 2.0, 3.0, 4.0),
            psnr=20.0,
            ssim=0.5,
            stray=float(i),
            brightness=100.0 + i,
            spacing=math.nan if i < 2 else 30.0 - i,
        )
        for i in range(num)
    ]


def _result(images):
    total = CountMetrics.empty()
    for image in images:
        total = total.add(image)
    return total.result()


def _triptych(shape=(96, 128), name="a", noise=False):
    rng = np.random.default_rng(1)
    density = np.zeros(shape, np.float32)
    density[shape[0] // 2, shape[1] // 3] = 1.0
    pred = rng.uniform(0, 0.01, shape).astype(np.float32) if noise else density / 2
    picture = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    return report.Triptych(name, picture, pred if noise else density, pred, 1, 0.5, "worst")


class _Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_data(self, data):
        self.words.append(data)


def _curve(number: int) -> list[dict]:
    return [{"step": i, "val_mae": 9.0 - i, "train_loss": 1.0} for i in range(number)]


def _write(path, **changes):
    images = changes.pop("images", _images(30))
    metrics = {**_result(images), "best_constant_mae": 300.0} if images else {}
    arguments = {
        "title": "Title " + NASTY,
        "metrics": metrics,
        "protocol": {"data set": NASTY, "seed": 3, "resize": None},
        "images": images,
        "triptychs": [_triptych(name=NASTY)],
        "curves": {"run": _curve(5)},
    }
    report.write_report(path, **{**arguments, **changes})
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page_text(tmp_path_factory):
    """One full page; drawing its plots takes most of a test's time."""
    return _write(tmp_path_factory.mktemp("report") / "sub" / "report.html")


def test_page_is_self_contained(page_text):
    page = _Page(page_text)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    sources = [v for _, name, v in page.attributes if name in ("src", "srcset", "href")]
    assert sources and all(source.startswith("data:image/") for source in sources)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    for source in sources:
        data = base64.b64decode(source.split(",", 1)[1], validate=True)
        Image.open(io.BytesIO(data)).load()
    # 4 plots for light and dark, 3 panels.
    assert len(sources) == 2 * 4 + 3


def test_names_are_escaped_everywhere(page_text):
    assert "<script" not in page_text
    words = "".join(_Page(page_text).words)
    # Title twice, protocol, triptych, table of pictures.
    assert words.count(NASTY) == 5


def test_names_that_are_no_valid_text(tmp_path):
    images = [ImageMetrics("bad\udcff", 1, 1.0, None, None, (0.0, 0.0, 0.0, 0.0))]
    assert "bad\\udcff" in _write(tmp_path / "report.html", images=images)
    report.write_per_image_csv(tmp_path / "a.csv", images)
    assert b"bad\xff,1,1.0,0.0,," in (tmp_path / "a.csv").read_bytes()


def test_numbers_and_their_labels(page_text):
    images = _images(30)
    words = " ".join(_Page(page_text).words)
    result = _result(images)
    assert "RMSE (called MSE in papers)" in words
    for key in ("mae", "rmse"):
        assert f"{result[key]:,.1f}" in words
    for label in ("GAME(1)", "GAME(2)", "GAME(3)", "NWPU-Crowd", "MAE of the best constant"):
        assert label in words
    change = round(100 * (1 - result["mae"] / 300))
    assert f"{abs(change)} % {'lower' if change >= 0 else 'higher'}" in words
    for image in images:
        assert f"{image.count_pred:,.1f}" in words


def test_baseline_and_curve_only_where_given(tmp_path, page_text):
    images = _images(5, groups=False)
    text = _write(tmp_path / "r.html", images=images, metrics=_result(images), curves=None)
    assert "best constant" not in text and "Learning curve" not in text
    assert "Predicted group" not in text
    for words in ("best constant", "Learning curve", "Predicted group"):
        assert words in page_text


def test_averaged_weights_have_a_learning_curve_of_each_run_that_logged_one(tmp_path):
    curves = {"first": _curve(5), "shb": [], "second <b>": _curve(3)}
    text = _write(tmp_path / "r.html", curves=curves)
    titles = [line.strip() for line in text.splitlines() if "<h2>Learning" in line]
    assert titles == [
        "<h2>Learning curve: first</h2>", "<h2>Learning curve: second &lt;b&gt;</h2>"
    ]  # fmt: skip


def test_report_of_nothing_and_of_nan(tmp_path):
    assert "<h1>" in _write(tmp_path / "r.html", images=[], triptychs=[], curves={})
    images = [ImageMetrics("a", 5, math.nan, None, None, (math.nan,) * 4)]
    text = _write(tmp_path / "r.html", images=images, curves={"run": [{"loss": 1}]})
    assert "nan" not in "".join(_Page(text).words).lower()


def test_page_stays_small(tmp_path):
    """Even with maps and pictures of noise, the worst case for compression."""
    triptychs = [_triptych((768, 1024), noise=True)] * 12
    path = tmp_path / "report.html"
    _write(path, triptychs=triptychs, images=_images(300))
    assert path.stat().st_size < 10e6


def test_writing_is_atomic(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(report.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
        with pytest.raises(OSError, match="disk"):
            _write(path, images=[], triptychs=[], curves=None)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_csv(tmp_path):
    images = _images(4) + [ImageMetrics('b,\n"c"', 2, 2.5, None, 1, (0.5,) * 4)]
    path = tmp_path / "sub" / "per_image.csv"
    report.write_per_image_csv(path, images)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("id,count_true,count_pred,error,group_true,group_pred\n")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [image.id for image in images]
    for row, image in zip(rows, images):
        assert float(row["count_pred"]) == image.count_pred
        assert float(row["error"]) == image.count_pred - image.count_true
        assert int(row["count_true"]) == image.count_true
    assert rows[-1]["group_true"] == "" and rows[-1]["group_pred"] == "1"
    report.write_per_image_csv(path, images, fold=range(1, 6))
    with path.open(newline="", encoding="utf-8") as file:
        assert [row["fold"] for row in csv.DictReader(file)] == list("12345")


def test_conditions_beside_the_csv(tmp_path):
    """Kept in a file of their own: the table's columns are what other programs rely on."""
    images = _images(4)
    report.write_per_image_csv(tmp_path / "per_image.csv", images)
    without = report.read_per_image_csv(tmp_path / "per_image.csv")
    assert all(math.isnan(image.stray) for image in without)
    report.write_conditions_csv(tmp_path / report.CONDITIONS, images)
    for image, read in zip(
        images, report.read_per_image_csv(tmp_path / "per_image.csv"), strict=True
    ):
        assert (read.id, read.count_pred) == (image.id, image.count_pred)
        assert (read.stray, read.brightness) == (image.stray, image.brightness)
        assert read.spacing == pytest.approx(image.spacing, rel=0, abs=0, nan_ok=True)


def test_errors_by_light_and_distance(page_text, tmp_path):
    words = " ".join(_Page(page_text).words)
    assert "Where counts go wrong" in words
    for part in ("dark", "bright", "close together", "far apart", "100.0 to 109.0", "120.0 to 129.0"):
        assert part in words, part
    few = _write(tmp_path / "r.html", images=_images(5))
    assert "Where counts go wrong" not in few


def test_json(tmp_path):
    path = tmp_path / "metrics.json"
    metrics = {
        "mae": np.float32(1.5),
        "nae": math.nan,
        "psnr": math.inf,
        "num_images": np.int64(3),
        "protocol": {"seed": 1, "list": (1, math.nan), "array": np.arange(2), "none": None},
    }
    report.write_metrics_json(path, metrics)
    read = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert read == {
        "mae": 1.5,
        "nae": None,
        "psnr": None,
        "num_images": 3,
        "protocol": {"seed": 1, "list": [1, None], "array": [0, 1], "none": None},
    }



@pytest.mark.parametrize("plot", [plots.scatter, plots.density_errors, plots.error_histogram])
@pytest.mark.parametrize("counts", [(5, 9), (0, 3), (0, 5000), (50, 900)])
def test_plots_are_pictures(plot, counts):
    for images in (_images(40, counts), _images(1, counts)):
        image = Image.open(io.BytesIO(plot(images)))
        assert image.format == "PNG" and image.width > 500
        assert len(image.getcolors(1 << 20)) > 10


def test_plots_differ_in_the_dark():
    light, dark = (
        np.asarray(Image.open(io.BytesIO(plots.scatter(_images(9), dark=d))).convert("L"))
        for d in (False, True)
    )
    assert light[0, 0] > 240 and dark[0, 0] < 60


def test_plots_survive_nan_and_negative_counts():
    images = [
        ImageMetrics("a", 5, math.nan, None, None, (math.nan,) * 4),
        ImageMetrics("b", 500, -300.0, None, None, (0.0,) * 4),
        ImageMetrics("c", 0, 0.0, None, None, (0.0,) * 4),
    ]
    for plot in (plots.scatter, plots.density_errors, plots.error_histogram):
        for part in (images, images[:1]):
            assert plot(part).startswith(b"\x89PNG")


def test_learning_curve_reads_what_a_log_holds():
    rows = [
        {"step": 10, "train/loss": 1.0, "note": "text"},
        {"step": 20, "val_mae": None},
        {"step": 20, "val_mae": math.nan, "flag": True},
        {"step": 30, "val_mae": 4.0},
        {"val_mae": 1.0},
    ]
    assert plots.learning_curve(rows).startswith(b"\x89PNG")
    assert plots.learning_curve([{"step": 1, "lr": 0.1}]) is None
    assert plots.learning_curve([]) is None
    assert plots._series(rows, "mae")["val_mae"][1].tolist() == [4.0]
    dense = [{"step": i, "loss": 1.0 + i % 7} for i in range(5000)]
    assert plots.learning_curve(dense).startswith(b"\x89PNG")


def test_drawing_needs_no_pyplot():
    """pyplot keeps every figure in a global list and picks a back end by the display."""
    code = (
        "import sys; from cmtl_jax.evaluation import plots;"
        "from cmtl_jax.metrics import ImageMetrics;"
        "plots.scatter([ImageMetrics('a', 1, 2.0, None, None, (1.0,) * 4)]);"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
