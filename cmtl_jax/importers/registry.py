"""The formats there are, and which one a file is of."""

import csv
import io
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from xml.etree import ElementTree

from cmtl_jax.datasets import annotations
from cmtl_jax.errors import UserError
from cmtl_jax.importers.coco import COCO
from cmtl_jax.importers.csv_points import CSV_POINTS
from cmtl_jax.importers.cvat import CVAT
from cmtl_jax.importers.format import Format
from cmtl_jax.importers.json_points import JSON_POINTS
from cmtl_jax.importers.labelme import LABELME
from cmtl_jax.importers.marked import Marked
from cmtl_jax.importers.mat import MAT
from cmtl_jax.importers.via import VIA_CSV, VIA_JSON
from cmtl_jax.importers.yolo import YOLO

# The first that matches is taken: those that ask for more stand first.
FORMATS = (COCO, LABELME, VIA_JSON, JSON_POINTS, VIA_CSV, CSV_POINTS, MAT, YOLO, CVAT)
NAMES = tuple(sorted({one.name for one in FORMATS}))


def _rows(path: pathlib.Path) -> list[tuple[int, list[str]]]:
    """Rows of a CSV file with their line numbers, parted by comma, semicolon or tab."""
    text = annotations.read_text(path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = next((one for one in "\t;" if one in first), ",")
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not CSV ({error}); correct it") from error
    return [(line, cells) for line, cells in rows if any(cells)]


def _lines(path: pathlib.Path) -> list[str]:
    return [line for line in annotations.read_text(path).splitlines() if line.strip()]


def _xml(path: pathlib.Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise UserError(f"{path} is not valid XML ({error}); export it again") from error


# What `Format.matches` and `Format.read` get of a file, by its suffix.
CONTENTS: dict[str, Callable[[pathlib.Path], Any]] = {
    ".json": annotations.load_json,
    ".csv": _rows,
    ".mat": lambda path: None,
    ".txt": _lines,
    ".xml": _xml,
}


class Recognised(NamedTuple):
    """An annotation file of a known format."""

    path: pathlib.Path
    format: Format
    pictures: list[Marked]


def read(path: pathlib.Path, only: str = "auto") -> Recognised | None:
    """Reads an annotation file.

    Args:
        path: the file.
        only: name of its format; 'auto' tries all.

    Returns:
        None where the file is none of the formats.

    Raises:
        UserError: damaged, or not as its format asks for.
    """
    suffix = path.suffix.lower()
    formats = [one for one in FORMATS if one.suffix == suffix and only in ("auto", one.name)]
    if not formats:
        return None
    content = CONTENTS[suffix](path)
    for one in formats:
        if one.matches(path, content):
            try:
                return Recognised(path, one, one.read(path, content))
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"{path} is not {one.title} as documented ({type(error).__name__}: {error}); "
                    "export it again"
                ) from error
    return None


def describe(path: pathlib.Path) -> str:
    """What a file that is of no known format holds, in a few words."""
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return "an archive; unpack it"
    if suffix not in CONTENTS:
        return f"a file {suffix or 'without suffix'}"
    try:
        content = CONTENTS[suffix](path)
    except UserError:
        return "unreadable"
    return f"{suffix[1:].upper()} with {_some(_outline(content))}"


def _outline(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        yield "keys " + ", ".join(map(str, list(content)[:6]))
    elif isinstance(content, ElementTree.Element):
        yield f"root {content.tag}"
    elif isinstance(content, list) and content:
        first = content[0]
        yield f"first entry {first[1] if isinstance(first, tuple) else first!r}"


def _some(parts: Iterator[str]) -> str:
    return (next(parts, "nothing"))[:120]
