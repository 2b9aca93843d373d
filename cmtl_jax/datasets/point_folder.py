"""A user's own pictures with head points."""

import collections
import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Callable, Iterable

import numpy as np

from cmtl_jax import pictures
from cmtl_jax.datasets import annotations
from cmtl_jax.datasets.crowd_builder import CrowdBuilder, CrowdConfig, Found, Item, natural
from cmtl_jax.datasets.density_map import DensityRule
from cmtl_jax.errors import UserError

SPLITS = ("train", "test")
ANNOTATION_FOLDERS = ("annotations", "ground_truth", "ground-truth", "labels", "points")
LAYOUT = (
    "pictures anywhere below the folder, each with an annotation (.mat, .csv or .json) of the "
    "same stem beside it or in a folder annotations/ or ground_truth/, or one points.csv with "
    "rows file,x,y, or one points.json {file: [[x, y], ...]}; sub-folders train/ and test/ are "
    "splits"
)


@dataclasses.dataclass(eq=False)
class PointFolderConfig(CrowdConfig):
    """One state of a folder's contents; the name holds a hash of it."""


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    """All files below a folder in natural order; hidden ones left out."""
    found = []
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if not any(part.startswith(".") for part in relative.parts) and path.is_file():
            found.append((natural(relative.as_posix()), path))
    return [path for _, path in sorted(found, key=lambda pair: pair[0])]


def contents_hash(folder: pathlib.Path) -> str:
    """Changes with the names, sizes and times of change of the files below a folder."""
    digest = hashlib.sha256()
    for path in files(folder):
        stat = path.stat()
        name = path.relative_to(folder).as_posix()
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]


def _folder(raw_dir) -> pathlib.Path:
    if raw_dir is None or not pathlib.Path(raw_dir).is_dir():
        raise UserError(
            f"folder of pictures not found: {raw_dir or 'none was given'}; expected {LAYOUT}. Pass "
            "it with --config.dataset.raw_dir=DIR"
        )
    return pathlib.Path(raw_dir)


def stems(annotation: pathlib.Path) -> Iterable[str]:
    """Stems of pictures that an annotation may belong to: x for x, GT_x and x_ann."""
    stem = annotation.stem
    yield stem
    if stem.startswith("GT_"):
        yield stem.removeprefix("GT_")
    if stem.endswith("_ann"):
        yield stem.removesuffix("_ann")


class _Annotations:
    """The annotations of one split folder, by the picture they belong to."""

    def __init__(self, folder: pathlib.Path, files: list[pathlib.Path]):
        self.folder = folder
        self.names = collections.Counter(
            path.name for path in files if path.suffix.lower() in pictures.SUFFIXES
        )
        self.used: set = set()
        self.tables: dict[pathlib.Path, dict[str, np.ndarray]] = {}
        self.files: dict[tuple[pathlib.Path, str], pathlib.Path] = {}
        for path in files:
            if path.suffix.lower() not in annotations.SUFFIXES:
                continue
            if path.parent == folder and path.name.lower() == "points.csv":
                self.tables[path] = annotations.read_csv_table(path)
            elif path.parent == folder and path.name.lower() == "points.json":
                self.tables[path] = annotations.read_json_table(path)
            else:
                for stem in stems(path):
                    self.files.setdefault((path.parent, stem), path)

    def find(self, picture: pathlib.Path) -> tuple[pathlib.Path, Callable] | None:
        """The annotation file of a picture and its reader."""
        names = [picture.relative_to(self.folder).as_posix()]
        if self.names[picture.name] == 1:  # else it may mean another one
            names.append(picture.name)
        for path, table in self.tables.items():
            for name in names:
                if name in table:
                    self.used.add((path, name))
                    return path, lambda _, points=table[name]: points
        parent = picture.parent
        places = [parent]
        for above in (parent, parent.parent):
            places += [above / name for name in ANNOTATION_FOLDERS]
        for place in places:
            path = self.files.get((place, picture.stem))
            if path is not None:
                self.used.add(path)
                return path, annotations.read
        return None

    def unused(self) -> list[str]:
        """Annotations that belong to no picture, as text for people."""
        rest = [str(path) for path in dict.fromkeys(self.files.values()) if path not in self.used]
        for path, table in self.tables.items():
            rest += [f"{path} ({name})" for name in table if (path, name) not in self.used]
        return rest


def some(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _items(folder: pathlib.Path) -> tuple[list[Item], list[str]]:
    """The annotated pictures of a split folder, and what people should know."""
    inside = files(folder)
    known = _Annotations(folder, inside)
    items, bare = [], []
    for path in inside:
        if path.suffix.lower() not in pictures.SUFFIXES:
            continue
        found = known.find(path)
        if found is None:
            bare.append(str(path))
        else:
            items.append(Item.of_files(path.relative_to(folder).as_posix(), path, *found))
    shared = [
        str(path)
        for path, number in collections.Counter(item.files[1] for item in items).items()
        if number > 1 and path not in known.tables
    ]
    warnings = []
    for what, names in (
        ("pictures without annotation, left out", bare),
        ("annotations without picture, left out", known.unused()),
        ("annotations used for more than one picture", shared),
    ):
        if names:
            warnings.append(f"{folder}: {len(names)} {what}: {some(names)}")
    return items, warnings


class PointFolder(CrowdBuilder):
    """A folder of pictures with annotations; ids are paths relative to the split's folder.

    The splits are the sub-folders train and test; without them all pictures are train.
    """

    name = "point_folder"
    DESCRIPTION = "Pictures of crowds with head points from a folder."
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Expected: {LAYOUT}."

    @classmethod
    def config(cls, rule: DensityRule, raw_dir=None) -> CrowdConfig:
        """The config of a folder as it is now.

        Raises:
          UserError: no such folder.
        """
        folder = _folder(raw_dir)
        name = re.sub(r"[^A-Za-z0-9]+", "_", folder.resolve().name).strip("_")[:40] or "folder"
        return PointFolderConfig.named(f"{name}-{contents_hash(folder)}", rule)

    def find(self, raw_dir: pathlib.Path | None) -> Found:
        """Lists the annotated pictures; the others are reported."""
        folder = _folder(raw_dir)
        below = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
        roots = {split: below[split] for split in SPLITS if split in below} or {"train": folder}
        splits, warnings = {}, []
        for split, root in roots.items():
            items, notes = _items(root)
            warnings += notes
            if items:
                splits[split] = items
        if folder not in roots.values():
            inside = tuple(roots.values())
            rest = [
                path
                for path in files(folder)
                if path.suffix.lower() in pictures.SUFFIXES
                and not any(path.is_relative_to(root) for root in inside)
            ]
            if rest:
                warnings.append(
                    f"{folder}: {len(rest)} pictures outside train/ and test/, left out: "
                    f"{some(list(map(str, rest)))}"
                )
        if not splits:
            reason = f" ({warnings[0]})" if warnings else ""
            raise UserError(f"no annotated pictures in {folder}{reason}; expected {LAYOUT}")
        return Found(splits, warnings)
