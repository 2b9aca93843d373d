"""The folder of --out."""

import csv
import json
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from cmtl_jax.errors import UserError
from cmtl_jax.prediction import density_png
from cmtl_jax.prediction.output import Output
from cmtl_jax.prediction.record import Columns, Record
from cmtl_jax.prediction.sources import Source

DENSITY = np.random.default_rng(0).random((6, 8), np.float32) / 100


def stems(*paths):
    """The names that files about these pictures get."""
    from cmtl_jax.prediction import output

    return list(output._stems(Source(path).stem for path in paths))


def test_a_picture(tmp_path):
    columns = Columns(zones=("north",))
    with Output(tmp_path / "a/b", [Source("in/x.jpg")], columns) as output:
        files = output.write_maps(0, "in/x.jpg", DENSITY, Image.new("RGB", (8, 9)))
        output.add(Record("in/x.jpg", 1.5, {"north": 0.5}), weights="shb", **files)
    folder = tmp_path / "a/b"
    assert {path.name for path in folder.iterdir()} == {
        "counts.csv", "counts.jsonl", "x.density.npy", "x.density.png", "x.overlay.png"
    }  # fmt: skip
    np.testing.assert_array_equal(np.load(folder / "x.density.npy"), DENSITY)
    (line,) = (folder / "counts.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert found["path"] == "in/x.jpg" and found["weights"] == "shb"
    # The scale of the JSON turns the picture's levels into people.
    levels = cv2.imread(str(folder / found["density_png"]), cv2.IMREAD_UNCHANGED)
    np.testing.assert_allclose(
        levels * found["people_per_level"], DENSITY, atol=found["people_per_level"] * 0.51
    )
    assert found["people_per_level"] == density_png.people_per_level(DENSITY)
    with (folder / "counts.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["path", "count", "zone:north"], ["in/x.jpg", "1.500", "0.500"]
        ]  # fmt: skip


def test_rows_are_there_before_the_end(tmp_path):
    with Output(tmp_path, [Source("a.jpg")], Columns()) as output:
        output.add(Record("a.jpg", 1.0))
        assert (tmp_path / "counts.csv").read_bytes() == b"path,count\r\na.jpg,1.000\r\n"
        assert len((tmp_path / "counts.jsonl").read_text().splitlines()) == 1


def test_names_of_files_are_different_and_short():
    assert stems("a.jpg", "b/a.png", "c/a.JPG", "a-2.png") == ["a", "a-2", "a-3", "a-2-2"]
    assert stems("A.jpg", "a.png") == ["A", "a-2"]  # one file where case does not count
    long = stems("x" * 255, "é" * 127 + ".jpg", "y/" + "x" * 254)
    assert all(len(os.fsencode(f".{stem}.density.npy.12345678.tmp")) < 256 for stem in long)
    assert len(set(long)) == 3
    assert stems(os.fsdecode(b"\xff.png")) == [os.fsdecode(b"\xff")]


def test_a_long_name_can_be_written(tmp_path):
    with Output(tmp_path, [Source("群" * 80 + ".jpg")], Columns()) as output:
        output.write_maps(0, "a", DENSITY, Image.new("RGB", (8, 9)))
    assert len(list(tmp_path.iterdir())) == 5


def test_a_video(tmp_path):
    with Output(tmp_path, [Source("a.jpg"), Source("b/a.mp4", "video")], Columns()) as output:
        video = output.video(1, 5.0)
        video.write(Image.new("RGB", (64, 48)), 0.0)
        video.close()
    assert (tmp_path / "a-2.overlay.mp4").stat().st_size > 0


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file/deep"):
        with pytest.raises(UserError, match="cannot write in .*file.*--out"):
            Output(folder, [], Columns())
    (tmp_path / "counts.csv").mkdir()
    with pytest.raises(UserError, match="Is a directory"):
        Output(tmp_path, [], Columns())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk(tmp_path):
    (tmp_path / "counts.jsonl").symlink_to("/dev/full")
    output = Output(tmp_path, [Source("a.jpg")], Columns())
    with pytest.raises(UserError, match="cannot write the counts .*No space left"):
        output.add(Record("a.jpg", 1.0))
