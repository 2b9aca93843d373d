"""ShanghaiTech part A and part B (Zhang et al., CVPR 2016)."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator

from cmtl_jax.datasets import annotations
from cmtl_jax.datasets.crowd_builder import (
    CrowdBuilder,
    CrowdConfig,
    Found,
    Item,
    missing,
    natural,
)
from cmtl_jax.datasets.density_map import DensityRule
from cmtl_jax.errors import UserError

PARTS = ("part_a", "part_b")
SPLITS = ("train", "test")
SOURCE = "the authors' ShanghaiTech page or the Kaggle mirror of ShanghaiTech"
_DEPTH = 3  # how far below the given folder a part is looked for


@dataclasses.dataclass(eq=False)
class ShanghaitechConfig(CrowdConfig):
    """One part: `part_a` (482 pictures from the web) or `part_b` (716 of streets)."""

    part: str = "part_a"


def _layout(part: str) -> str:
    name = f"part_{part[-1].upper()}"
    return (
        f"{name}_final/train_data/{{images/IMG_1.jpg, ground_truth/GT_IMG_1.mat}} and "
        f"{name}_final/test_data, or {name}/train_data/{{images, ground-truth}}"
    )


def _plain_name(name: str) -> str:
    return name.lower().replace("-", "_").replace(" ", "_")


def _folders(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Sub-folders by plain name."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError:
        return {}
    return {_plain_name(name): folder / name for name in found}


def _levels(raw_dir: pathlib.Path) -> Iterator[pathlib.Path]:
    """The folder itself, then the folders below it, nearest first."""
    level = [raw_dir]
    for _ in range(_DEPTH + 1):
        yield from level
        level = [
            folder
            for parent in level
            for name, folder in _folders(parent).items()
            if name not in ("images", "ground_truth")
        ]


def find_part(raw_dir: pathlib.Path, part: str) -> pathlib.Path | None:
    """The folder of a part: `raw_dir` itself or up to three levels below; None if missing."""
    other = [name for name in PARTS if name != part]
    for folder in _levels(raw_dir):
        if not {"train_data", "test_data"} & _folders(folder).keys():
            continue
        name = _plain_name(folder.resolve().name)
        if name.startswith(part):
            return folder
        if folder == raw_dir and not any(name.startswith(one) for one in other):
            return folder
    return None


def _items(folder: pathlib.Path) -> tuple[list[Item], list[str]]:
    """Pictures of one split folder with their annotations, and pictures without one."""
    below = _folders(folder)
    if "images" not in below or "ground_truth" not in below:
        return [], []
    annotated = {path.stem: path for path in below["ground_truth"].glob("GT_*.mat")}
    items, bare = [], []
    paths = (path for path in below["images"].iterdir() if path.suffix.lower() == ".jpg")
    for path in sorted(paths, key=lambda path: natural(path.stem)):
        annotation = annotated.get(f"GT_{path.stem}")
        if annotation is None:
            bare.append(path.name)
        else:
            items.append(Item.of_files(path.stem, path, annotation, annotations.read_shanghaitech))
    return items, bare


class Shanghaitech(CrowdBuilder):
    """ShanghaiTech as released: splits train and test, ids such as IMG_1."""

    name = "shanghaitech"
    DESCRIPTION = (
        "ShanghaiTech: 1,198 pictures of crowds with 330,165 annotated heads. Part A: 300 + 182 "
        "pictures from the web. Part B: 400 + 316 pictures of streets, 1024 x 768."
    )
    CITATION = (
        "@inproceedings{zhang2016single, title={Single-Image Crowd Counting via Multi-Column "
        "Convolutional Neural Network}, author={Zhang, Yingying and Zhou, Desen and Chen, Siqin "
        "and Gao, Shenghua and Ma, Yi}, booktitle={CVPR}, year={2016}}"
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Get the data from {SOURCE} and unpack it into the folder. Expected: "
        f"{_layout('part_a')}; the same for part_B."
    )
    BUILDER_CONFIGS = [ShanghaitechConfig(name=part, part=part) for part in PARTS]

    @classmethod
    def config(cls, rule: DensityRule, raw_dir=None, *, part: str = "part_a") -> CrowdConfig:
        """The config of a part with a density rule.

        Raises:
          UserError: no such part.
        """
        if part not in PARTS:
            raise UserError(f"ShanghaiTech has the parts {', '.join(PARTS)}, not {part!r}")
        return ShanghaitechConfig.named(part, rule, part=part)

    def find(self, raw_dir: pathlib.Path | None) -> Found:
        """Lists train and test of the part; either may be missing, with one warning."""
        part = self.builder_config.part
        folder = find_part(raw_dir, part) if raw_dir is not None else None
        if folder is None:
            raise missing(raw_dir, _layout(part), SOURCE)
        splits, warnings = {}, []
        below = _folders(folder)
        for split in SPLITS:
            items, bare = _items(below.get(f"{split}_data", folder / f"{split}_data"))
            if bare:
                warnings.append(
                    f"{folder}: {len(bare)} pictures of {split} have no annotation and are left "
                    f"out, the first is {bare[0]}"
                )
            if items:
                splits[split] = items
        if not splits:
            raise missing(folder, _layout(part), SOURCE)
        return Found(splits, warnings)
