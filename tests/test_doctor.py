"""Each fault, planted in a small folder, is found by name; a sound folder gives no warning."""

import collections
import dataclasses
import io
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import zlib

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io
from PIL import Image
from work_folders import kept_logging, untrained

from cmtl_jax import config as base_config
from cmtl_jax import losses, pictures
from cmtl_jax.datasets import annotations, scenes
from cmtl_jax.doctor import (
    __main__,
    alignment,
    cuda,
    data,
    finding,
    installation,
    run,
    training_checks,
    twins,
)
from cmtl_jax.doctor.finding import ERROR, NOTE, OK, WARNING, Finding
from cmtl_jax.input_pipeline.count_groups import CountGroups

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIDE = 128


@pytest.fixture(scope="module")
def crowds():
    """24 square drawn crowds: (uint8 [H, W, 3], float32 [N, 2])."""
    drawn = [scenes.render_scene([5, i], SIDE, SIDE, people=40) for i in range(24)]
    return [(scene.picture, scene.points) for scene in drawn]


@pytest.fixture
def folder(tmp_path, crowds):
    """A sound folder of own pictures: 6 to train on, 2 to test."""
    for i, (picture, points) in enumerate(crowds[:8]):
        write(tmp_path / "own" / ("train" if i < 6 else "test") / f"{i}.png", picture, points)
    return tmp_path / "own"


