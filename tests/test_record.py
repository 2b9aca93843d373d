"""What is written about a count: the same facts in every format."""

import csv
import io
import json

import pytest

from cmtl_jax.prediction.record import Columns, Record

PLAIN = Record("a b.jpg", 12.3456)
FRAME = Record(
    "v.mp4", 12.3456, {"north": 7.0, "south": 5.3456}, frame=50, seconds=2.0,
    time="2026-01-31T12:00:00.125Z", smoothed=11.0, smoothed_zones={"north": 6.0, "south": 5.0},
    scale=0.5, size=(240, 320),
)  # fmt: skip
ALL = Columns(zones=("north", "south"), video=True, smooth=True, resize=True)


def row(record, columns):
    """As a reader of the CSV file sees it."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([columns.names(), columns.cells(record)])
    (found,) = csv.DictReader(io.StringIO(text.getvalue(), newline=""))
    return found


def test_a_picture_is_its_path_and_count():
    assert PLAIN.text() == "a b.jpg\t12.3"
    assert PLAIN.json() == '{"path": "a b.jpg", "count": 12.346}'
    assert row(PLAIN, Columns()) == {"path": "a b.jpg", "count": "12.346"}


def test_all_there_is():
    assert FRAME.text() == "v.mp4#t=2.000\t11.0\tnorth=6.0\tsouth=5.0"
    assert json.loads(FRAME.json(weights="shb")) == {
        "path": "v.mp4", "count": 12.346, "zones": {"north": 7.0, "south": 5.346}, "frame": 50,
        "seconds": 2.0, "time": "2026-01-31T12:00:00.125Z", "smoothed": 11.0,
        "smoothed_zones": {"north": 6.0, "south": 5.0}, "scale": 0.5, "counted_width": 320,
        "counted_height": 240, "weights": "shb",
    }  # fmt: skip
    assert row(FRAME, ALL) == {
        "path": "v.mp4", "count": "12.346", "zone:north": "7.000", "zone:south": "5.346",
        "frame": "50", "seconds": "2.000", "time": "2026-01-31T12:00:00.125Z",
        "smoothed": "11.000", "smoothed:north": "6.000", "smoothed:south": "5.000",
        "scale": "0.5", "counted_width": "320", "counted_height": "240",
    }  # fmt: skip


def test_a_picture_among_videos_leaves_cells_empty():
    found = row(PLAIN, ALL)
    assert found.pop("path") == "a b.jpg" and found.pop("count") == "12.346"
    assert set(found.values()) == {""}


@pytest.mark.parametrize(
    "path",
    ["a\nb\t9.9.jpg", "\x1b[31m.jpg", '"a",b.jpg', "=1+1.jpg", "a;=1+1.jpg", "a\r=1.jpg"],
)
def test_names_break_no_format(path):
    record = Record(path, 1.0, {"z": 1.0})
    line = record.text()
    assert line.count("\t") == 2 and line.replace("\t", "").isprintable()
    assert line.endswith("\t1.0\tz=1.0")
    assert json.loads(record.json())["path"] == path and "\n" not in record.json()
    assert row(record, Columns(zones=("z",)))["path"] in (path, "./" + path)
    assert "\x1b" not in record.json()


def test_zones_named_like_columns_are_told_apart():
    columns = Columns(zones=("count", "smoothed"), video=True, smooth=True)
    assert len(set(columns.names())) == len(columns.names())


def test_a_semicolon_starts_no_cell():
    """A spreadsheet set to semicolons must not find a formula behind one."""
    assert Columns().row(Record("a;=1+1.jpg", 1.0)) == '"a;=1+1.jpg",1.000'
    assert Columns().row(Record("plain name.jpg", 1.0)) == "plain name.jpg,1.000"
