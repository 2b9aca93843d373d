"""YOLO: a text file beside or for each picture, lines `class x y width height` in shares of it."""

import pathlib

from cmtl_jax.errors import UserError
from cmtl_jax.importers.format import Format
from cmtl_jax.importers.marked import BOX, Mark, Marked

_CLASSES = ("classes.txt", "obj.names")  # one name a line, beside the files or above them


def _numbers(line: str) -> list[float] | None:
    try:
        values = [float(one) for one in line.split()]
    except ValueError:
        return None
    return values if len(values) >= 5 and values[0] >= 0 and values[0].is_integer() else None


def _matches(path: pathlib.Path, lines: list[str]) -> bool:
    return path.name not in _CLASSES and all(_numbers(line) is not None for line in lines)


def _names(path: pathlib.Path) -> list[str]:
    for folder in (path.parent, path.parent.parent):
        for name in _CLASSES:
            if (folder / name).is_file():
                return (folder / name).read_text("utf-8", "replace").split("\n")
    return []


def _read(path: pathlib.Path, lines: list[str]) -> list[Marked]:
    names, marks = _names(path), []
    for line in lines:
        values = _numbers(line)
        if values is None or len(values) > 6:  # a sixth number is a detector's confidence
            raise UserError(
                f"{path}: {line[:60]!r} is not a box `class x y width height`; export boxes, not "
                "polygons or poses"
            )
        number, x, y, width, height = values[:5]
        label = names[int(number)].strip() if int(number) < len(names) else str(int(number))
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        marks.append(Mark(BOX, box, label))
    return [Marked(path, marks, stem=path.stem, shares=True, empty=True)]


YOLO = Format("yolo", "YOLO boxes", ".txt", _matches, _read)