def write(path, picture, points, **how):
    """A picture with a CSV file of its points beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    picture.save(path, **how)
    annotate(path, points)
    return path


def annotate(path, points):
    rows = "".join(f"{x:.3f},{y:.3f}\n" for x, y in points)
    path.with_suffix(".csv").write_text("x,y\n" + rows)


def write_all(folder, crowds, change=lambda points: points, start=0):
    """Crowds whose points have been changed."""
    for i, (picture, points) in enumerate(crowds, start):
        write(folder / f"{i}.png", picture, change(points))
    return folder


def found(findings) -> dict[str, Finding]:
    """The worst finding of each name; every one is a line."""
    worst: dict[str, Finding] = {}
    for one in findings:
        assert len(str(one).splitlines()) == 1 and json.loads(one.to_json())["name"] == one.name
        if one.name not in worst or (
            finding.MARKS.index(one.mark) > finding.MARKS.index(worst[one.name].mark)
        ):
            worst[one.name] = one
    return worst


def bad(worst) -> set[str]:
    """Names of warnings and errors."""
    return {name for name, one in worst.items() if one.mark in (WARNING, ERROR)}


def check(folder, config=None):
    return found(data.check(folder, config))


# ------------------------------------------------------------------------------- raw folders


def test_a_sound_folder_gives_no_warning(folder, crowds, tmp_path):
    worst = check(folder)
    assert not bad(worst)
    assert {name for name, one in worst.items() if one.mark == NOTE} == {"counts.few"}
    assert "train 6, test 2" in worst["layout"].what
    heads = [len(points) for _, points in crowds[:8]]
    assert f"{min(heads)} to {max(heads)}" in worst["counts"].what
    assert "8 PNG; 8 in colour, 0 grey" in worst["pictures.kind"].what
    larger = check(write_all(tmp_path / "larger", crowds))
    assert not bad(larger) and larger["points.place"].mark == OK
    assert "(24 scenes)" in larger["points.place"].what


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "bomb", "missing"])
def test_pictures_that_cannot_be_read(folder, kind):
    path = folder / "train" / "3.png"
    good = path.read_bytes()
    if kind == "missing":
        path.unlink()
        path.symlink_to("nowhere.png")
    else:
        header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
        chunk = struct.pack(">I", 13) + b"IHDR" + header
        chunk += struct.pack(">I", zlib.crc32(b"IHDR" + header))
        bomb = b"\x89PNG\r\n\x1a\n" + chunk
        path.write_bytes(
            {"truncated": good[: len(good) // 2], "text": b"x", "empty": b"", "bomb": bomb}[kind]
        )
    worst = check(folder)
    if kind == "missing":  # no file at all: its annotation is left over
        assert bad(worst) == {"layout.left_out"} and "3.csv" in worst["layout.left_out"].what
        return
    assert bad(worst) == {"pictures.unreadable"}
    told = worst["pictures.unreadable"]
    assert told.mark == ERROR and told.what.startswith("train/3.png ") and told.advice
    assert told.files == ("train/3.png",) and str(told).count("3.png") == 1
    assert "7" in re.findall(r"\d+", worst["pictures.kind"].what)  # the others are checked


def test_many_unreadable_files_do_not_flood(tmp_path):
    for i in range(30):
        (tmp_path / f"{i:02}.jpg").write_bytes(b"x")
        annotate(tmp_path / f"{i:02}.jpg", [(1, 2)])
    findings = [one for one in data.check(tmp_path) if one.name == "pictures.unreadable"]
    assert len(findings) == 11 and len(findings[-1].files) == 20
    assert findings[-1].files[-1] == "29.jpg"


@pytest.mark.parametrize(
    ("text", "said"),
    [("x,y\n1,2\nnan,3\n", "not finite"), ("1;2\n", "columns"), ("1,2,3\n", "columns"),
     ("y,x\n1,2\n", "header")],
)  # fmt: skip
def test_annotations_that_cannot_be_read(folder, text, said):
    (folder / "train" / "3.csv").write_text(text)
    worst = check(folder)
    assert bad(worst) == {"annotations.unreadable"}
    told = worst["annotations.unreadable"]
    assert told.mark == ERROR and "3.csv" in told.what and said in told.what and told.advice


def test_a_table_that_cannot_be_read(tmp_path, crowds):
    path = write(tmp_path / "1.png", *crowds[0])
    path.with_suffix(".csv").unlink()
    (tmp_path / "points.csv").write_text("file,x,y\n1.png,3,seven\n")
    worst = check(tmp_path)
    assert worst["layout"].mark == ERROR and "points.csv, line 2" in worst["layout"].what


def test_left_out_pictures(folder):
    (folder / "train" / "3.csv").unlink()
    worst = check(folder)
    assert bad(worst) == {"layout.left_out"}
    assert "3.png" in worst["layout.left_out"].what


@pytest.mark.parametrize("kind", ["absent", "file", "empty", "strange"])
def test_a_folder_that_is_no_data_set(tmp_path, kind):
    place = tmp_path / "place"
    if kind == "file":
        place.write_text("x")
    elif kind != "absent":
        place.mkdir()
    if kind == "strange":
        (place / "part_C" / "pics").mkdir(parents=True)
        (place / "part_C" / "pics" / "a.tar").write_text("x")
    worst = check(place)
    assert set(worst) == {"layout"} and worst["layout"].mark == ERROR
    if kind in ("empty", "strange"):
        for looked_for in ("part_A_final", "part_A", "ground-truth", "_ann.mat", "points.csv"):
            assert looked_for in worst["layout"].what
    if kind == "strange":
        assert "part_C/" in worst["layout"].what and ".tar" in worst["layout"].what


def test_swapped_in_a_landscape_picture(folder, crowds):
    points = np.random.default_rng(0).uniform((0, 0), (SIDE, 96), (30, 2))
    path = write(folder / "train" / "3.png", crowds[3][0][:96], points)
    assert not bad(check(folder))
    annotate(path, points[:, ::-1])
    worst = check(folder)
    assert bad(worst) == {"points.swapped"}
    told = worst["points.swapped"]
    assert told.mark == ERROR and list(told.files) == ["train/3.csv"] and "x first" in told.advice


def test_swapped_in_all_landscape_pictures(tmp_path, crowds):
    """One by one they are not convicted: a point of each lies outside either way."""
    rng = np.random.default_rng(0)
    for i, (picture, _) in enumerate(crowds[:6]):
        points = np.concatenate([[[-2.0, 5.0]], rng.uniform((0, 0), (105, 96), (50, 2))])
        write(tmp_path / f"{i}.png", picture[:96], points[:, ::-1])
    worst = check(tmp_path)
    assert bad(worst) == {"points.swapped"} and len(worst["points.swapped"].files) == 6


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda points: points[:, ::-1], "points.swapped"),
        (lambda points: (SIDE, 0) + points * (-1, 1), "points.mirrored"),
        (lambda points: (0, SIDE) + points * (1, -1), "points.mirrored"),
        (lambda points: SIDE - points, "points.mirrored"),
    ],
)
def test_what_only_the_texture_of_square_pictures_tells(tmp_path, crowds, change, name):
    worst = check(write_all(tmp_path, crowds, change))
    assert bad(worst) == {name} and worst[name].mark == WARNING
    assert "points.place" not in worst


def test_points_of_the_wrong_pictures(tmp_path, crowds):
    others = [points for _, points in crowds[1:] + crowds[:1]]
    paired = [(picture, points) for (picture, _), points in zip(crowds, others, strict=True)]
    assert bad(check(write_all(tmp_path, paired))) == {"points.pairing"}


def test_frames_of_one_camera_are_no_independent_witnesses(tmp_path, crowds):
    picture, points = crowds[0]
    rng = np.random.default_rng(0)
    frames = [np.clip(picture + rng.normal(0, 9, picture.shape), 0, 255) for _ in range(12)]
    frames = [(frame.astype(np.uint8), points[i:]) for i, frame in enumerate(frames)]
    worst = check(write_all(tmp_path, frames, lambda points: points[:, ::-1]))
    assert not bad(worst)  # one scene cannot convict
    assert worst["points.place"].mark == NOTE and "1 different" in worst["points.place"].what
    assert worst["pictures.similar"].mark == NOTE
    assert len(worst["pictures.similar"].files) == 12


def test_fractions_for_pixels(folder):
    for path in folder.rglob("*.csv"):
        points = np.loadtxt(path, delimiter=",", skiprows=1) / SIDE
        annotate(path, points)
    worst = check(folder)
    assert bad(worst) == {"points.scale"} and worst["points.scale"].mark == ERROR
    assert len(worst["points.scale"].files) == 8


def test_points_of_smaller_pictures(tmp_path, crowds):
    worst = check(write_all(tmp_path, crowds[:8], lambda points: points / 2))
    assert worst["points.scale"].mark == WARNING
    assert "50% of the width" in worst["points.scale"].what


def test_points_of_larger_pictures(tmp_path, crowds):
    worst = check(write_all(tmp_path, crowds[:8], lambda points: points * 3))
    assert worst["points.outside"].mark == WARNING and "128 x 128" in worst["points.outside"].advice


def test_a_few_points_outside_are_a_note_that_names_the_rule(folder, crowds):
    points = np.concatenate([crowds[3][1], [[-1.0, 5.0], [SIDE + 2.0, 5.0]]])
    annotate(folder / "train" / "3.png", points)
    worst = check(folder)
    assert not bad(worst)
    told = worst["points.outside"]
    heads = sum(len(points) for _, points in crowds[:8]) + 2
    assert told.mark == NOTE and f"2 of {heads} points" in told.what
    assert list(told.files) == ["train/3.csv"] and "nearest pixel" in told.advice
    config = base_config.base()
    config.dataset.name = "point_folder"
    config.density.outside = "drop"
    dropped = check(folder, config)
    assert "left out" in dropped["points.outside"].advice
    assert dropped["density.sum"].mark == NOTE and "without 2 points" in dropped["density.sum"].what


def test_points_that_are_there_twice(folder, crowds):
    points = crowds[3][1]
    annotate(folder / "train" / "3.png", np.concatenate([points, points[:1]]))
    worst = check(folder)
    assert not bad(worst) and worst["points.twice"].mark == NOTE
    annotate(folder / "train" / "3.png", np.concatenate([points, points]))
    worst = check(folder)
    assert bad(worst) == {"points.twice"} and list(worst["points.twice"].files) == ["train/3.csv"]
    assert f"{len(points)} of " in worst["points.twice"].what


def test_a_picture_that_is_there_twice(folder, crowds):
    write(folder / "train" / "again.png", *crowds[3])
    worst = check(folder)
    assert bad(worst) == {"pictures.same"}
    assert list(worst["pictures.same"].files) == ["train/3.png", "train/again.png"]


def test_a_picture_of_both_splits(folder, crowds):
    write(folder / "test" / "again.png", *crowds[3])
    worst = check(folder)
    assert bad(worst) == {"pictures.overlap"}
    assert set(worst["pictures.overlap"].files) == {"train/3.png", "test/again.png"}


def test_a_picture_of_both_splits_at_another_size(folder, crowds):
    picture, points = crowds[3]
    smaller = Image.fromarray(picture).resize((96, 96), Image.Resampling.LANCZOS).convert("L")
    write(folder / "test" / "again.jpg", smaller, points * 0.75, quality=80)
    worst = check(folder)
    assert bad(worst) == {"pictures.overlap"}
    assert set(worst["pictures.overlap"].files) == {"train/3.png", "test/again.jpg"}


def test_annotations_saved_under_two_names(folder, crowds):
    annotate(folder / "train" / "3.png", crowds[4][1])
    worst = check(folder)
    assert bad(worst) == {"annotations.same"}
    assert list(worst["annotations.same"].files) == ["train/3.csv", "train/4.csv"]


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def test_pictures_turned_by_exif(folder, crowds):
    picture, points = crowds[3]
    points = points[points[:, 1] < 96]
    stored = np.ascontiguousarray(np.rot90(picture[:96]))  # a viewer turns it clockwise
    path = folder / "train" / "3.jpg"
    (folder / "train" / "3.png").unlink()
    write(path, stored, points, exif=exif(6), quality=95)
    worst = check(folder)
    assert not bad(worst)
    assert worst["pictures.rotated"].mark == NOTE
    assert list(worst["pictures.rotated"].files) == ["train/3.jpg"]
    annotate(path, np.stack([points[:, 1], 127 - points[:, 0]], axis=1))  # of the stored pixels
    worst = check(folder)
    assert bad(worst) == {"points.rotated"} and worst["points.rotated"].mark == ERROR


@pytest.mark.parametrize(
    ("depth", "convert"),
    [
        ("16 bit", lambda rgb: Image.fromarray(rgb[..., 0].astype(np.uint16) * 257)),
        ("transparent", lambda rgb: Image.fromarray(rgb).convert("RGBA")),
        ("palette", lambda rgb: Image.fromarray(rgb).convert("P")),
        ("1 bit", lambda rgb: Image.fromarray(rgb).convert("1")),
    ],
)
def test_odd_depths_are_noted(folder, crowds, depth, convert):
    write(folder / "train" / "3.png", convert(crowds[3][0]), crowds[3][1])
    worst = check(folder)
    assert not bad(worst)
    assert f"1 pictures are {depth}" in worst["pictures.depth"].what
    assert list(worst["pictures.depth"].files) == ["train/3.png"]


def test_floating_point_pixels_are_an_error(folder, crowds):
    (folder / "train" / "3.png").unlink()
    Image.fromarray(np.zeros((64, 64), np.float32)).save(folder / "train" / "3.tif")
    worst = check(folder)
    assert bad(worst) == {"pictures.unreadable"}
    assert "floating-point" in worst["pictures.unreadable"].what


def test_a_file_that_is_of_another_format(folder, crowds):
    with io.BytesIO() as file:
        Image.fromarray(crowds[3][0]).save(file, "GIF")
        (folder / "train" / "3.png").write_bytes(file.getvalue())
    worst = check(folder)
    assert not bad(worst) and list(worst["pictures.suffix"].files) == ["train/3.png"]


def test_grey_pictures_for_a_colour_network(folder, crowds):
    grey = Image.fromarray(crowds[3][0]).convert("L").convert("RGB")  # grey in three channels
    write(folder / "train" / "3.png", grey, crowds[3][1])
    assert "pictures.grey" not in check(folder)
    config = base_config.base()
    config.dataset.name = "point_folder"
    config.input.channels = 3
    assert list(check(folder, config)["pictures.grey"].files) == ["train/3.png"]


def test_small_pictures(folder, crowds):
    picture, points = crowds[3]
    tiny = points[(points < 40).all(axis=1)]
    write(folder / "train" / "3.png", picture[:40, :40], tiny)
    worst = check(folder)
    assert bad(worst) == {"pictures.small"} and "1 pictures" in worst["pictures.crop"].what


def test_crowds_too_dense_for_the_network(folder, crowds):
    x, y = np.meshgrid(np.arange(30, 90, 2.0), np.arange(30, 90, 2.0))
    annotate(folder / "train" / "3.png", np.stack([x.ravel(), y.ravel()], axis=1))
    worst = check(folder)
    assert worst["spacing.close"].mark == NOTE
    assert list(worst["spacing.close"].files) == ["train/3.png"]


def test_folders_without_people(folder, crowds):
    paths = sorted(folder.rglob("*.png"))
    for path in paths[:5]:
        annotate(path, [])
    assert "counts" in bad(check(folder))
    for path in paths:
        annotate(path, [])
    assert check(folder)["counts"].mark == ERROR


def test_names_cannot_break_a_line(tmp_path, crowds, capsys):
    name = "a\nOK       pictures.unreadable: all well\x1b[2J.png"
    write(tmp_path / name, *crowds[0])
    (tmp_path / name).write_bytes(b"x")
    assert finding.report(data.check(tmp_path), as_json=False) == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out and not re.search("(?m)^OK.*all well", out)
    assert r"a\nOK" in out


# ------------------------------------------------------------------------- published data sets


def shanghaitech(folder, crowds, truth="ground_truth", number=len):
    """A split folder in ShanghaiTech's layout; `number` gives what the .mat states."""
    for i, (picture, points) in enumerate(crowds, 1):
        path = folder / "images" / f"IMG_{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, quality=95)
        info = np.empty((1, 1), object)
        info[0, 0] = {"location": points + 1, "number": number(points)}
        (folder / truth).mkdir(exist_ok=True)
        scipy.io.savemat(folder / truth / f"GT_IMG_{i}.mat", {"image_info": info})


