"""Preparation: what is stored, when it is repeated, what happens to it when things go wrong."""

import concurrent.futures
import logging
import os
import pathlib
import pickle
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds
from PIL import Image

from cmtl_jax import pictures
from cmtl_jax.datasets import manifest, prepare
from cmtl_jax.datasets.density_map import DensityRule, apply_outside, density_map
from cmtl_jax.errors import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
NUMBERS = [1, 2, 10, 11]  # in natural order


def draw(path: pathlib.Path, number: int, height=32, width=40) -> None:
    """Writes a small picture; odd numbers grey."""
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
    picture = Image.fromarray(pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    (picture.convert("L") if number % 2 else picture).save(path, quality=90)


def points_of(number: int) -> np.ndarray:
    """Head points of a made picture, 0-based; the last one lies outside."""
    points = np.random.default_rng(number).uniform(0, 32, (number % 4 + 1, 2))
    return np.concatenate([points, [[44.0, 5.0]]])


def make_split(folder: pathlib.Path, truth: str = "ground_truth", numbers=NUMBERS) -> None:
    """A split of ShanghaiTech with made pictures."""
    (folder / truth).mkdir(parents=True)
    for number in numbers:
        draw(folder / "images" / f"IMG_{number}.jpg", number)
        info = np.empty((1, 1), object)
        info[0, 0] = {"location": points_of(number) + 1, "number": 0}
        scipy.io.savemat(folder / truth / f"GT_IMG_{number}.mat", {"image_info": info})


@pytest.fixture
def raw(tmp_path) -> pathlib.Path:
    folder = tmp_path / "raw" / "ShanghaiTech"
    make_split(folder / "part_A_final/train_data")
    make_split(folder / "part_A_final/test_data", numbers=[3])
    return folder


def part_a(raw, tmp_path, rule=DensityRule(), **kwargs) -> prepare.Prepared:
    return prepare.prepare(
        "shanghaitech", rule=rule, raw_dir=raw, tfds_dir=tmp_path / "tfds", **kwargs
    )


def state(prepared: prepare.Prepared) -> dict:
    """Identity of every prepared file."""
    return {path.name: path.stat().st_ino for path in prepared.directory.iterdir()}


@pytest.mark.parametrize(
    "rule", [DensityRule(), DensityRule(7, 2.0, "recenter", "drop")], ids=lambda rule: rule.slug
)
def test_records_are_what_the_files_say(raw, tmp_path, rule):
    prepared = part_a(raw, tmp_path, rule)
    split = prepared.splits["train"]
    assert [entry.id for entry in split.index] == [f"IMG_{number}" for number in NUMBERS]
    assert len(list(split)) == len(split) == 4
    for number, entry, record in zip(NUMBERS, split.index, split, strict=True):
        points = apply_outside(points_of(number).astype(np.float32), 32, 40, rule.outside)
        path = raw / f"part_A_final/train_data/images/IMG_{number}.jpg"
        assert record.id == entry.id and record.image_bytes == path.read_bytes()
        np.testing.assert_allclose(record.points, points, atol=1e-5)
        expected = density_map(record.points, 32, 40, rule)
        assert record.density.dtype == np.float32
        np.testing.assert_array_equal(record.density, expected)
        assert entry[1:] == (32, 40, len(points))
    assert split.annotated == sum(len(points_of(number)) for number in NUMBERS)
    assert split.outside == len(NUMBERS)
    np.testing.assert_array_equal(split.points(2), split[2].points)
    assert split.record(1, density=False).density is None
    assert split[-1].id == "IMG_11"
    for wrong in (4, -5):
        with pytest.raises(IndexError):
            split[wrong]


def test_prepared_once_per_rule(raw, tmp_path, capfd):
    first = part_a(raw, tmp_path)
    out, err = capfd.readouterr()
    assert out == "" and "preparing shanghaitech/part_a" in err
    before = state(first)
    again = part_a(raw, tmp_path)
    assert state(again) == before
    assert "preparing" not in capfd.readouterr().err
    assert first.config == "part_a"
    other = part_a(raw, tmp_path, DensityRule(sigma=3.0))
    assert other.directory != first.directory and other.config.startswith("part_a-")
    assert state(part_a(raw, tmp_path)) == before
    assert not np.array_equal(other.splits["train"][0].density, first.splits["train"][0].density)


def test_without_raw_folder_prepared_data_is_used(raw, tmp_path):
    before = state(part_a(raw, tmp_path))
    for nowhere in (tmp_path / "nowhere", None, ""):
        prepared = part_a(nowhere, tmp_path)
        assert state(prepared) == before and set(prepared.splits) == {"train", "test"}


def test_missing_split_is_one_warning_and_picked_up_later(raw, tmp_path, caplog):
    test = raw / "part_A_final/test_data"
    shutil.move(test, tmp_path / "away")
    prepared = part_a(raw, tmp_path)
    assert set(prepared.splits) == {"train"}
    missing = [r for r in caplog.records if "no test split" in r.getMessage()]
    assert len(missing) == 1 and missing[0].levelno == logging.WARNING
    shutil.move(tmp_path / "away", test)
    caplog.clear()
    prepared = part_a(raw, tmp_path)
    assert [entry.id for entry in prepared.splits["test"].index] == ["IMG_3"]
    assert not [r for r in caplog.records if "no test split" in r.getMessage()]
    # And a split that is away again is still there as prepared.
    before = state(prepared)
    shutil.rmtree(test)
    assert state(part_a(raw, tmp_path)) == before


def test_changed_raw_files_are_prepared_again(raw, tmp_path):
    part_a(raw, tmp_path)
    draw(raw / "part_A_final/train_data/images/IMG_2.jpg", 2, height=36)
    assert part_a(raw, tmp_path).splits["train"].index[1].height == 36


@pytest.mark.parametrize(
    ("layout", "given"),
    [
        ("part_A/train_data|ground-truth", "."),
        ("part_A_final/train_data|ground_truth", "part_A_final"),
        ("archive/ShanghaiTech/part_A/train_data|ground-truth", "."),
        ("ShanghaiTech/part-A-final/train-data|ground_truth", "ShanghaiTech"),
    ],
)
def test_layouts(tmp_path, layout, given):
    folder, truth = layout.split("|")
    make_split(tmp_path / "raw" / folder, truth, [1])
    # Part B beside it must not be taken for part A.
    part_b = (tmp_path / "raw" / folder).parent.with_name("part_B")
    make_split(part_b / "train_data", numbers=[5, 6])
    prepared = part_a(tmp_path / "raw" / given, tmp_path)
    assert [entry.id for entry in prepared.splits["train"].index] == ["IMG_1"]
    with pytest.raises(UserError, match="not found"):
        part_a(part_b, tmp_path / "other")


@pytest.mark.parametrize("name", ["shanghaitech", "ucf_cc_50", "point_folder"])
def test_missing_data_set(tmp_path, name):
    for raw_dir in (None, tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError) as info:
            prepare.prepare(name, raw_dir=raw_dir, tfds_dir=tmp_path / "tfds")
        message = str(info.value)
        assert "expected" in message and "\n" not in message
        if raw_dir != tmp_path:
            assert "--config.dataset.raw_dir=DIR" in message
        assert raw_dir is None or str(raw_dir) in message


def test_unknown_names_and_options(tmp_path):
    with pytest.raises(UserError, match="unknown data set 'mnist'"):
        prepare.prepare("mnist")
    with pytest.raises(UserError, match="options not understood.*parts"):
        prepare.prepare("shanghaitech", options={"parts": "part_a"})
    with pytest.raises(UserError, match="part_c"):
        prepare.prepare("shanghaitech", options={"part": "part_c"})
    with pytest.raises(UserError, match="folds"):
        prepare.prepare("ucf_cc_50", options={"folds": "sorted"})


def test_damaged_file_leaves_nothing_behind(raw, tmp_path):
    path = raw / "part_A_final/train_data/images/IMG_10.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="IMG_10.jpg is truncated"):
        part_a(raw, tmp_path)
    assert not list((tmp_path / "tfds").rglob("*array_record*"))
    draw(path, 10)
    assert len(part_a(raw, tmp_path).splits["train"]) == 4


def test_swapped_axes_are_refused(raw, tmp_path):
    info = np.empty((1, 1), object)
    info[0, 0] = {"location": np.array([[5.0, 36.0], [9, 38], [20, 39], [3, 4]]), "number": 4}
    scipy.io.savemat(
        raw / "part_A_final/train_data/ground_truth/GT_IMG_2.mat", {"image_info": info}
    )
    with pytest.raises(UserError, match="GT_IMG_2.mat: x and y seem swapped"):
        part_a(raw, tmp_path)


def test_picture_without_annotation_is_reported(raw, tmp_path):
    (raw / "part_A_final/train_data/ground_truth/GT_IMG_2.mat").unlink()
    prepared = part_a(raw, tmp_path)
    assert len(prepared.splits["train"]) == 3
    assert any("IMG_2.jpg" in line for line in prepared.reports)


def test_pickle_and_threads(raw, tmp_path):
    split = part_a(raw, tmp_path).splits["train"]
    expected = [split[i] for i in range(len(split))]
    copy = pickle.loads(pickle.dumps(split))
    order = np.random.default_rng(0).integers(0, len(split), 64).tolist()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(copy.__getitem__, order))
    for i, record in zip(order, found, strict=True):
        assert record.image_bytes == expected[i].image_bytes
        np.testing.assert_array_equal(record.density, expected[i].density)
    assert copy.index == split.index


