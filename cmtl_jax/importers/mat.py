"""Points in MATLAB files: ShanghaiTech's image_info, UCF_CC_50's annPoints, or any N x 2 array."""

import contextlib
import pathlib

import scipy.io

from cmtl_jax.datasets import annotations
from cmtl_jax.importers.format import Format
from cmtl_jax.importers.marked import POINT, Mark, Marked

_KEYS = ("image_info", "annPoints", "points")


def _other_keys(path: pathlib.Path) -> list[str]:
    """The N x 2 arrays of a file under other names."""
    with contextlib.suppress(Exception):  # damaged files are told by who reads them
        variables = scipy.io.whosmat(path)
        return [name for name, shape, _ in variables if len(shape) == 2 and shape[1] == 2]
    return []


def _matches(path: pathlib.Path, _: None) -> bool:
    return True


def _read(path: pathlib.Path, _: None) -> list[Marked]:
    others = _other_keys(path)
    keys = _KEYS + (tuple(others) if len(others) == 1 else ())
    points = annotations.read_mat(path, keys, finite=False)
    marks = [Mark(POINT, tuple(point)) for point in points.tolist()]
    return [Marked(path, marks, stem=path.stem, empty=True)]


MAT = Format("mat", "MATLAB points, counted from 1", ".mat", _matches, _read)
