"""Names of files cannot break a terminal or start a formula."""

import os
import pathlib
import unicodedata

import pytest

from cmtl_jax.escape import printable, table_cell


def test_control_characters_are_spelled_out():
    assert printable("a\x1b[2Jb\nc\td\x7f\x9b\u202ee") == r"a\x1b[2Jb\nc\td\x7f\x9b\u202ee"


@pytest.mark.parametrize(
    "name",
    ["Screenshot 1.02\u202fPM.png", "人群.jpg", "été.jpg", "a\xa0b", "👨\u200d👩.png", "\\n"],
)
def test_other_names_stay(name):
    assert printable(name) == name
    assert printable(os.fsdecode(b"\xff.png")) == os.fsdecode(b"\xff.png")


def test_nothing_that_moves_the_cursor_or_turns_the_text_is_left():
    every = "".join(map(chr, range(0x30000)))
    directions = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
    for character in printable(every):
        assert unicodedata.category(character) not in ("Cc", "Zl", "Zp")
        assert unicodedata.bidirectional(character) not in directions


@pytest.mark.parametrize("start", list("=+-@\t\r\n＝＋－＠"))
def test_a_formula_becomes_the_same_file(start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = f"{start}1.jpg"
    pathlib.Path(name).touch()
    cell = table_cell(name)
    assert cell[0] == "." and pathlib.Path(cell).samefile(name)


@pytest.mark.parametrize("name", ["a=1.jpg", "/any/-a.jpg", "photos/@.jpg", ""])
def test_other_cells_stay(name):
    assert table_cell(name) == name
