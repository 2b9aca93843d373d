"""The folder that an import writes: pictures, and a points.json for each split."""

import filecmp
import json
import pathlib
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np

from cmtl_jax import pictures, work_folder
from cmtl_jax.datasets import annotations, point_folder
from cmtl_jax.errors import UserError

TABLE = "points.json"
_SPLITS = {
    "train": ("train", "training", "train_data"),
    "test": ("test", "testing", "test_data"),
    "val": ("val", "valid", "validation", "val_data"),
}


class Place(NamedTuple):
    """Where a picture goes: a split's folder, empty where there are none, and its name there."""

    split: str
    name: str


def places(names: Collection[str]) -> dict[str, Place]:
    """Where pictures go that lie in folders called train, test and val, or in none.

    The data set point_folder knows train and test. Pictures of val become test pictures where
    there are no others, training pictures otherwise: the hold-out for validation is drawn among
    these. So does what lies outside such folders.
    """
    found = {name: said(name) for name in names}
    known = {place.split for place in found.values()} - {""}
    if not known:
        return found
    val = "train" if "test" in known else "test"
    to = {"train": "train", "test": "test", "val": val, "": "train"}
    return {name: Place(to[split], rest) for name, (split, rest) in found.items()}


def said(name: str) -> Place:
    """What a folder of a picture's name says: 'train', 'test', 'val' or '', and the rest of it."""
    parts = pathlib.PurePosixPath(name).parts
    for i, part in enumerate(parts[:-1]):
        for split, words in _SPLITS.items():
            if part.lower() in words:
                return Place(split, "/".join(parts[:i] + parts[i + 1 :]))
    return Place("", name)


def write(
    folder: pathlib.Path,
    imported: Mapping[Place, tuple[pathlib.Path, np.ndarray]],
    overwrite: bool = False,
) -> None:
    """Copies pictures and adds their points to the tables, which are written last.

    An import that is interrupted leaves copies of pictures that no table names yet; the same import
    again completes it. Points of other pictures in the tables stay.

    Args:
        folder: is made where it is missing.
        imported: picture file and points, float64 [N, 2], of each place.
        overwrite: replace pictures and points that differ.

    Raises:
        UserError: without `overwrite`, other pictures or points of these names are there; nothing
            has been written then.
    """
    splits = {place.split for place in imported}
    tables = {split: _table(folder / split / TABLE) for split in splits}
    _check_splits(folder, splits)
    copies, differing = {}, []
    for place, (picture, points) in imported.items():
        target, table = folder / place.split / place.name, tables[place.split]
        copied = target.is_file() and filecmp.cmp(picture, target, shallow=False)
        if not copied:
            copies[target] = picture
        other_points = place.name in table and not _equal(table[place.name], points)
        if other_points or (target.exists() and not copied):
            differing.append(str(target))
        table[place.name] = points.tolist()
    if differing and not overwrite:
        raise UserError(
            f"{len(differing)} pictures are in {folder} already, with other contents or points: "
            f"{point_folder.some(differing)}; choose another --out, or replace them by --overwrite"
        )
    for target, picture in copies.items():
        work_folder.write(target, pictures.read_bytes(picture))
    for split, table in tables.items():
        # Escaped: a name that is no text, as file systems allow, has no UTF-8.
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in table.items()]
        data = ("{\n" + ",\n".join(lines) + "\n}\n").encode()
        path = folder / split / TABLE
        if not path.exists() or path.read_bytes() != data:  # a new time is taken for new contents
            work_folder.write(path, data)


def _check_splits(folder: pathlib.Path, splits: set[str]) -> None:
    """Whole folders and folders of splits do not mix: point_folder reads either."""
    there = {split for split in ("", *point_folder.SPLITS) if (folder / split / TABLE).exists()}
    if there and ("" in there) != ("" in splits):
        raise UserError(
            f"{folder} holds an import {'without' if '' in there else 'with'} train and test "
            "pictures apart, and this one is not; choose another --out"
        )


def _table(path: pathlib.Path) -> dict:
    if not path.exists():
        return {}
    annotations.read_json_table(path)  # its errors are for people
    return annotations.load_json(path) or {}


def _equal(before, points: np.ndarray) -> bool:
    values = before["points"] if isinstance(before, dict) else before
    return values == points.tolist()
