"""Points as CSV: columns x and y of one picture, or file, x and y of many."""

import pathlib

from cmtl_jax.errors import UserError
from cmtl_jax.importers.format import Format
from cmtl_jax.importers.marked import POINT, Mark, Marked

# Names of columns, in small letters; further columns are left out.
_COLUMNS = {
    "file": ("file", "filename", "file_name", "image", "image_name", "img", "picture", "name"),
    "x": ("x", "col", "column"),
    "y": ("y", "row"),
    "label": ("label", "class"),
}


def _columns(rows: list[tuple[int, list[str]]]) -> tuple[dict[str, int], bool] | None:
    """Where the columns stand and whether a header says so; None for another kind of table."""
    if not rows:
        return {"x": 0, "y": 1}, False
    first = rows[0][1]
    names = [cell.lower().lstrip("#").strip() for cell in first]
    found = {}
    for column, known in _COLUMNS.items():
        places = [i for i, name in enumerate(names) if name in known]
        if places:
            found[column] = places[0]
    if {"x", "y"} <= found.keys():
        return found, True
    if len(first) == 2 and all(map(_is_number, first)):
        return {"x": 0, "y": 1}, False
    if len(first) == 3 and not _is_number(first[0]) and all(map(_is_number_or_empty, first[1:])):
        return {"file": 0, "x": 1, "y": 2}, False
    return None


def _number(text: str) -> float:
    return float(text.replace(",", "."))  # a decimal comma, where columns are parted otherwise


def _is_number(text: str) -> bool:
    try:
        _number(text)
    except ValueError:
        return False
    return True


def _is_number_or_empty(text: str) -> bool:
    return not text or _is_number(text)


def _stem(name: str) -> str:
    """A name without a suffix may be the stem of a picture's."""
    pure = pathlib.PurePath(name.replace("\\", "/"))
    return "" if pure.suffix else pure.name


def _matches(path: pathlib.Path, rows: list[tuple[int, list[str]]]) -> bool:
    return _columns(rows) is not None


def _read(path: pathlib.Path, rows: list[tuple[int, list[str]]]) -> list[Marked]:
    found = _columns(rows)
    if found is None:
        raise UserError(
            f"{path}, line {rows[0][0]}: no columns x,y or file,x,y; add a header that names them"
        )
    columns, header = found
    pictures: dict[str, list[Mark]] = {} if "file" in columns else {"": []}
    for line, cells in rows[header:]:
        try:
            named = {column: cells[place] for column, place in columns.items()}
            marks = pictures.setdefault(named.get("file", ""), [])
            if named["x"] or named["y"]:
                values = _number(named["x"]), _number(named["y"])
                marks.append(Mark(POINT, values, named.get("label", "")))
        except (IndexError, ValueError):
            raise UserError(
                f"{path}, line {line}: {','.join(cells)} is not {','.join(columns)}; correct the "
                "line"
            ) from None
    if "file" not in columns:
        return [Marked(path, pictures[""], stem=path.stem, empty=True)]
    # A row without a point says that there are no people.
    return [
        Marked(path, marks, name=name, stem=_stem(name), empty=True)
        for name, marks in pictures.items()
    ]


CSV_POINTS = Format("csv", "points (CSV)", ".csv", _matches, _read)
