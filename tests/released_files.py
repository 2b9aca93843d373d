"""Files in the format of the authors' PyTorch code, made for tests."""

import pathlib

import h5py
import jax
import numpy as np
import scipy.signal
from work_folders import random_params

from cmtl_jax.interop import released
from cmtl_jax.models import registry

GOLDEN = pathlib.Path(__file__).parent / "data/cmtl_golden_c.npz"


def arrays(model: str) -> dict[str, np.ndarray]:
    """Random values for every key of 'cmtl' or 'mcnn', in the authors' layouts."""
    return released.to_theirs(model, random_params(registry.build(model, **released.ARCHITECTURE)))


def zeros(model: str) -> dict[str, np.ndarray]:
    """The same, all 0."""
    shapes = released.shapes(model)
    return released.to_theirs(model, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes))


def write(path: pathlib.Path, values: dict, **attributes) -> pathlib.Path:
    """A file with these arrays and attributes."""
    with h5py.File(path, "w") as file:
        for key, value in values.items():
            file[key] = value
        file.attrs.update(attributes)
    return path


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays of a file."""
    with h5py.File(path) as file:
        return {key: np.asarray(file[key]) for key in file}


def plain_mcnn(theirs: dict[str, np.ndarray], grey: np.ndarray) -> np.ndarray:
    """The map of people a cell that MCNN's definition gives, on their own arrays, in float64.

    Args:
        theirs: by their keys.
        grey: [H, W], H and W multiples of 4.

    Returns:
        [H/4, W/4].
    """

    def conv(x, key):
        weight, bias = theirs[f"DME.{key}.conv.weight"], theirs[f"DME.{key}.conv.bias"]
        maps = [
            sum(scipy.signal.correlate2d(c, w, "same") for c, w in zip(x, kernel, strict=True)) + b
            for kernel, b in zip(weight.astype(np.float64), bias, strict=True)
        ]
        return np.maximum(maps, 0)

    def pool(x):
        return np.maximum.reduce([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)])

    columns = []
    for branch in ("branch1", "branch2", "branch3"):
        x = pool(conv(grey[None].astype(np.float64), f"{branch}.0"))
        x = pool(conv(x, f"{branch}.2"))
        columns.append(conv(conv(x, f"{branch}.4"), f"{branch}.5"))
    return conv(np.concatenate(columns), "fuse.0")[0]