def test_an_ordinary_tfds_builder(raw, tmp_path):
    kwargs = {"data_dir": tmp_path / "tfds", "file_format": "array_record"}
    builder = tfds.builder("shanghaitech/part_a", **kwargs)
    config = tfds.download.DownloadConfig(manual_dir=raw)
    builder.download_and_prepare(download_config=config)
    source = tfds.builder("shanghaitech/part_a", **kwargs).as_data_source(split="train")
    sliced = tfds.data_source(
        "shanghaitech/part_a",
        split="train[:50%]",
        data_dir=tmp_path / "tfds",
        builder_kwargs={"file_format": "array_record"},
    )
    assert (len(source), len(sliced)) == (4, 2)
    for number, example in zip(NUMBERS, source, strict=True):
        path = raw / f"part_A_final/train_data/images/IMG_{number}.jpg"
        assert example["id"].decode() == path.stem
        assert example["count"] == len(example["points"]) == len(points_of(number))
        assert example["density"].shape == (32, 40, 1)
        # OpenCV's and Pillow's decoders of colour may differ by rounding.
        difference = example["image"].astype(int) - pictures.read(path, 3)
        assert np.abs(difference).max() <= 3
    # What TFDS prepared by itself counts as prepared here.
    directory = pathlib.Path(builder.data_dir)
    before = {path.name: path.stat().st_ino for path in directory.iterdir()}
    assert state(part_a(raw, tmp_path)) == before