@pytest.mark.parametrize(
    ("part", "truth"),
    [("part_A_final", "ground_truth"), ("part_A", "ground-truth"), ("Part-B", "Ground Truth")],
)
def test_layouts_of_shanghaitech(tmp_path, crowds, part, truth):
    shanghaitech(tmp_path / "x" / part / "train_data", crowds[:3], truth)
    worst = check(tmp_path)
    assert worst["layout"].mark == OK and "train 3" in worst["layout"].what
    assert worst["layout"].subject == f"shanghaitech/part_{part[5].lower()}"
    assert worst["layout.split"].mark == NOTE and "test" in worst["layout.split"].what
    assert bad(worst) == {"numbers"} and "published" in worst["numbers"].advice
    assert worst["points.number"].mark == OK


def test_own_pictures_in_the_layout_of_shanghaitech(tmp_path, crowds):
    shanghaitech(tmp_path / "mine" / "train_data", crowds[:3])
    worst = check(tmp_path / "mine")
    assert not bad(worst) and worst["layout"].mark == NOTE


def test_one_split_of_shanghaitech(tmp_path, crowds):
    shanghaitech(tmp_path / "part_A" / "train_data", crowds[:3])
    worst = check(tmp_path / "part_A" / "train_data")
    assert not bad(worst) and worst["layout"].subject == "point_folder"
    assert str(tmp_path / "part_A") in worst["layout.part"].advice


