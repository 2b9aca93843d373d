"""The command that counts: what it prints and writes, and how it fails."""

import csv
import dataclasses
import errno
import io
import json
import os
import pathlib
import re
import shlex
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from work_folders import STEP, kept_logging, only_error, untrained

import cmtl_jax
from cmtl_jax import DEFAULT_WEIGHTS, predict
from cmtl_jax.errors import UserError
from cmtl_jax.head_spacing import head_spacing
from cmtl_jax.prediction import counter as counter_lib
from cmtl_jax.prediction import density_png, ffmpeg
from cmtl_jax.prediction import output as output_lib

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("work"), name="single_stage")


@pytest.fixture(scope="module")
def counter(workdir):
    return cmtl_jax.load(workdir)


@pytest.fixture(autouse=True)
def _logging():
    with kept_logging():
        yield


@pytest.fixture
def main(workdir, counter, monkeypatch, capfd):
    """Calls the command with weights that are loaded once."""

    def call(*arguments, weights=workdir):
        if weights == workdir:
            monkeypatch.setattr(counter_lib, "load", lambda *_: counter)
        status = predict.main([*map(str, arguments), f"--weights={weights}"])
        return status, *capfd.readouterr()

    return call


def draw(path, seed=0, size=(40, 56)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Pictures in folders, and other files that are none."""
    folder = tmp_path / "in"
    draw(folder / "b.png", 1)
    draw(folder / "a.JPG", 2)
    draw(folder / "deep/er/a.png", 3, (30, 33))
    draw(folder / ".hidden/c.png")
    (folder / "._b.png").write_bytes(b"of another system")
    (folder / "b.csv").write_text("x,y\n")
    (folder / "d.png").mkdir()
    return folder


def lines(out):
    return [(path, float(count)) for path, count in (x.split("\t") for x in out.splitlines())]


def test_prints_exactly_path_and_count(main, counter, folder):
    paths = [folder / "a.JPG", folder / "b.png", folder / "deep/er/a.png"]
    status, out, err = main(folder)
    assert (status, err) == (0, "")
    assert out == "".join(f"{path}\t{counter(path).count:.1f}\n" for path in paths)
    status, out, err = main(folder / "deep", folder / "b.png")
    assert (status, err) == (0, "")
    assert [path for path, _ in lines(out)] == [str(paths[2]), str(paths[1])]


def test_json_is_one_object_a_line(main, counter, folder):
    status, out, err = main("--json", folder / "b.png", folder / "a.JPG")
    assert (status, err) == (0, "")
    found = [json.loads(line) for line in out.splitlines()]
    assert [one["path"] for one in found] == [str(folder / "b.png"), str(folder / "a.JPG")]
    count = round(counter(folder / "b.png").count, 3)
    assert found[0] == {"path": found[0]["path"], "count": count}


def test_out_writes_maps_overlays_and_counts(main, counter, folder, tmp_path):
    output = tmp_path / "out/deep"
    status, out, _ = main(folder, f"--out={output}")
    assert status == 0
    stems = {"a": folder / "a.JPG", "b": folder / "b.png", "a-2": folder / "deep/er/a.png"}
    assert {path.name for path in output.iterdir()} == {"counts.csv", "counts.jsonl"} | {
        f"{stem}{end}"
        for stem in stems
        for end in (".density.npy", ".density.png", ".overlay.png")
    }
    for stem, path in stems.items():
        density = np.load(output / f"{stem}.density.npy")
        assert density.dtype == np.float32
        np.testing.assert_array_equal(density, counter(path).density)
        levels = density_png.decode((output / f"{stem}.density.png").read_bytes())
        np.testing.assert_allclose(levels, density, atol=density.max() / 65535)
        with Image.open(output / f"{stem}.overlay.png") as overlay:
            overlay.load()
    with (output / "counts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "count"]
    assert [row["path"] for row in rows] == [path for path, _ in lines(out)]
    for row in rows:
        assert float(row["count"]) == pytest.approx(counter(row["path"]).count, abs=6e-4)


def test_results_among_the_pictures_are_not_counted(main, folder):
    first = main(folder, f"--out={folder}")[1]
    assert main(folder, f"--out={folder}")[1] == first


def test_a_bad_picture_is_told_and_the_others_counted(main, folder, tmp_path):
    whole = draw(tmp_path / "whole.jpg", 4, (200, 200)).read_bytes()
    (folder / "aa.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").touch()
    missing = folder / "missing.png"
    status, out, err = main(folder, missing, f"--out={tmp_path / 'out'}")
    assert status == 1
    assert [pathlib.Path(path).name for path, _ in lines(out)] == ["a.JPG", "b.png", "a.png"]
    found = err.splitlines()
    assert len(found) == 3 and all(line.startswith("error: ") for line in found)
    for line, name in zip(found, ("missing.png", "aa.jpg", "empty.png"), strict=True):
        assert str(folder / name) in line
    assert not (tmp_path / "out/aa.density.npy").exists()
    assert len((tmp_path / "out/counts.csv").read_text().splitlines()) == 4


def test_nothing_to_count_is_an_error(main, tmp_path):
    (tmp_path / "empty/deep").mkdir(parents=True)
    for path in (tmp_path / "empty", tmp_path / "missing", tmp_path / ("x" * 300), "a\0b"):
        status, out, err = main(path)
        assert (status, out) == (1, "")
        assert str(path).replace("\0", r"\x00") in only_error(err)


def test_weights_that_are_none(main, folder, tmp_path, workdir):
    (tmp_path / "file").touch()
    (tmp_path / "empty/checkpoints").mkdir(parents=True)
    for weights in (tmp_path / "none", tmp_path / "file", tmp_path, tmp_path / "empty"):
        status, out, err = main(folder, weights=weights)
        assert (status, out) == (1, "")
        assert str(weights) in only_error(err)
    for which in ("8", "newest"):
        with pytest.raises(UserError, match=f"no checkpoint {which}.*best, latest, {STEP}"):
            cmtl_jax.load(workdir, which)
    assert cmtl_jax.load(workdir, "latest").trained.step == STEP


def test_files_name_all_averaged_weights(main, counter, tmp_path, monkeypatch):
    averaged = dataclasses.replace(counter.trained, source="runs/a,runs/b")
    monkeypatch.setattr(counter, "trained", averaged)
    assert main(draw(tmp_path / "a.png"), f"--out={tmp_path / 'out'}")[0] == 0
    assert json.loads((tmp_path / "out/counts.jsonl").read_text())["weights"] == "a+b"


@pytest.mark.parametrize("arguments", [["--foo"], [], ["a.png", "--weights"]])
def test_wrong_flags_are_one_line(arguments, capfd):
    assert predict.main(arguments) == 1
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "--help" in only_error(err)


def test_help_is_no_error(capfd):
    with pytest.raises(SystemExit) as end:
        predict.main(["--help"])
    assert end.value.code == 0 and "--weights" in capfd.readouterr().out


def test_a_folder_that_cannot_be_written(main, folder, tmp_path):
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file/deep"):
        status, out, err = main(folder, f"--out={output}")
        assert (status, out) == (1, "")  # told before the work
        assert str(output) in only_error(err) and "--out" in err


def test_a_full_disk_leaves_no_part_of_a_map(main, folder, tmp_path, monkeypatch):
    def save(file, array):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(output_lib.np, "save", save)
    status, out, err = main(folder / "b.png", f"--out={tmp_path / 'out'}")
    assert status == 1 and len(lines(out)) == 1  # the count is not lost
    assert "No space left" in only_error(err) and str(tmp_path / "out") in err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"counts.csv", "counts.jsonl"}
    assert len((tmp_path / "out/counts.csv").read_text().splitlines()) == 2
    assert "density_png" not in (tmp_path / "out/counts.jsonl").read_text()


def test_names_that_are_no_text(main, tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    try:
        draw(tmp_path / "x.png").rename(path)
    except OSError:
        pytest.skip("this file system takes text only")
    # What capfd decodes for us is not strict either.
    status, _, err = main(path, tmp_path, f"--out={tmp_path / 'out'}")
    assert (status, err) == (0, "")
    assert b"\xff.png," in (tmp_path / "out/counts.csv").read_bytes()


def test_as_a_program(workdir, tmp_path, tmp_path_factory):
    """Nothing but counts on standard output, nothing written, no data set needed."""
    path = draw(tmp_path / "a.png")
    command = [sys.executable, "-m", "cmtl_jax.predict", str(path), f"--weights={workdir}"]
    cache = tmp_path_factory.mktemp("cache")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    environment |= {"XDG_CACHE_HOME": str(cache)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")
    ((found, count),) = lines(done.stdout)
    assert found == str(path) and count > 0
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert (cache / "cmtl_jax/xla").is_dir()  # compiled programs are kept


ZONES = {
    "unit": "fraction",
    "zones": {
        "left": [[0, 0], [0.4, 0], [0.6, 1], [0, 1]],
        "right": [[0.4, 0], [1, 0], [1, 1], [0.6, 1]],
    },
}


@pytest.fixture
def roi(tmp_path):
    path = tmp_path / "zones.json"
    path.write_text(json.dumps(ZONES))
    return f"--roi={path}"


@pytest.fixture
def video(tmp_path):
    """Eight frames at 4 a second, each different, and what is in them."""
    path = tmp_path / "v.avi"
    writer = ffmpeg.writer(path, "MJPG", 4.0, (64, 48))
    for i in range(8):
        writer.write(np.random.default_rng(i).integers(0, 40 + 25 * i, (48, 64, 3), np.uint8))
    writer.release()
    return path


def frames(path):
    capture = cv2.VideoCapture(str(path))
    while (found := capture.read())[0]:
        yield found[1][..., ::-1].copy()


def rows(text):
    return list(csv.DictReader(text.splitlines()))


def test_formats_say_the_same(main, folder):
    text = lines(main(folder)[1])
    jsonl = main(folder, "--format=jsonl")[1]
    assert jsonl == main(folder, "--json")[1]
    objects = [json.loads(line) for line in jsonl.splitlines()]
    table = rows(main(folder, "--format=csv")[1])
    assert list(table[0]) == ["path", "count"] == list(objects[0])
    for (path, count), one, row in zip(text, objects, table, strict=True):
        assert path == one["path"] == row["path"]
        assert count == pytest.approx(one["count"], abs=0.051)
        assert one["count"] == float(row["count"])


def test_patterns_and_batches_count_alike(main, folder, tmp_path):
    expected = sorted(main(folder)[1].splitlines())
    assert sorted(main(folder / "**" / "*.[pJ]*")[1].splitlines()) == expected
    paths = [draw(tmp_path / f"many/{i}.png", i, (40, 56 if i % 3 else 33)) for i in range(7)]
    one = main(tmp_path / "many", "--batch-size=1")
    many = main(tmp_path / "many", "--batch-size=2", f"--out={tmp_path / 'out'}")
    assert [path for path, _ in lines(many[1])] == [str(path) for path in paths]  # in order
    for (_, a), (_, b) in zip(lines(one[1]), lines(many[1]), strict=True):
        assert a == pytest.approx(b, abs=0.11)
    assert [row["path"] for row in rows((tmp_path / "out/counts.csv").read_text())] == [
        str(path) for path in paths
    ]
    status, _, err = main(folder / "*.nothing")
    assert status == 1 and "no match" in only_error(err)


def test_zones_in_every_format(main, counter, folder, roi, tmp_path):
    picture = folder / "b.png"
    result = counter(picture)
    status, out, err = main(picture, roi, f"--out={tmp_path / 'out'}")
    assert (status, err) == (0, "")
    path, count, left, right = out.rstrip("\n").split("\t")
    assert (path, count) == (str(picture), f"{result.count:.1f}")
    assert left.startswith("left=") and right.startswith("right=")
    (found,) = [json.loads(line) for line in main(picture, roi, "--json")[1].splitlines()]
    assert sum(found["zones"].values()) == pytest.approx(result.count, abs=2e-3)
    assert found["zones"]["left"] == pytest.approx(float(left[5:]), abs=0.051)
    (row,) = rows(main(picture, roi, "--format=csv")[1])
    (written,) = rows((tmp_path / "out/counts.csv").read_text())
    assert row == written and list(row) == ["path", "count", "zone:left", "zone:right"]
    assert float(row["zone:left"]) == found["zones"]["left"]
    kept = json.loads((tmp_path / "out/counts.jsonl").read_text())
    assert kept["zones"] == found["zones"]
    with Image.open(tmp_path / "out/b.overlay.png") as zones:
        drawn = np.asarray(zones)
    plain = np.asarray(result.overlay())
    assert drawn.shape == plain.shape and (drawn != plain).mean() > 0.02


def test_zones_that_do_not_fit_a_picture(main, folder, tmp_path):
    path = tmp_path / "pixels.json"
    path.write_text(json.dumps({"zones": {"a": [[0, 0], [56, 0], [56, 40]]}}))
    status, out, err = main(folder, f"--roi={path}")
    assert status == 1 and len(out.splitlines()) == 2
    line = only_error(err)
    assert str(folder / "deep/er/a.png") in line and "33x30" in line and str(path) in line
    status, out, err = main(folder, f"--roi={tmp_path / 'none.json'}")
    assert (status, out) == (1, "") and "none.json" in only_error(err)


def test_scaling_is_recorded_and_keeps_the_count(main, counter, folder, tmp_path):
    picture = folder / "b.png"  # 40 x 56
    with Image.open(picture) as image:
        pixels = np.asarray(image)
    half = cv2.resize(pixels, (28, 20), interpolation=cv2.INTER_AREA)
    expected = counter(half).count
    for flag in ("--scale=0.5", "--max-side=28"):
        status, out, err = main(picture, flag, "--json", f"--out={tmp_path / 'out'}")
        assert (status, err) == (0, "")
        found = json.loads(out)
        assert found["count"] == pytest.approx(expected, abs=6e-4)
        assert (found["scale"], found["counted_width"], found["counted_height"]) == (0.5, 28, 20)
        density = np.load(tmp_path / "out/b.density.npy")
        assert density.shape == (40, 56)
        assert density.sum(dtype=np.float64) == pytest.approx(expected, rel=1e-5)
        (row,) = rows((tmp_path / "out/counts.csv").read_text())
        assert (row["scale"], row["counted_width"], row["counted_height"]) == ("0.5", "28", "20")
    assert main(picture, "--max-side=1000")[1] == main(picture)[1]
    status, _, err = main(picture, "--max-side=10", "--scale=2")
    assert status == 1 and "not allowed with" in only_error(err)


@pytest.mark.parametrize("flag", ["every=0", "every=1.5", "scale=0", "scale=-1", "scale=nan",
    "max-side=0", "max-pixels=x", "batch-size=0", "smooth=0", "smooth=inf", "seconds=0",
    "format=xml"])  # fmt: skip
def test_numbers_out_of_range(folder, flag, capfd):
    assert predict.main([str(folder), "--weights=w", f"--{flag}"]) == 1
    out, err = capfd.readouterr()
    assert out == "" and flag.split("=")[0] in only_error(err) and err.count("\n") == 1


def test_a_picture_bomb_is_refused_before_it_is_decoded(main, folder):
    data = bytearray((folder / "b.png").read_bytes())
    data[16:24] = struct.pack(">II", 100_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (folder / "bomb.png").write_bytes(data)
    status, out, err = main(folder)
    assert status == 1 and len(out.splitlines()) == 3
    assert "declares 100000 x 60000" in only_error(err) and "--max-pixels" in err
    status, out, err = main(folder / "b.png", "--max-pixels=2239")
    assert (status, out) == (1, "") and "limit of 2239" in only_error(err)
    assert main(folder / "b.png", "--max-pixels=2240")[0] == 0


def test_names_that_would_break_the_output(main, tmp_path):
    names = ["a\nb\t9.9.png", "\x1b[2Jc.png", '=HYPERLINK("x").png', "\u202egnp.png", "-1.png"]
    for i, name in enumerate(names):
        draw(tmp_path / "in" / name, i)
    (tmp_path / "in" / "bad\n\x1b[31m.png").touch()
    status, out, err = main(tmp_path / "in", f"--out={tmp_path / 'out'}")
    assert status == 1 and "\x1b" not in out + err and "\u202e" not in out
    assert len(out.splitlines()) == 5 and all(line.count("\t") == 1 for line in out.splitlines())
    assert r"bad\n\x1b[31m.png is truncated" in only_error(err) and err.count("\n") == 1
    wanted = sorted(str(tmp_path / "in" / name) for name in names)
    text = (tmp_path / "out/counts.csv").read_bytes().decode()
    assert sorted(row["path"] for row in csv.DictReader(io.StringIO(text, newline=""))) == wanted
    kept = (tmp_path / "out/counts.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["path"] for line in kept) == wanted


def test_formulas_in_relative_names(main, tmp_path, monkeypatch):
    draw(tmp_path / "=1+1.png")
    monkeypatch.chdir(tmp_path)
    (row,) = rows(main("=1+1.png", "--format=csv")[1])
    assert row["path"] == "./=1+1.png"
    assert lines(main("=1+1.png")[1])[0][0] == "=1+1.png"


def test_a_video(main, counter, video, roi, tmp_path):
    status, out, err = main(
        video, "--every=2", "--smooth=1", roi, "--format=csv", f"--out={tmp_path / 'out'}"
    )
    assert (status, err) == (0, "")
    table = rows(out)
    assert (tmp_path / "out/counts.csv").read_text() == out
    assert list(table[0]) == [
        "path", "count", "zone:left", "zone:right", "frame", "seconds", "time", "smoothed",
        "smoothed:left", "smoothed:right",
    ]  # fmt: skip
    assert [row["frame"] for row in table] == ["0", "2", "4", "6"]
    assert [row["seconds"] for row in table] == ["0.000", "0.500", "1.000", "1.500"]
    counts = np.array([counter(frame).count for frame in list(frames(video))[::2]])
    np.testing.assert_allclose([float(row["count"]) for row in table], counts, atol=6e-4)
    for i, row in enumerate(table):
        weight = np.exp(-(i - np.arange(i + 1)) / 2)
        expected = weight @ counts[: i + 1] / weight.sum()
        assert float(row["smoothed"]) == pytest.approx(expected, abs=6e-4)
        both = float(row["zone:left"]) + float(row["zone:right"])
        assert both == pytest.approx(float(row["count"]), abs=2e-3)
        both = float(row["smoothed:left"]) + float(row["smoothed:right"])
        assert both == pytest.approx(float(row["smoothed"]), abs=2e-3)
    drawn = list(frames(tmp_path / "out/v.overlay.mp4"))
    assert len(drawn) == 4 and drawn[0].shape[1] >= 64 and drawn[0].shape[0] > 48
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "counts.csv", "counts.jsonl", "v.overlay.mp4"
    }  # fmt: skip


def test_lines_of_a_video_say_when(main, counter, video):
    found = lines(main(video, "--seconds=0.6")[1])
    assert [path for path, _ in found] == [f"{video}#t={i / 4:.3f}" for i in range(3)]
    for (_, count), frame in zip(found, frames(video), strict=False):
        assert count == pytest.approx(counter(frame).count, abs=0.051)
    assert lines(main(video, "--batch-size=4")[1])[:3] == found


def test_pictures_and_videos_in_one_table(main, folder, video):
    table = rows(main(folder / "b.png", video, folder / "a.JPG", "--every=8", "--format=csv")[1])
    assert [row["path"] for row in table] == [
        str(folder / "b.png"), str(video), str(folder / "a.JPG")
    ]  # fmt: skip
    assert [row["frame"] for row in table] == ["", "0", ""]


def test_bad_videos_are_told_and_the_others_counted(main, video, folder, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    cut = tmp_path / "cut.avi"
    cut.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    status, out, err = main(
        tmp_path / "text.mp4", cut, "camera:99", folder / "b.png", video, "--every=2",
        "--max-pixels=100000",
    )  # fmt: skip
    assert status == 1
    found = err.splitlines()
    assert [line.split(":")[0] for line in found] == ["error"] * 3
    for line, name in zip(found, ("text.mp4", "cut.avi", "camera:99"), strict=True):
        assert name in line
    assert 1 <= sum("cut.avi" in line for line in out.splitlines()) < 4
    assert sum(f"{video}#" in line for line in out.splitlines()) == 4
    status, out, err = main(video, "--max-pixels=3071")
    assert (status, out) == (1, "") and "64 x 48" in only_error(err)


def test_zones_outside_a_video_are_told_once(main, video, tmp_path):
    path = tmp_path / "pixels.json"
    path.write_text(json.dumps({"zones": {"a": [[0, 0], [65, 0], [56, 40]]}}))
    status, out, err = main(video, f"--roi={path}", f"--out={tmp_path / 'out'}")
    assert (status, out) == (1, "") and "64x48" in only_error(err)
    assert not (tmp_path / "out/v.overlay.mp4").exists()


def test_heads_of_another_size_are_told_once(main, counter, folder, monkeypatch):
    trained = {"low": 1000.0, "median": 1500.0, "high": 2000.0}
    assert main(folder)[2] == ""
    monkeypatch.setitem(counter.trained.about, "head_spacing", trained)
    status, out, err = main(folder, "--batch-size=1")
    assert status == 0 and len(out.splitlines()) == 3
    spacings = [head_spacing(counter(path).density) for path, _ in lines(out)]
    assert (number := sum(spacing is not None for spacing in spacings)) > 1
    first, *rest = err.splitlines()
    assert first.startswith(f"warning: {folder / 'a.JPG'}: people seem to stand")
    assert "--scale=" in first and rest == [f"warning: the same holds for {number - 1} more"]


def test_an_interrupted_run_leaves_what_it_had(main, counter, video, tmp_path, monkeypatch):
    calls = []

    class Interrupted:
        trained = counter.trained

        def __call__(self, picture):
            calls.append(picture)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return counter(picture)

    monkeypatch.setattr(counter_lib, "load", lambda *_: Interrupted())
    arguments = [str(video), "--weights=w", f"--out={tmp_path / 'out'}"]
    assert predict.main(arguments) == 130
    assert len(rows((tmp_path / "out/counts.csv").read_text())) == 2
    assert len(list(frames(tmp_path / "out/v.overlay.mp4"))) == 2


@pytest.mark.parametrize(
    "page, weights", [("count_a_photo.md", DEFAULT_WEIGHTS), ("count_a_video.md", "shb")]
)
def test_commands_of_the_pages_are_understood(page, weights):
    text = (ROOT / "docs" / page).read_text()
    found = re.findall(r"(?m)^    python -m cmtl_jax\.predict (.*)$", text)
    assert len(found) >= 3
    for line in found:
        arguments = predict._parser().parse_args(shlex.split(line))
        assert arguments.weights == weights
