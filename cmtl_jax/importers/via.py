"""VGG Image Annotator 1 and 2: projects, JSON and CSV exports (gitlab.com/vgg/via)."""

import json
import pathlib
from typing import Any

from cmtl_jax.errors import UserError
from cmtl_jax.importers.format import Format
from cmtl_jax.importers.marked import BOX, ELLIPSE, POINT, Mark, Marked, box_around

_PROJECT = "_via_img_metadata"


def _is_picture(value: Any) -> bool:
    return isinstance(value, dict) and {"filename", "regions"} <= value.keys()


def _matches_json(path: pathlib.Path, content: Any) -> bool:
    if not isinstance(content, dict) or not content:
        return False
    return _PROJECT in content or all(map(_is_picture, content.values()))


def _read_json(path: pathlib.Path, content: Any) -> list[Marked]:
    found = []
    for picture in content.get(_PROJECT, content).values():
        regions = picture["regions"]
        if isinstance(regions, dict):  # version 1 numbers them
            regions = regions.values()
        marks = [
            _mark(region["shape_attributes"], region.get("region_attributes")) for region in regions
        ]
        found.append(Marked(path, marks, name=picture["filename"]))
    return found


def _columns(rows: list[tuple[int, list[str]]]) -> list[str]:
    return [cell.lstrip("#").strip() for cell in rows[0][1]] if rows else []


def _matches_csv(path: pathlib.Path, rows: list[tuple[int, list[str]]]) -> bool:
    return {"filename", "region_shape_attributes"} <= set(_columns(rows))


def _read_csv(path: pathlib.Path, rows: list[tuple[int, list[str]]]) -> list[Marked]:
    columns = _columns(rows)
    pictures: dict[str, list[Mark]] = {}
    for line, cells in rows[1:]:
        try:
            row = dict(zip(columns, cells, strict=True))
            marks = pictures.setdefault(row["filename"], [])
            shape = json.loads(row["region_shape_attributes"] or "{}")
            if shape:  # a picture without regions has a row, too
                marks.append(_mark(shape, json.loads(row.get("region_attributes") or "{}")))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}, line {line}: not a row of VGG Image Annotator ({error!r}); export the "
                "annotations again"
            ) from error
    return [Marked(path, marks, name=name) for name, marks in pictures.items()]


def _mark(shape: dict, attributes: dict | None) -> Mark:
    kind, label = shape["name"], _label(attributes or {})
    if kind == "point":
        return Mark(POINT, (float(shape["cx"]), float(shape["cy"])), label)
    if kind in ("circle", "ellipse"):
        return Mark(ELLIPSE, (float(shape["cx"]), float(shape["cy"])), label)
    if kind == "rect":
        left, top = float(shape["x"]), float(shape["y"])
        box = (left, top, left + float(shape["width"]), top + float(shape["height"]))
        return Mark(BOX, box, label)
    if kind == "polygon":
        xs, ys = shape["all_points_x"], shape["all_points_y"]
        return box_around(zip(map(float, xs), map(float, ys), strict=True), label)
    return Mark(kind, label=label)


def _label(attributes: dict) -> str:
    """What a region is: its only attribute, or the one called so; a check box's checked values."""
    named = {key.lower(): value for key, value in attributes.items()}
    chosen = [named[key] for key in ("label", "class", "type", "object", "name") if key in named]
    value = chosen[0] if chosen else next(iter(named.values())) if len(named) == 1 else ""
    if isinstance(value, dict):
        value = ",".join(key for key, checked in value.items() if checked)
    return str(value or "").strip()


VIA_JSON = Format("via", "VGG Image Annotator (JSON)", ".json", _matches_json, _read_json)
VIA_CSV = Format("via", "VGG Image Annotator (CSV)", ".csv", _matches_csv, _read_csv)