def test_shanghaitech_without_annotations(tmp_path, crowds):
    shanghaitech(tmp_path / "part_A" / "train_data", crowds[:3], truth="gt")
    worst = check(tmp_path / "part_A")
    assert set(worst) == {"layout"} and worst["layout"].mark == ERROR
    assert "ground_truth" in worst["layout"].what and "3 files .mat" in worst["layout"].advice


def test_the_number_stated_beside_the_points(tmp_path, crowds):
    shanghaitech(tmp_path / "mine" / "train_data", crowds[:3], number=lambda points: 7)
    worst = check(tmp_path / "mine")
    assert bad(worst) == {"points.number"} and len(worst["points.number"].files) == 3
    assert f"the first 7 for {len(crowds[0][1])}" in worst["points.number"].what


def test_ucf_cc_50(tmp_path, crowds):
    for i, (picture, points) in enumerate(crowds[:3], 1):
        Image.fromarray(picture).save(tmp_path / f"{i}.jpg")
        scipy.io.savemat(tmp_path / f"{i}_ann.mat", {"annPoints": points + 1})
    worst = check(tmp_path)
    assert worst["layout"].subject == "ucf_cc_50"
    assert bad(worst) == {"numbers", "layout.left_out"}
    assert "63,974" in worst["numbers"].advice


def test_the_config_says_which_data_set_is_meant(folder, tmp_path, crowds):
    shanghaitech(folder / "part_A" / "train_data", crowds[:3])
    assert check(folder)["layout"].subject == "shanghaitech/part_a"
    config = base_config.base()
    config.dataset.name = "point_folder"
    assert check(folder, config)["layout"].subject == "point_folder"
    config.dataset.name = "ucf_cc_50"
    worst = check(folder, config)
    assert worst["layout"].mark == ERROR and "1_ann.mat" in worst["layout"].what


def test_pictures_shared_between_data_sets(tmp_path, crowds):
    for part in "AB":
        shanghaitech(tmp_path / f"part_{part}" / "train_data", crowds[:2])
    worst = check(tmp_path)
    assert worst["pictures.shared"].mark == NOTE and "2 pairs" in worst["pictures.shared"].what
    assert "part_A/train_data/images/IMG_1.jpg = part_B/" in worst["pictures.shared"].files[0]


def test_ucf_cc_50_as_released(shared):
    worst = check(shared / "data" / "UCF_CC_50")
    assert not bad(worst)
    assert "50 pictures, 63,974 heads; matches" in str(worst["numbers"])
    assert "96 to 4633" in worst["counts"].what and "0 in colour" in worst["pictures.kind"].what
    assert list(worst["pictures.similar"].files) == ["41.jpg", "46.jpg"]
    assert "not better swapped" in worst["points.place"].what


@pytest.mark.slow
def test_shanghaitech_as_released(shared):
    findings = list(data.check(shared / "data" / "ShanghaiTech"))
    assert not bad(found(findings))
    numbers = [one.what for one in findings if one.name == "numbers"]
    assert [re.sub(r"\D+", " ", line).split() for line in numbers] == [
        ["300", "162", "707"], ["400", "49", "280"], ["316", "39", "208"]
    ]  # fmt: skip


# ------------------------------------------------------------------------------- their means


def test_texture_ranks_the_parts_of_a_picture():
    rng = np.random.default_rng(0)
    picture = np.full((256, 256), 90, np.uint8)
    assert np.ptp(alignment.texture(picture).astype(int)) == 0  # nothing to tell apart
    picture[:, 128:] = rng.integers(0, 256, (256, 128))
    texture = alignment.texture(picture)
    points = rng.uniform((132, 0), (256, 256), (2000, 2))
    assert alignment.fit(texture, points, 256, 256) == pytest.approx(0.75, abs=0.03)
    uniform = rng.uniform(0, 256, (5000, 2))
    assert alignment.fit(texture, uniform, 256, 256) == pytest.approx(0.5, abs=0.02)
    mirrored = alignment.MOVES["mirrored"]
    assert alignment.gain(texture, points, 256, 256, mirrored) == pytest.approx(0.5, abs=0.06)
    assert np.isnan(alignment.fit(texture, points[:4], 256, 256))
    assert np.isnan(alignment.fit(texture, points + 256, 256, 256))