def test_other_encodings_are_stored_as_upright_png(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 40, 3), np.uint8)
    raw = tmp_path / "raw"
    raw.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(raw / "turned.jpg", exif=exif)
    Image.fromarray(pixels).save(raw / "a.bmp")
    for name in ("turned", "a"):
        (raw / f"{name}.csv").write_text("1,2\n")
    split = prepare.prepare("point_folder", raw_dir=raw, tfds_dir=tmp_path / "t").splits["train"]
    for record, entry in zip(split, split.index, strict=True):
        assert pictures.plain(record.image_bytes)
        found = pictures.decode(record.image_bytes, record.id, 3)
        np.testing.assert_array_equal(found, pictures.read(raw / record.id, 3))
        assert found.shape[:2] == (entry.height, entry.width) == record.density.shape
    assert {entry.id: entry.height for entry in split.index} == {"a.bmp": 32, "turned.jpg": 40}


SCRIPT = """
import sys
from cmtl_jax.datasets import prepare
prepared = prepare.prepare("shanghaitech", raw_dir=sys.argv[1], tfds_dir=sys.argv[2])
print(sum(float(record.density.sum()) for record in prepared.splits["train"]))
print("tensorflow" in sys.modules, "jax" in sys.modules)
"""


def start(raw, tmp_path, script=SCRIPT) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(raw), str(tmp_path / "tfds")],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_several_processes_at_once_and_no_tensorflow(raw, tmp_path):
    processes = [start(raw, tmp_path) for _ in range(3)]
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], results
    people = sum(len(points_of(number)) for number in NUMBERS)
    for out, _ in results:
        total, modules = out.splitlines()
        assert float(total) == pytest.approx(people, abs=1e-3)
        assert modules == "False False"
    # One of them did the work, the others waited for it.
    assert sum("preparing" in err for _, err in results) == 1
    assert not list((tmp_path / "tfds").rglob("incomplete*"))


