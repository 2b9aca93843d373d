"""Training pictures out of other data sets than the one that is learned and tested (ours).

A few hundred pictures of dense crowds do not tell a network what is no head: part B's streets,
drawn scenes without people and drawn textures do. Key dataset.extra.
"""

import collections
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_collections

from cmtl_jax import config as base_config
from cmtl_jax.datasets import density_map, prepare
from cmtl_jax.errors import UserError
from cmtl_jax.input_pipeline import holdout


class _Source(NamedTuple):
    builder: str
    options: dict
    raw_dir: str | None = None  # None: the builder's usual one


# UCF_CC_50 is not among them: each of its pictures is a test picture, and some are part A's, too.
SOURCES = {
    "shanghaitech-part_a": _Source("shanghaitech", {"part": "part_a"}),
    "shanghaitech-part_b": _Source("shanghaitech", {"part": "part_b"}),
    "empty_scenes": _Source(
        "synthetic",
        {
            "num_train": 160,
            "num_test": 0,
            "height": (120, 360),
            "width": (160, 480),
            "people": 0,
            "enlarge": 2,
        },
    ),
    "textures": _Source(
        "synthetic",
        {
            "num_train": 320,
            "num_test": 0,
            "height": (240, 600),
            "width": (320, 800),
            "textures": True,
        },
    ),
}

# Part A's training pictures that are in UCF_CC_50, too, as `python -m cmtl_jax.doctor data` finds.
_ALSO_IN_UCF_CC_50 = [f"IMG_{i}" for i in (21, 118, 134, 283, 287, 294, 297)]


def names(d: Mapping[str, Any]) -> list[str]:
    """What config.dataset.extra asks for, in order; none where older configs lack the key."""
    return [name.strip() for name in d.get("extra", "").split(",") if name.strip()]


def titles(d: Mapping[str, Any]) -> list[str]:
    """The same as people know them: of folders their names alone."""
    return [pathlib.Path(name).name for name in names(d)]


def title_of_folder(d: Mapping[str, Any], folder: str) -> str | None:
    """Its title where config.dataset.extra names a folder of pictures; None where it does not.

    Weights that went elsewhere say the last part of its path alone, which then is taken for it.
    """
    path = pathlib.Path(folder).resolve()
    for name in names(d):
        if name in SOURCES:
            continue
        there = pathlib.Path(name)
        if there.resolve() == path or (name == path.name and not there.is_dir()):
            return there.name
    return None


def in_ucf_cc_50(d: Mapping[str, Any]) -> list[str]:
    """Ids of those training pictures of part A that UCF_CC_50 has, too, in config.dataset."""
    part_a = "shanghaitech-part_a"
    left_out = {name.strip() for name in d.get("leave_out", "").split(",")}
    if d["name"] == "shanghaitech" and d["options"].get("part") == "part_a":
        trained = _ALSO_IN_UCF_CC_50
    elif part_a in names(d):
        trained = [f"{part_a}/{name}" for name in _ALSO_IN_UCF_CC_50]
    else:
        trained = []
    return [name for name in trained if name not in left_out]


def records(config: ml_collections.ConfigDict) -> list[tuple[prepare.Split, int]]:
    """Prepares the data sets of config.dataset.extra and lists their training pictures.

    Those that a run on such a data set holds out, with the same dataset.val_fraction, val_split and
    val_seed, are left out: it can be validated on them. Ids begin with the name of the data set, as
    in shanghaitech-part_b/IMG_1.

    Returns:
        (split, position in it) of each picture, as `Pictures` takes them.

    Raises:
        UserError: no such data set, its raw data is missing or wrong, it has pictures that
            UCF_CC_50 tests, or two of one name.
    """
    d, found = config.dataset, []
    if repeated := [one for one, times in collections.Counter(titles(d)).items() if times > 1]:
        raise UserError(
            f"config.dataset.extra names {', '.join(repeated)} more than once, and its pictures "
            "would be known by the same ids; name each once, and rename folders of one name"
        )
    if d.name == "ucf_cc_50" and (tested := in_ucf_cc_50(d)):
        raise UserError(
            "config.dataset.extra has pictures that are in UCF_CC_50, too; leave them out with "
            f"--config.dataset.leave_out={','.join(tested)}"
        )
    for name in names(d):
        source = SOURCES.get(name) or _folder(name)
        prepared = prepare.prepare(
            source.builder,
            rule=density_map.DensityRule(**config.density),
            raw_dir=source.raw_dir or base_config.raw_dir(source.builder),
            tfds_dir=d.tfds_dir or None,
            options=source.options,
        )
        if "train" not in prepared.splits:
            raise UserError(f"config.dataset.extra: {name} has no training pictures")
        split = prepared.splits["train"].prefixed(f"{pathlib.Path(name).name}/")
        counts = [entry.count for entry in split.index]
        training, _ = holdout.hold_out(counts, d.val_fraction, d.val_seed, d.val_split)
        found += [(split, i) for i in training]
    return found


def _folder(name: str) -> _Source:
    """
    Raises:
        UserError: there is no such folder.
    """
    if not pathlib.Path(name).is_dir():
        raise UserError(
            f"config.dataset.extra names {name}; it takes {', '.join(SOURCES)}, or a folder of "
            "pictures with head points"
        )
    return _Source("point_folder", {}, name)
