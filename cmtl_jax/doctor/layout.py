"""Which data sets a raw folder holds."""

import collections
import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import ml_collections

from cmtl_jax import pictures
from cmtl_jax.datasets import annotations, shanghaitech, ucf_cc_50
from cmtl_jax.datasets import point_folder as point_folder_lib
from cmtl_jax.datasets.crowd_builder import FILE_FORMAT, Found
from cmtl_jax.datasets.density_map import DensityRule
from cmtl_jax.datasets.prepare import BUILDERS
from cmtl_jax.doctor.finding import ERROR, NOTE, OK, WARNING, Finding, some
from cmtl_jax.errors import UserError

_LISTED = 2000  # files looked at to say what is there instead


class DataSet(NamedTuple):
    """A data set in a raw folder.

    Attributes:
        name: 'shanghaitech/part_a', 'ucf_cc_50', 'point_folder'; a key of the manifest where the
            data set is published.
        folder: where it was found.
        found: its pictures, not read yet.
        published: whether its numbers should be the published ones.
    """

    name: str
    folder: pathlib.Path
    found: Found
    published: bool


def recognise(
    folder: pathlib.Path, config: ml_collections.ConfigDict | None = None
) -> tuple[list[DataSet], list[Finding]]:
    """The data sets of a folder, and what is to be said about their layout.

    Args:
        folder: as for --config.dataset.raw_dir.
        config: only its data set is looked for; without one, all.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        return [], [Finding(ERROR, "layout", f"{folder} {what}", "name the folder of raw data")]
    sets, findings = [], []
    try:
        for one in _any(folder) if config is None else _named(folder, config):
            if isinstance(one, DataSet):
                sets.append(one)
                findings += _findings(one)
            else:
                findings.append(one)
    except OSError as error:
        what = f"{error.filename or folder} cannot be read ({error.strerror or error})"
        findings.append(Finding(ERROR, "layout", what, "check its permissions"))
    return sets, findings or [_unknown(folder)]


def _find(
    name: str, folder: pathlib.Path, shown: str, published: bool, **options
) -> DataSet | Finding:
    builder = BUILDERS[name]
    try:
        config = builder.config(DensityRule(), folder, **options)
        config = builder.builder_configs.get(config.name, config)
        found = builder(config=config, file_format=FILE_FORMAT).find(folder)
    except UserError as error:
        advice = f"compare with what is there: {_there(folder)}"
        return Finding(ERROR, "layout", str(error), advice, subject=shown)
    return DataSet(shown, folder, found, published)


def _part(part: str, raw_dir: pathlib.Path) -> DataSet | Finding:
    """A part of ShanghaiTech; a folder of another name may be anybody's in the same layout."""
    folder = shanghaitech.find_part(raw_dir, part) or raw_dir
    named = folder.resolve().name.lower().replace("-", "_").startswith(part)
    return _find("shanghaitech", folder, f"shanghaitech/{part}", named, part=part)


def _named(
    folder: pathlib.Path, config: ml_collections.ConfigDict
) -> Iterator[DataSet | Finding]:
    """The data set that a config is of."""
    name, options = config.dataset.name, config.dataset.options.to_dict()
    if name == "synthetic":
        raise UserError("drawn crowds have no folder of raw data; use another --config, or none")
    if name == "shanghaitech":
        yield _part(options.get("part", shanghaitech.PARTS[0]), folder)
    else:
        yield _find(name, folder, name, name == "ucf_cc_50", **options)


def _any(folder: pathlib.Path) -> Iterator[DataSet | Finding]:
    """All published data sets below a folder; the user's own pictures where there is none."""
    places = {shanghaitech.find_part(folder, part): part for part in reversed(shanghaitech.PARTS)}
    places.pop(None, None)
    for place, part in sorted(places.items()):
        yield _part(part, place)
    ucf = _find("ucf_cc_50", folder, "ucf_cc_50", True)
    if isinstance(ucf, DataSet):
        yield ucf
    elif not places and any(p.suffix.lower() in pictures.SUFFIXES for p in _files(folder)):
        yield _find("point_folder", folder, "point_folder", False)


def _files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """The first files below a folder; hidden ones left out."""
    number = 0
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if number == _LISTED:
                return
            if not name.startswith("."):
                number += 1
                yield pathlib.Path(parent, name)


def _there(folder: pathlib.Path) -> str:
    """What a folder holds, in words."""
    below = sorted(path.name for path in folder.iterdir() if path.is_dir())
    kinds = collections.Counter(path.suffix.lower() or "no suffix" for path in _files(folder))
    files = ", ".join(f"{number} files {kind}" for kind, number in kinds.most_common(4))
    folders = f"folders {some([name + '/' for name in below])}" if below else "no folders"
    return f"{folders}; {files or 'no files'}"


def _unknown(folder: pathlib.Path) -> Finding:
    what = (
        f"no data set recognised in {folder}: looked for part_A_final or part_A with "
        "train_data/{images,ground_truth or ground-truth} (ShanghaiTech), 1_ann.mat to 50_ann.mat "
        "(UCF_CC_50), and pictures with annotations (point_folder: "
        f"{point_folder_lib.LAYOUT}); there are {_there(folder)}"
    )
    return Finding(ERROR, "layout", what, "name the folder that holds them, or move the files")


def _findings(one: DataSet) -> Iterator[Finding]:
    splits = ", ".join(f"{split} {len(items)}" for split, items in one.found.splits.items())
    what = f"{one.folder} is {one.name}: {splits} annotated pictures"
    subject = one.name
    if one.name.startswith("shanghaitech") and not one.published:
        what = f"{one.folder} has ShanghaiTech's layout, its name tells no part: {splits} pictures"
        yield Finding(NOTE, "layout", what, "published numbers are not asked for", subject=subject)
    else:
        yield Finding(OK, "layout", what, subject=subject)
    if one.name == "point_folder" and one.folder.name in ("train_data", "test_data", "images"):
        what = f"{one.folder} seems to be a part of a data set"
        advice = f"to check all of it, name {one.folder.parent}"
        yield Finding(NOTE, "layout.part", what, advice, subject=subject)
    for warning in one.found.warnings:
        advice = f"annotations are {', '.join(annotations.SUFFIXES)} files"
        yield Finding(WARNING, "layout.left_out", warning, advice, subject=subject)
    if one.name.startswith("shanghaitech"):
        missing = [split for split in shanghaitech.SPLITS if split not in one.found.splits]
    elif one.name == "ucf_cc_50":
        missing = [split for split in ucf_cc_50.SPLITS if split not in one.found.splits]
    else:
        missing = [] if "train" in one.found.splits else ["train"]
    if "train" in missing:
        advice = "training needs it"
        yield Finding(WARNING, "layout.split", "there is no split train", advice, subject=subject)
        missing.remove("train")
    if missing:
        what = f"there is no split {', '.join(missing)}"
        advice = "without test pictures, evaluation takes those held out of the training pictures"
        yield Finding(NOTE, "layout.split", what, advice, subject=subject)
