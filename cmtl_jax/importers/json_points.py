"""Points of this project as JSON: of one picture, or a table of many as the clicking page saves."""

import math
import pathlib
from typing import Any

from cmtl_jax.importers.format import Format
from cmtl_jax.importers.marked import POINT, Mark, Marked


def _is_point(value: Any) -> bool:
    if isinstance(value, dict):
        return {"x", "y"} <= value.keys()
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(one is None or isinstance(one, int | float) for one in value)
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_point, value))


def _is_picture(value: Any) -> bool:
    return _is_list(value["points"]) if _has_points(value) else _is_list(value)


def _has_points(value: Any) -> bool:
    return isinstance(value, dict) and "points" in value


def _matches(path: pathlib.Path, content: Any) -> bool:
    if _is_picture(content):
        return True
    return isinstance(content, dict) and bool(content) and all(map(_is_picture, content.values()))


def _read(path: pathlib.Path, content: Any) -> list[Marked]:
    if _is_picture(content):
        return [_marked(path, content, stem=path.stem)]
    return [_marked(path, value, name=name) for name, value in content.items()]


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _marked(path: pathlib.Path, value: Any, **names: str) -> Marked:
    about = value if isinstance(value, dict) else {}
    points = value["points"] if _has_points(value) else value
    finished = about.get("finished", True) is not False
    pairs = [(one["x"], one["y"]) if isinstance(one, dict) else one for one in points]
    marks = [Mark(POINT, (_number(x), _number(y))) for x, y in pairs]
    size = None
    if about.get("width") and about.get("height"):
        size = int(about["height"]), int(about["width"])
    return Marked(path, marks, size=size, empty=finished, finished=finished, **names)


JSON_POINTS = Format("json", "points of this project (JSON)", ".json", _matches, _read)