def test_moves_undo_themselves_and_agree():
    points = np.random.default_rng(0).uniform(0, 90, (9, 2))
    for move in alignment.MOVES.values():
        np.testing.assert_allclose(move(move(points, 90, 90), 90, 90), points)
    both = alignment.MOVES["upside down"](alignment.MOVES["mirrored"](points, 70, 90), 70, 90)
    np.testing.assert_allclose(both, alignment.MOVES["turned by 180 degrees"](points, 70, 90))


def test_scenes_and_twins():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (64, 64)).astype(np.uint8) for _ in range(2))
    brighter = (a // 2 + 100).astype(np.uint8)
    flat = np.full((64, 64), 9, np.uint8)
    thumbnails = [twins.thumbnail(one) for one in (a, b, brighter, flat, flat)]
    assert twins.similar(thumbnails) == [(0, 2)]
    assert twins.scenes(thumbnails) == [0, 1, 3, 4]
    assert twins.scenes(thumbnails, most=1) == [0]
    assert twins.similar([]) == twins.scenes([]) == []


@pytest.mark.slow
def test_texture_tells_on_real_pictures(shared):
    """Square cuts of part B: 20 pictures convict swapped points, and never sound ones."""
    folder = shared / "data" / "ShanghaiTech" / "part_B_final" / "test_data"
    gains = []
    for path in sorted((folder / "images").glob("*.jpg")):
        grey = pictures.read(path)[:, 128:896, 0]
        points = annotations.read(folder / "ground_truth" / f"GT_{path.stem}.mat") - (128, 0)
        gain = alignment.gain(
            alignment.texture(grey), points, 768, 768, alignment.MOVES["swapped"]
        )
        gains += [] if np.isnan(gain) else [gain]
    assert len(gains) > 300
    rng = np.random.default_rng(0)
    drawn = [rng.choice(gains, 20, replace=False) for _ in range(1000)]
    assert min(map(alignment.standard_errors, drawn)) > alignment.CERTAIN


# -------------------------------------------------------------------------------------- runs

STEPS = np.arange(20, 2001, 20)


def write_run(folder, *, val=(100, 60, 45, 40, 39.5), changes=None, config=None, **series):
    """The log of a run of 2000 steps; series replace numbers, a value or one for each line."""
    sound = {
        "loss": 0.11, "density_loss": np.linspace(0.2, 0.1, len(STEPS)), "group_loss": 1.5,
        "density": 1e-3, "density_square": 4e-6, "density_true": 1.1e-3, "grad_norm": 1.0,
        "first_layer_grad_norm": 0.1, "group_accuracy": 0.4, "steps_per_second": 2.0,
        "count_error": 3.0,
    }  # fmt: skip
    columns = {
        name: np.broadcast_to(values, STEPS.shape) for name, values in (sound | series).items()
    }
    lines = []
    every = STEPS[-1] // max(len(val), 1)
    for i, step in enumerate(STEPS.tolist()):
        numbers = {f"train/{name}": float(values[i]) for name, values in columns.items()}
        lines.append({"step": step, "time": 10.0 * i} | numbers)
        if val and step % every == 0:
            mae = val[step // every - 1]
            lines.append({
                "step": step, "time": 10.0 * i + 5, "val/mae": mae, "val/mean_count_true": 120.0,
                "val/mean_count_pred": 110.0,
            })  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text.replace("NaN", "null"))
    c = base_config.base()
    c.train.steps = 2000
    c.update_from_flattened_dict(config or {})
    (folder / "config.json").write_text(json.dumps(c.to_dict()))
    return folder


def write_results(folder, true, predicted, groups=None, name="x-test", **metrics):
    place = folder / "eval" / name
    place.mkdir(parents=True, exist_ok=True)
    true, predicted = np.asarray(true), np.asarray(predicted, float)
    sound = {
        "mae": float(np.abs(true - predicted).mean()),
        "best_constant_mae": float(np.abs(true - np.median(true)).mean()),
    }
    (place / "metrics.json").write_text(json.dumps(sound | metrics))
    groups = groups or [(9, i % 10) for i in range(len(true))]
    rows = "".join(
        f"{i},{t},{p},{p - t},{g},{h}\n"
        for i, (t, p, (g, h)) in enumerate(zip(true, predicted, groups, strict=True))
    )
    header = "id,count_true,count_pred,error,group_true,group_pred\n"
    (place / "per_image.csv").write_text(header + rows)


TRUE = np.arange(10, 410, 20)


@pytest.fixture
def sound_run(tmp_path):
    folder = write_run(tmp_path / "run")
    write_results(folder, TRUE, TRUE * 1.05 - 3)
    return folder


def told(folder) -> dict[str, Finding]:
    return found(run.check(folder))


def test_without_a_baseline_usefulness_is_not_told(sound_run):
    """Where the data set has no training pictures, results give none."""
    assert "run.useful" in told(sound_run)
    file = sound_run / "eval/x-test/metrics.json"
    metrics = json.loads(file.read_text())
    del metrics["best_constant_mae"]
    file.write_text(json.dumps(metrics))
    findings = told(sound_run)
    assert "run.useful" not in findings and not bad(findings)


def test_a_sound_run_gives_no_warning(sound_run):
    worst = told(sound_run)
    assert not bad(worst)
    assert worst.pop("run.checkpoint").mark == NOTE  # there is none beside this log
    assert {one.mark for one in worst.values()} == {OK}
    assert "2.00 steps, 16.0 crops a second" in worst["run.speed"].what
    assert "16 min 40 s of training, 25 s of validation" in worst["run.speed"].what


@pytest.mark.parametrize(
    ("series", "name", "mark"),
    [
        ({"density": 0.0, "density_square": 0.0}, "run.dead", ERROR),
        ({"density": 1e-7, "density_square": 1e-13}, "run.dead", ERROR),  # 0.01 % of the truth
        ({"first_layer_grad_norm": 0.0}, "run.dead", ERROR),
        ({"density_square": 1.00001e-6}, "run.constant", ERROR),
        ({"loss": np.where(STEPS == 1500, np.nan, 1.0)}, "run.finite", ERROR),
        ({"grad_norm": np.nan}, "run.finite", ERROR),
        ({"val": (100, 60, np.nan, 50)}, "run.finite", ERROR),
        ({"group_accuracy": 0.1}, "run.groups", WARNING),
        ({"group_loss": 50.0}, "run.losses", WARNING),
        ({"group_loss": 1e-5}, "run.losses", NOTE),
        ({"val": (100, 60, 50, 45, 30)}, "run.curve", NOTE),
        ({"val": (100, 60)}, "run.curve", NOTE),
        ({"val": (100, 40, 45, 50, 60)}, "run.overfitting", WARNING),
        ({"val": (100, 40, 45, 80, 300), "density_loss": np.linspace(0.1, 0.15, 100)},
         "run.diverged", WARNING),
        ({"density_loss": np.geomspace(0.1, 5.0, 100)}, "run.diverged", WARNING),
        ({"val": (70, 71, 69, 70, 71)}, "run.flat", WARNING),
        ({"steps_per_second": np.linspace(2, 0.5, 100)}, "run.speed", NOTE),
        ({"config": {"train.steps": 5000}}, "run.steps", NOTE),
    ],
)  # fmt: skip
def test_faults_of_a_training(sound_run, series, name, mark):
    worst = told(write_run(sound_run, **series))
    assert worst[name].mark == mark
    if mark == NOTE:
        assert not bad(worst)
    else:
        assert name in bad(worst) and len(bad(worst)) <= 2, bad(worst)


def test_a_run_that_validates_most_of_the_time(sound_run):
    path = sound_run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["time"] += 1000.0 * ("val/mae" in line)
    path.write_text("\n".join(map(json.dumps, lines)))
    worst = told(sound_run)
    assert worst["run.speed"].mark == NOTE and "eval_every" in worst["run.speed"].advice


@pytest.mark.parametrize(
    ("results", "name", "mark"),
    [
        ({"predicted": TRUE * 0.0}, "run.dead", ERROR),
        ({"predicted": TRUE * 0.0 + 200}, "run.constant", ERROR),
        ({"predicted": np.minimum(TRUE, 200)}, "run.dense", WARNING),
        ({"predicted": np.where(TRUE > 300, 2 * TRUE, TRUE)}, "run.dense", WARNING),
        ({"predicted": TRUE, "mae": 101.0}, "run.useful", WARNING),
        ({"predicted": TRUE, "mae": 90.0}, "run.useful", NOTE),
        ({"predicted": TRUE, "mae": None}, "run.finite", ERROR),
        ({"predicted": TRUE, "groups": [(9, 4)] * 20}, "run.groups", WARNING),
        ({"predicted": TRUE, "groups": [(9, 9)] * 20}, "run.groups", OK),
    ],
)
def test_faults_of_counts(sound_run, results, name, mark):
    write_results(sound_run, TRUE, **results)
    worst = told(sound_run)
    assert worst[name].mark == mark
    assert bad(worst) == ({name} if mark in (WARNING, ERROR) else set())


def test_the_densest_quarter_is_the_densest(sound_run):
    write_results(sound_run, TRUE, np.minimum(TRUE, 200))  # 5 of 20: 310, 330, ... 390
    assert "350 people on average, comes out at 57%" in told(sound_run)["run.dense"].what


def test_damaged_files_of_a_run(sound_run):
    (sound_run / "config.json").write_text("{")
    with (sound_run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2020, "tra')
    (sound_run / "eval" / "x-test" / "metrics.json").write_text("[]")
    worst = told(sound_run)
    assert worst["run.config"].mark == ERROR and worst["run.log"].mark == NOTE
    assert worst["run.results"].mark == ERROR and "--mode=eval" in worst["run.results"].advice
    (sound_run / "metrics.jsonl").write_bytes(b"\xff\xfe\x00")
    assert told(sound_run)["run.log"].mark == ERROR


def test_checkpoints_of_a_run(sound_run):
    untrained(sound_run)
    worst = told(sound_run)
    assert worst["run.checkpoint"].mark == OK and "3" in worst["run.checkpoint"].what
    # Its ten groups have as many crops each: 10 % are right without a look.
    assert "for 10%; its loss is 1.5, of the best answer without a look 2.3" in str(
        worst["run.groups"]
    )
    (sound_run / "damaged_checkpoint_1").mkdir()
    assert told(sound_run)["run.checkpoint"].files == ["damaged_checkpoint_1"]
    for path in sound_run.glob("checkpoints/*/about/metadata"):
        path.write_text("{")
    worst = told(sound_run)
    assert worst["run.checkpoint"].mark == ERROR and "damaged" in worst["run.checkpoint"].what


def test_a_group_head_that_learned_though_the_most_frequent_group_is_right_more_often(sound_run):
    """With class weights the rarer groups are worth more than the share of right answers."""
    groups = CountGroups(
        edges=tuple(range(1, 10)), class_weights=(0.5, *[3.0] * 9), histogram=(640, *[40] * 9)
    )
    # The best constant answer has the loss 3.13, which is above ln 10 for these weights.
    write_run(sound_run, group_accuracy=0.6, group_loss=1.5)
    history = dataclasses.replace(run.read(sound_run), groups=groups)
    (one,) = training_checks._groups(history)
    assert one.mark == OK and "always the most frequent group for 64%" in one.what
    write_run(sound_run, group_accuracy=0.6, group_loss=3.1)
    history = dataclasses.replace(run.read(sound_run), groups=groups)
    (one,) = training_checks._groups(history)
    assert one.mark == WARNING


@pytest.mark.parametrize("kind", ["softmax_ce", "softmax_bce", "sigmoid_bce"])
def test_the_best_loss_without_a_look(kind):
    """Against the loss itself: reached by one answer for all crops, and by none undercut."""
    rng = np.random.default_rng(0)
    histogram, weights = rng.integers(1, 9, 5), rng.uniform(0.5, 3, 5)
    truth = jnp.asarray(np.repeat(np.arange(5), histogram))
    groups = CountGroups((1, 2, 3, 4), tuple(weights), tuple(histogram.tolist()))
    blind = training_checks.blind_loss(groups, kind)

    def loss(logits):
        part = losses.group_loss(
            jnp.tile(jnp.asarray(logits, jnp.float32), (len(truth), 1)), truth,
            jnp.ones(len(truth)), jnp.asarray(weights, jnp.float32), kind=kind,
        )  # fmt: skip
        return float(part.sum / part.count)

    share = histogram / histogram.sum()
    best = {
        "softmax_ce": np.log(share * weights),
        "softmax_bce": np.log(share),
        "sigmoid_bce": np.log(share / (1 - share)),
    }[kind]
    assert loss(best) == pytest.approx(blind, rel=1e-5)
    assert all(loss(best + rng.normal(0, 0.3, 5)) > blind for _ in range(5))


def test_folders_that_are_no_run(tmp_path):
    for folder in (tmp_path / "absent", tmp_path):
        worst = told(folder)
        assert set(worst) == {"run"} and worst["run"].mark == ERROR


def test_an_evaluation_without_training(tmp_path):
    write_results(tmp_path, TRUE, TRUE + 1)
    worst = told(tmp_path)
    assert set(worst) == {"run.useful", "run.dense"} and not bad(worst)


def test_a_cross_validation_is_checked_fold_by_fold(tmp_path):
    for fold in (1, 2):
        write_results(write_run(tmp_path / f"fold_{fold}"), TRUE, TRUE)
    write_run(tmp_path / "fold_2", density=0.0, density_square=0.0)
    write_results(tmp_path, TRUE, TRUE, name="ucf_cc_50-cross_validation")
    findings = list(run.check(tmp_path))
    assert {one.subject for one in findings} == {"fold_1", "fold_2", ""}
    assert {one.subject for one in findings if one.mark == ERROR} == {"fold_2"}


# ------------------------------------------------------------------------------ installations


@pytest.fixture(autouse=True)
def _logging():
    with kept_logging():
        yield


def test_without_a_compiler_it_says_what_that_costs(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    (one,) = installation._kernels()
    assert one.mark == NOTE and "take about twice as long" in one.what
    assert one.advice == "install g++ or set CXX"


def test_this_installation(capsys):
    worst = found(installation.check())
    errors = {name for name, one in worst.items() if one.mark == ERROR}
    assert not errors, worst
    for name in ("python", "packages", "imports", "devices", "kernels", "cuda", "computation", "processors",
                 "memory", "cache.programs", "cache.data", "drawing", "optional"):  # fmt: skip
        assert name in worst
    assert "tensorflow" not in sys.modules
    assert float(re.search(r"to (\S+e-\d+)", worst["computation"].what)[1]) < 1e-5


def test_python_without_any_package():
    """The most frequent fault: the environment is not activated."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "cmtl_jax.doctor"], cwd=ROOT, capture_output=True, text=True,
        timeout=60, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert done.returncode == 1 and not done.stderr
    assert re.fullmatch(r"1 error, \d OK", lines[-1])
    assert "required packages are not installed" in lines[-2] and "jax" in lines[-2]


@pytest.mark.parametrize(
    ("version", "mark"), [("0.4.30", ERROR), ("99.0", WARNING), (None, ERROR)]
)
def test_versions_of_packages(monkeypatch, version, mark):
    known = installation._installed
    monkeypatch.setattr(
        installation, "_installed", lambda name: version if name == "jax" else known(name)
    )
    (one,) = [one for one in installation._packages() if one.mark != NOTE]
    assert one.mark == mark and "jax" in one.what + str(one.files)
    assert "pip install" in one.advice


def test_two_packages_of_opencv(monkeypatch):
    known = installation._installed
    monkeypatch.setattr(
        installation, "_installed", lambda name: "4" if name == "opencv-python" else known(name)
    )
    notes = [one for one in installation._packages() if one.mark == NOTE]
    assert len(notes) == 1 and "opencv-python" in notes[0].files


def test_requirements_of_an_installed_package(monkeypatch, tmp_path):
    monkeypatch.setattr(installation, "_ROOT", tmp_path)
    lines = ["jax>=0.10", 'pytest>=8; extra == "test"']
    monkeypatch.setattr(installation.importlib.metadata, "requires", lambda name: lines)
    assert installation._required() == ["jax>=0.10"]


def test_a_package_that_does_not_import(monkeypatch):
    def fail(name):
        raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr(installation.importlib, "import_module", fail)
    (one,) = installation._imports()
    assert one.mark == ERROR and "opencv-python-headless" in one.advice


def test_caches_that_cannot_be_used(monkeypatch, tmp_path):
    sound = installation._folder("cache.data", "prepared data", tmp_path / "a" / "b", "X")
    assert sound.mark == OK and "0 MiB" in sound.what and not (tmp_path / "a").exists()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(bytes(3 * 2**20))
    assert "3 MiB" in installation._folder("cache.data", "x", tmp_path / "a", "X").what
    with monkeypatch.context() as patched:
        patched.setattr(installation.os, "access", lambda *_: False)
        one = installation._folder("cache.data", "x", tmp_path, "VARIABLE")
        assert one.mark == WARNING and "VARIABLE" in one.advice
    full = collections.namedtuple("usage", "total used free")(10, 10, 0)
    monkeypatch.setattr(installation.shutil, "disk_usage", lambda _: full)
    assert installation._folder("cache.data", "x", tmp_path, "X").mark == WARNING


def test_no_device(monkeypatch):
    import jax

    def fail():
        raise RuntimeError("Unable to initialize backend 'cuda'")

    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    worst = found(installation._devices())
    assert worst["devices"].mark == ERROR and "JAX_PLATFORMS=cuda" in worst["devices"].advice
    assert "computation" not in worst


GPU_MACHINE = cuda.Seen(
    gpus=("NVIDIA A100",) * 2, driver="580.65.06", complaint="", platform="gpu", devices=2,
    jax="0.10.2", plugins={13: "0.10.2"}, environment={}, device_files=True,
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "mark", "words"),
    [
        ({}, OK, "2 of 2 x NVIDIA A100"),
        ({"devices": 1, "environment": {"CUDA_VISIBLE_DEVICES": "1"}}, NOTE,
         "CUDA_VISIBLE_DEVICES=1"),
        ({"platform": "cpu", "devices": 1, "plugins": {}}, WARNING,
         'pip install "jax[cuda13]==0.10.2"'),
        ({"platform": "cpu", "plugins": {}, "driver": "535.104.05"}, WARNING,
         'pip install "jax[cuda12]==0.10.2"'),
        ({"platform": "cpu", "plugins": {}, "driver": "470.1"}, WARNING, "driver to 525 or newer"),
        ({"platform": "cpu", "driver": "535.104.05"}, WARNING, "asks for 580"),
        ({"platform": "cpu", "plugins": {13: "0.9.0"}}, WARNING, "0.9.0 does not fit jax 0.10.2"),
        ({"platform": "cpu", "environment": {"JAX_PLATFORMS": "cpu"}}, NOTE, "JAX_PLATFORMS=cpu"),
        ({"platform": "cpu", "environment": {"CUDA_VISIBLE_DEVICES": ""}}, NOTE, "hides it"),
        ({"platform": "cpu", "environment": {"LD_LIBRARY_PATH": "/usr/lib"}}, WARNING,
         "LD_LIBRARY_PATH unset"),
        ({"platform": ""}, WARNING, "JAX has no device"),
        ({"gpus": (), "complaint": "no driver"}, WARNING, "fails (no driver)"),
        ({"gpus": None, "platform": "cpu"}, WARNING, "not on PATH"),
        ({"gpus": None, "platform": "cpu", "device_files": False}, NOTE, "JAX_PLATFORMS=cpu"),
        ({"gpus": None, "platform": "cpu", "device_files": False, "plugins": {}}, OK,
         "no NVIDIA GPU"),
        ({"gpus": None, "platform": "tpu"}, OK, "tpu"),
    ],
)  # fmt: skip
def test_cuda_used_or_why_not(change, mark, words):
    (one,) = cuda.findings(dataclasses.replace(GPU_MACHINE, **change))
    assert one.mark == mark and words in str(one)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'NVIDIA A100, 80GB, 535.1'; echo 'NVIDIA A100, 80GB, 535.1'",
         (["NVIDIA A100, 80GB"] * 2, "535.1", "")),
        ("echo 'NVIDIA-SMI has failed'; exit 9", ([], "", "NVIDIA-SMI has failed")),
        ("exit 9", ([], "", "exit status 9")),
    ],
)  # fmt: skip
def test_what_nvidia_smi_says(monkeypatch, tmp_path, script, expected):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert cuda._nvidia_smi() == expected
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert cuda._nvidia_smi() == (None, "", "")


# ------------------------------------------------------------------------------- command line


def test_the_command_line(folder, sound_run, capsys):
    assert __main__.main(["data", str(folder)]) == 0
    out, err = capsys.readouterr()
    *lines, summary = out.splitlines()
    assert all(re.match(r"(OK|NOTE|WARNING|ERROR) +\S+ \S+: ", line) for line in lines), out
    assert re.fullmatch(r"1 note, \d+ OK", summary) and not err
    (folder / "train" / "3.png").write_bytes(b"x")
    assert __main__.main(["data", str(folder), "--json"]) == 1
    *objects, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert last["status"] == last["summary"]["ERROR"] == 1
    assert sum(last["summary"].values()) == len(objects)
    assert {"mark", "name", "what", "advice", "files", "subject"} == set(objects[0])
    assert __main__.main(["--json", "run", str(sound_run)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["status"] == 0


def test_the_config_on_the_command_line(folder, capsys):
    config = str(ROOT / "configs" / "point_folder.py")
    line = ["data", f"--config={config}:paper", str(folder), "--config.density.outside=drop"]
    assert __main__.main(line) == 0
    assert "recenter, drop" in capsys.readouterr().out
    assert __main__.main(["data", "--config", config, str(folder)]) == 0
    assert "clip_renorm, clamp" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["dta"], "dta"),
        (["data"], "DIR"),
        (["run"], "WORKDIR"),
        (["data", "x", "--nope"], "--nope"),
        (["run", "x", "--config=configs/sha.py"], "data DIR"),
        (["data", "x", "--config=configs/shaa.py"], "no config file"),
        (["data", "x", "--config.crop.hight=3"], "did you mean config.crop.height?"),
        (["data", "x", "--config.crop.height=3"], "--config is missing"),
        (["data", "x", f"--config={ROOT}/configs/sha.py", "--config.crop.height=a"], "crop.height"),
        (["data", "x", f"--config={ROOT}/configs/sha.py:nope"], "no preset"),
        (["data", str(ROOT), f"--config={ROOT}/configs/synthetic.py"], "drawn"),
    ],
)
def test_bad_command_lines(line, words, capsys):
    assert __main__.main(line) == 1
    out, err = capsys.readouterr()
    assert not out and len(err.splitlines()) == 1 and err.startswith("error: ") and words in err


def test_every_finding_is_documented():
    text = "".join(path.read_text() for path in (ROOT / "cmtl_jax" / "doctor").glob("*.py"))
    names = set(re.findall(r'\b(?:OK|NOTE|WARNING|ERROR|mark), f?"([a-z_{}.]+)"', text))
    names |= set(re.findall(r'"((?:pictures|points)\.[a-z]+)"', text))
    names = names - {"{name}.unreadable"} | {"pictures.unreadable", "annotations.unreadable"}
    names |= {"cache.programs", "cache.data"}  # told by one function
    rows = re.findall(r"(?m)^\| (`[^|]+) \|", (ROOT / "docs" / "doctor.md").read_text())
    documented = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert documented - set(finding.MARKS) == names
