"""UCF_CC_50 (Idrees et al., CVPR 2013): 50 pictures in five folds."""

import dataclasses
import pathlib
import re

import numpy as np

from cmtl_jax.datasets import annotations
from cmtl_jax.datasets.crowd_builder import CrowdBuilder, CrowdConfig, Found, Item, missing
from cmtl_jax.datasets.density_map import DensityRule
from cmtl_jax.errors import UserError

NUM_PICTURES = 50
NUM_FOLDS = 5
SPLITS = tuple(f"fold_{fold}" for fold in range(1, NUM_FOLDS + 1))
SOURCE = "the UCF Center for Research in Computer Vision's page on UCF_CC_50"
LAYOUT = "UCF_CC_50/{1.jpg, 1_ann.mat, ..., 50.jpg, 50_ann.mat}"


@dataclasses.dataclass(eq=False)
class UcfCc50Config(CrowdConfig):
    """The partition into folds: `sequential` or `random_<seed>`."""

    folds: str = "sequential"


def fold_of_pictures(folds: str) -> dict[int, str]:
    """Assigns each picture, 1 to 50, to one of five folds of ten.

    The data set has no official folds. `sequential` (1-10, 11-20, ...) is the usual
    reproducible choice; `random_<seed>` is a partition of our own by NumPy's generator.

    Raises:
      UserError: neither of the two.
    """
    order = np.arange(NUM_PICTURES)
    if match := re.fullmatch(r"random_(\d+)", folds):
        order = np.random.default_rng(int(match[1])).permutation(NUM_PICTURES)
    elif folds != "sequential":
        raise UserError(f"UCF_CC_50: folds must be sequential or random_<seed>, not {folds!r}")
    size = NUM_PICTURES // NUM_FOLDS
    return {int(picture) + 1: SPLITS[place // size] for place, picture in enumerate(order)}


def _find_folder(raw_dir: pathlib.Path) -> pathlib.Path | None:
    candidates = [raw_dir, *(raw_dir / name for name in ("UCF_CC_50", "ucf_cc_50"))]
    if raw_dir.is_dir():
        below = sorted(path for path in raw_dir.iterdir() if path.is_dir())
        candidates += below + [path / "UCF_CC_50" for path in below]
    for folder in candidates:
        if any((folder / f"{n}_ann.mat").is_file() for n in range(1, NUM_PICTURES + 1)):
            return folder
    return None


class UcfCc50(CrowdBuilder):
    """UCF_CC_50 with the splits fold_1 to fold_5; each picture is in one fold, ids 1 to 50."""

    name = "ucf_cc_50"
    DESCRIPTION = "UCF_CC_50: 50 pictures of dense crowds with 63,974 annotated heads."
    CITATION = (
        "@inproceedings{idrees2013multi, title={Multi-Source Multi-Scale Counting in Extremely "
        "Dense Crowd Images}, author={Idrees, Haroon and Saleemi, Imran and Seibert, Cody and "
        "Shah, Mubarak}, booktitle={CVPR}, year={2013}}"
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Get the data from {SOURCE}. Expected: {LAYOUT}."
    BUILDER_CONFIGS = [UcfCc50Config(name="sequential")]

    @classmethod
    def config(cls, rule: DensityRule, raw_dir=None, *, folds: str = "sequential") -> CrowdConfig:
        """The config of a partition into folds with a density rule.

        Raises:
          UserError: no such partition.
        """
        fold_of_pictures(folds)
        return UcfCc50Config.named(folds, rule, folds=folds)

    def find(self, raw_dir: pathlib.Path | None) -> Found:
        """Lists the five folds; pictures that are missing are reported."""
        folder = _find_folder(raw_dir) if raw_dir is not None else None
        if folder is None:
            raise missing(raw_dir, LAYOUT, SOURCE)
        splits, absent = {}, []
        folds = fold_of_pictures(self.builder_config.folds)
        for number in range(1, NUM_PICTURES + 1):
            picture, annotation = folder / f"{number}.jpg", folder / f"{number}_ann.mat"
            if picture.is_file() and annotation.is_file():
                item = Item.of_files(str(number), picture, annotation, annotations.read_ucf_cc_50)
                splits.setdefault(folds[number], []).append(item)
            else:
                absent.append(str(number))
        warnings = []
        if absent:
            warnings.append(
                f"{folder}: picture or annotation missing, left out: {', '.join(absent)}"
            )
        if not splits:
            raise missing(folder, LAYOUT, SOURCE)
        return Found({split: splits[split] for split in SPLITS if split in splits}, warnings)
