"""What the builders of UCF_CC_50, drawn scenes and a user's folder find."""

import collections
import os

import numpy as np
import pytest
import scipy.io
from PIL import Image

from cmtl_jax import pictures
from cmtl_jax.datasets import prepare, scenes, ucf_cc_50
from cmtl_jax.datasets.crowd_builder import natural
from cmtl_jax.datasets.density_map import DensityRule
from cmtl_jax.errors import UserError


def draw(path, height=20, width=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (height, width), np.uint8)
    Image.fromarray(pixels).save(path)


def ids(split):
    return [entry.id for entry in split.index]


def test_natural_order():
    names = ["IMG_10", "IMG_2", "a1b10", "a1b9", "IMG_1", "x", ""]
    assert sorted(names, key=natural) == ["", "IMG_1", "IMG_2", "IMG_10", "a1b9", "a1b10", "x"]


@pytest.mark.parametrize("folds", ["sequential", "random_0", "random_7"])
def test_each_picture_is_in_one_fold_of_ten(folds):
    assigned = ucf_cc_50.fold_of_pictures(folds)
    assert sorted(assigned) == list(range(1, 51))
    assert set(collections.Counter(assigned.values()).values()) == {10}
    if folds == "sequential":
        assert [n for n, fold in assigned.items() if fold == "fold_2"] == list(range(11, 21))


def test_random_folds_differ_by_seed():
    folds = [ucf_cc_50.fold_of_pictures(f"random_{seed}") for seed in (0, 1, 0)]
    assert folds[0] == folds[2] != folds[1]


def test_ucf_cc_50(tmp_path):
    raw = tmp_path / "UCF_CC_50"
    for number in range(1, 51):
        if number != 13:
            draw(raw / f"{number}.jpg")
        points = np.full((number, 2), 5.0)
        scipy.io.savemat(raw / f"{number}_ann.mat", {"annPoints": points})
    for given in (raw, tmp_path):
        prepared = prepare.prepare("ucf_cc_50", raw_dir=given, tfds_dir=tmp_path / "tfds")
    assert list(prepared.splits) == [f"fold_{fold}" for fold in range(1, 6)]
    assert ids(prepared.splits["fold_2"]) == ["11", "12", *map(str, range(14, 21))]
    assert [entry.count for entry in prepared.splits["fold_1"].index] == list(range(1, 11))
    assert (prepared.splits["fold_1"].points(0) == 4).all()
    assert any("left out: 13" in line for line in prepared.reports)
    assert any("deviates" in line for line in prepared.reports)
    other = prepare.prepare(
        "ucf_cc_50", raw_dir=raw, tfds_dir=tmp_path / "tfds", options={"folds": "random_1"}
    )
    assert other.directory != prepared.directory
    assert ids(other.splits["fold_1"]) != ids(prepared.splits["fold_1"])


SIZES = {"num_train": 3, "num_test": 2, "height": (48, 64), "width": (64, 80), "seed": 5}


def test_synthetic(tmp_path):
    prepared = prepare.prepare("synthetic", tfds_dir=tmp_path / "a", options=SIZES)
    again = prepare.prepare("synthetic", tfds_dir=tmp_path / "b", options=SIZES)
    assert {split: len(one) for split, one in prepared.splits.items()} == {"train": 3, "test": 2}
    seen = set()
    for split, one in prepared.splits.items():
        for record, entry, same in zip(one, one.index, again.splits[split], strict=True):
            assert 48 <= entry.height <= 64 and 64 <= entry.width <= 80
            assert record.image_bytes == same.image_bytes
            np.testing.assert_array_equal(record.points, same.points)
            shape = pictures.decode(record.image_bytes, record.id, 3).shape
            assert shape == (entry.height, entry.width, 3)
            assert record.density.sum() == pytest.approx(entry.count, abs=1e-3)
            seen.add(record.image_bytes)
    assert len(seen) == 5
    for changed in (
        {"seed": 6}, {"num_train": 2}, {"height": (48, 65)}, {"people": 3}, {"enlarge": 2},
    ):  # fmt: skip
        other = prepare.prepare("synthetic", tfds_dir=tmp_path / "a", options=SIZES | changed)
        assert other.directory != prepared.directory


def test_synthetic_without_people_and_enlarged(tmp_path):
    drawn = prepare.prepare("synthetic", tfds_dir=tmp_path, options=SIZES)
    large = prepare.prepare("synthetic", tfds_dir=tmp_path, options=SIZES | {"enlarge": 3})
    for one, other in zip(drawn.splits["train"], large.splits["train"], strict=True):
        image, enlarged = (pictures.decode(r.image_bytes, r.id, 3) for r in (one, other))
        assert enlarged.shape == (3 * image.shape[0], 3 * image.shape[1], 3)
        # The middle of a pixel is the middle of the 3x3 that it becomes, and so is a head's.
        difference = enlarged[1::3, 1::3].astype(int) - image
        assert abs(difference).max() <= 1
        np.testing.assert_allclose(other.points, one.points * 3 + 1, atol=1e-4)
    assert any(entry.count for entry in drawn.splits["train"].index)
    empty = prepare.prepare("synthetic", tfds_dir=tmp_path, options=SIZES | {"people": 0})
    assert not any(entry.count for split in empty.splits.values() for entry in split.index)


