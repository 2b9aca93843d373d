"""COCO: key points of persons, or boxes (https://cocodataset.org/#format-data)."""

import pathlib
from typing import Any

from cmtl_jax.importers import keypoints
from cmtl_jax.importers.format import Format
from cmtl_jax.importers.marked import BOX, POINT, Mark, Marked


def _matches(path: pathlib.Path, content: Any) -> bool:
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys()


def _read(path: pathlib.Path, content: Any) -> list[Marked]:
    categories = {one["id"]: one for one in content.get("categories") or ()}
    marks: dict[Any, list[Mark]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        category = categories.get(annotation.get("category_id"), {})
        # An annotation of an image that is not listed belongs to nothing.
        if annotation["image_id"] in marks:
            marks[annotation["image_id"]].append(_mark(annotation, category))
    return [
        Marked(path, marks[image["id"]], name=image["file_name"], size=_size(image))
        for image in content["images"]
    ]


def _size(image: dict) -> tuple[int, int] | None:
    if not (image.get("height") and image.get("width")):
        return None
    return int(image["height"]), int(image["width"])


def _mark(annotation: dict, category: dict) -> Mark:
    label = str(category.get("name", ""))
    if annotation.get("iscrowd"):  # an area with several people, not counted
        return Mark("crowd area", label=label)
    values = annotation.get("keypoints") or []
    names = category.get("keypoints") or [f"point_{i}" for i in range(len(values) // 3)]
    triples = zip(values[::3], values[1::3], values[2::3], strict=True)
    # The third number: 0 not marked, 1 marked but hidden, 2 visible.
    points = {
        name: (float(x), float(y))
        for name, (x, y, visible) in zip(names, triples, strict=True)
        if visible
    }
    head = keypoints.head(points)
    if head is not None:
        return Mark(POINT, head, label)
    box = annotation.get("bbox")
    if not box:
        return Mark("mark without box", label=label)
    left, top, width, height = map(float, box)
    return Mark(BOX, (left, top, left + width, top + height), label)


COCO = Format("coco", "COCO (JSON)", ".json", _matches, _read)
