"""The command that counts: what it prints and writes, and how it fails."""

import csv
import errno
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from work_folders import STEP, kept_logging, only_error, untrained

import cmtl_jax
from cmtl_jax import predict
from cmtl_jax.errors import UserError
from cmtl_jax.prediction import counter as counter_lib

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
    assert {path.name for path in output.iterdir()} == {"counts.csv"} | {
        f"{stem}{end}" for stem in stems for end in (".density.npy", ".overlay.png")
    }
    for stem, path in stems.items():
        density = np.load(output / f"{stem}.density.npy")
        assert density.dtype == np.float32
        np.testing.assert_array_equal(density, counter(path).density)
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
        assert str(path) in only_error(err)


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


@pytest.mark.parametrize("arguments", [["--foo"], [], ["a.png"], ["a.png", "--weights"]])
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


def test_a_full_disk_leaves_no_part_of_a_file(main, folder, tmp_path, monkeypatch):
    def save(file, array):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(predict.np, "save", save)
    status, out, err = main(folder / "b.png", f"--out={tmp_path / 'out'}")
    assert status == 1 and len(lines(out)) == 1  # the count is not lost
    assert "No space left" in only_error(err) and str(tmp_path / "out") in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["counts.csv"]


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


def test_as_a_program(workdir, tmp_path):
    """Nothing but counts on standard output, nothing written, no data set needed."""
    path = draw(tmp_path / "a.png")
    command = [sys.executable, "-m", "cmtl_jax.predict", str(path), f"--weights={workdir}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")
    ((found, count),) = lines(done.stdout)
    assert found == str(path) and count > 0
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