def test_synthetic_textures(tmp_path):
    scenes = prepare.prepare("synthetic", tfds_dir=tmp_path, options=SIZES)
    drawn = prepare.prepare("synthetic", tfds_dir=tmp_path, options=SIZES | {"textures": True})
    for one, other in zip(scenes.splits["train"], drawn.splits["train"], strict=True):
        assert not len(other.points) and not other.density.any()
        assert one.image_bytes != other.image_bytes
        image = pictures.decode(other.image_bytes, other.id, 3)
        assert image.shape == pictures.decode(one.image_bytes, one.id, 3).shape


def test_synthetic_refuses_what_cannot_be_drawn(tmp_path):
    least = scenes.MIN_SIDE
    for wrong in (
        {"num_train": 0, "num_test": 0},
        {"num_train": -1},
        {"num_train": 2.5},
        {"seed": "x"},
        {"height": 256},
        {"height": (48, 64.5)},
        {"height": (48, 64, 80)},
        {"height": (64, 48)},
        {"width": (least - 1, 64)},
        {"people": -1},
        {"people": scenes.MOST_PEOPLE + 1},
        {"people": 2.5},
        {"enlarge": 0},
        {"enlarge": 1.5},
        {"textures": True, "people": 3},
    ):
        with pytest.raises(UserError, match=f"^synthetic: .*{list(wrong)[0]}"):
            prepare.find("synthetic", None, SIZES | wrong)


def folder(raw, tmp_path, rule=DensityRule()):
    return prepare.prepare("point_folder", rule=rule, raw_dir=raw, tfds_dir=tmp_path / "tfds")


def test_point_folder_beside_and_in_sibling_folders(tmp_path):
    raw = tmp_path / "my pictures"
    for name in ("1.png", "2.jpg", "deep/3.jpg", "deep/images/4.jpg", "alone.png", "10.png"):
        draw(raw / name)
    (raw / "1.csv").write_text("x,y\n1,2\n3,4\n")
    (raw / "annotations").mkdir()
    (raw / "annotations/2.json").write_text('{"points": [[5, 6]]}')
    scipy.io.savemat(raw / "deep/GT_3.mat", {"annPoints": [[8.0, 9.0]]})
    (raw / "deep/ground_truth").mkdir()
    (raw / "deep/ground_truth/4.csv").write_text("")
    (raw / "10.csv").write_text("0,0\n")
    (raw / "nobody.csv").write_text("1,1\n")
    prepared = folder(raw, tmp_path)
    split = prepared.splits["train"]
    assert list(prepared.splits) == ["train"]
    assert {record.id: record.points.tolist() for record in split} == {
        "1.png": [[1, 2], [3, 4]],
        "2.jpg": [[5, 6]],
        "10.png": [[0, 0]],
        "deep/3.jpg": [[7, 8]],
        "deep/images/4.jpg": [],
    }
    assert ids(split) == sorted(ids(split), key=natural)
    assert any("1 pictures without annotation" in r and "alone.png" in r for r in prepared.reports)
    assert any("1 annotations without picture" in r and "nobody" in r for r in prepared.reports)


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_point_folder_tables_and_splits(tmp_path, kind):
    raw = tmp_path / "raw"
    for split in ("train", "test"):
        draw(raw / split / "a.png")
        draw(raw / split / "sub/b.png")
        if kind == "csv":
            (raw / split / "points.csv").write_text("file,x,y\na.png,1,2\nsub/b.png,,\nc.png,1,1\n")
        else:
            (raw / split / "points.json").write_text(
                '{"a.png": [[1, 2]], "b.png": [], "c.png": []}'
            )
    draw(raw / "val/c.png")
    prepared = folder(raw, tmp_path)
    for split in ("train", "test"):
        assert [(e.id, e.count) for e in prepared.splits[split].index] == [
            ("a.png", 1),
            ("sub/b.png", 0),
        ]
    assert any("outside train/ and test/" in line for line in prepared.reports)
    assert sum("c.png" in line and "without picture" in line for line in prepared.reports) == 2


def test_point_folder_change_is_prepared_anew(tmp_path):
    raw = tmp_path / "raw"
    draw(raw / "a.png")
    (raw / "a.csv").write_text("1,2\n")
    first = folder(raw, tmp_path)
    assert folder(raw, tmp_path).directory == first.directory
    (raw / "a.csv").write_text("3,4\n")  # same size
    os.utime(raw / "a.csv", ns=(1, 1))
    second = folder(raw, tmp_path)
    assert second.directory != first.directory
    assert second.splits["train"].points(0).tolist() == [[3, 4]]
    assert folder(raw, tmp_path, DensityRule(sigma=2)).directory != second.directory


def test_point_folder_errors_name_the_file(tmp_path):
    raw = tmp_path / "raw"
    draw(raw / "a.png")
    with pytest.raises(UserError, match="no annotated pictures"):
        folder(raw, tmp_path)
    (raw / "a.csv").write_text("1,2\n1,oops\n")
    with pytest.raises(UserError, match="a.csv, line 2"):
        folder(raw, tmp_path)
    (raw / "a.csv").write_text("1,2\n")
    (raw / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match="a.png is truncated"):
        folder(raw, tmp_path)