def test_killed_in_the_middle(raw, tmp_path):
    slow = SCRIPT.replace(
        "prepared =",
        """
import time
from cmtl_jax.datasets import crowd_builder
encode = crowd_builder.encode
def slow_encode(item, rule):
    if item.id == "IMG_11":
        print("in the middle", file=sys.stderr, flush=True)
        time.sleep(60)
    return encode(item, rule)
crowd_builder.encode = slow_encode
prepared =""",
    )
    process = start(raw, tmp_path, slow)
    assert any("in the middle" in line for line in process.stderr)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=10)
    folder = tmp_path / "tfds/shanghaitech/part_a"
    assert [path.name.startswith("incomplete") for path in folder.iterdir()] == [True]
    assert len(part_a(raw, tmp_path).splits["train"]) == 4
    assert [path.name for path in folder.iterdir()] == ["1.0.0"]


def test_manifest():
    check = manifest.check
    report = check("shanghaitech/part_a", "train", 300, 162_707)
    assert report.good and "matches" in report.line
    report = check("shanghaitech/part_b", "test", 316, 39_121)
    assert report.good and "mirrored variant" in report.line
    report = check("ucf_cc_50", "all folds", 49, 63_000)
    assert not report.good and "49 pictures" in report.line and "63,974" in report.line
    assert check("point_folder", "train", 1, 1) is None


def test_deviation_is_a_warning(raw, tmp_path, caplog):
    prepared = part_a(raw, tmp_path)
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert sum("deviates" in line for line in lines) == 2
    assert sum("deviates" in line for line in prepared.reports) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "people"),
    [
        ("shanghaitech", {"part": "part_a"}, {"train": 162_707}),
        ("shanghaitech", {"part": "part_b"}, {"train": 49_280, "test": 39_208}),
        ("ucf_cc_50", {}, None),
    ],
)
def test_real_data(shared, tmp_path, name, options, people):
    prepared = prepare.prepare(name, raw_dir=shared / "data", tfds_dir=tmp_path, options=options)
    splits = prepared.splits
    found = {split: sum(entry.count for entry in one.index) for split, one in splits.items()}
    if people is None:
        assert len(found) == 5 and sum(found.values()) == 63_974
        assert [len(one) for one in splits.values()] == [10] * 5
    else:
        assert found == people
    assert all("deviates" not in line for line in prepared.reports)
    for one in splits.values():
        for i in (0, len(one) - 1):
            record = one[i]
            assert record.density.sum() == pytest.approx(len(record.points), abs=1e-2)
            assert pictures.decode(record.image_bytes, record.id).shape[:2] == record.density.shape
