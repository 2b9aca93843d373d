"""CVAT for images 1.1 (https://docs.cvat.ai/docs/dataset_management/formats/format-cvat)."""

import pathlib
from xml.etree import ElementTree

from cmtl_jax.errors import UserError
from cmtl_jax.importers import keypoints
from cmtl_jax.importers.format import Format
from cmtl_jax.importers.marked import BOX, ELLIPSE, POINT, Mark, Marked, box_around


def _matches(path: pathlib.Path, root: ElementTree.Element) -> bool:
    return root.tag == "annotations" and (
        root.find("image") is not None or root.find("track") is not None
    )


def _read(path: pathlib.Path, root: ElementTree.Element) -> list[Marked]:
    if root.find("track") is not None:
        raise UserError(f"{path} holds tracks of a video; export it as `CVAT for images 1.1`")
    found = []
    for image in root.iter("image"):
        marks = [mark for shape in image if shape.tag != "tag" for mark in _marks(shape)]
        size = None
        if image.get("height") and image.get("width"):
            size = int(image.get("height")), int(image.get("width"))
        found.append(Marked(path, marks, name=image.get("name"), size=size))
    return found


def _points(shape: ElementTree.Element) -> list[tuple[float, float]]:
    pairs = [pair.split(",") for pair in shape.get("points").split(";")]
    return [(float(x), float(y)) for x, y in pairs]


def _marks(shape: ElementTree.Element) -> list[Mark]:
    label = shape.get("label", "")
    if float(shape.get("rotation") or 0):
        return [Mark(f"rotated {shape.tag}", label=label)]
    if shape.tag == "points":  # one shape may hold many heads
        return [Mark(POINT, point, label) for point in _points(shape)]
    if shape.tag == "box":
        sides = tuple(float(shape.get(side)) for side in ("xtl", "ytl", "xbr", "ybr"))
        return [Mark(BOX, sides, label)]
    if shape.tag == "polygon":
        return [box_around(_points(shape), label)]
    if shape.tag == "ellipse":
        return [Mark(ELLIPSE, (float(shape.get("cx")), float(shape.get("cy"))), label)]
    if shape.tag == "skeleton":
        marked = {
            one.get("label", ""): _points(one)[0]
            for one in shape.iter("points")
            if one.get("outside") != "1"
        }
        head = keypoints.head(marked)
        if head is None:
            return [Mark("skeleton without head", label=label)]
        return [Mark(POINT, head, label)]
    return [Mark(shape.tag, label=label)]


CVAT = Format("cvat", "CVAT for images (XML)", ".xml", _matches, _read)
