"""LabelMe: a JSON file for each picture (https://github.com/wkentaro/labelme)."""

import pathlib
from typing import Any

from cmtl_jax.importers.format import Format
from cmtl_jax.importers.marked import ELLIPSE, POINT, Mark, Marked, box_around


def _matches(path: pathlib.Path, content: Any) -> bool:
    return isinstance(content, dict) and {"shapes", "imagePath"} <= content.keys()


def _read(path: pathlib.Path, content: Any) -> list[Marked]:
    marks = []
    for shape in content["shapes"]:
        kind, label = shape.get("shape_type") or "polygon", str(shape.get("label") or "")
        points = [(float(x), float(y)) for x, y in shape["points"]]
        if kind == "point":
            marks.append(Mark(POINT, points[0], label))
        elif kind == "circle":  # its centre, then a point of its edge
            marks.append(Mark(ELLIPSE, points[0], label))
        elif kind in ("rectangle", "polygon"):
            marks.append(box_around(points, label))
        else:
            marks.append(Mark(kind, label=label))
    size = None
    if content.get("imageHeight") and content.get("imageWidth"):
        size = int(content["imageHeight"]), int(content["imageWidth"])
    # LabelMe writes a file when its user saves one.
    name = content["imagePath"] or ""
    return [Marked(path, marks, name=name, stem=path.stem, size=size, empty=True)]


LABELME = Format("labelme", "LabelMe (JSON)", ".json", _matches, _read)
