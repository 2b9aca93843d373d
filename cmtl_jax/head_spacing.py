"""How far apart people stand in a picture, as its density map says, and in the training data.

Weights know heads of the sizes they were trained on. A density map has no sizes, but in a crowd the
distance between neighbours grows and shrinks with them, and people per pixel tell that distance:
about 1 / sqrt(density). Ours.
"""

import statistics
from collections.abc import Iterable, Sequence

import numpy as np

_CELL = 8  # pixels; the map is summed over squares of this side
_PEOPLE = 4  # in the window around a place whose area gives the distance there
_FEWEST = 10  # people in a picture; fewer say little


def head_spacing(density: np.ndarray) -> float | None:
    """The distance between neighbours that half of the people have at most, in pixels.

    Around each place the smallest of a row of growing windows that holds 4 people is taken; n
    people in an area of A pixels stand sqrt(A / n) apart. (On ShanghaiTech this is 1.5 to 1.8
    times the median distance to the nearest neighbour; logarithms correlate by 0.98 and more.)

    Args:
        density: [H, W] people per pixel.

    Returns:
        None for a picture of fewer than 10 people.
    """
    height, width = density.shape
    columns = np.arange(0, width, _CELL)
    cells = np.stack([  # row by row, as a copy of a large map takes much memory
        np.add.reduceat(density[y : y + _CELL].sum(axis=0, dtype=np.float64), columns)
        for y in range(0, height, _CELL)
    ])  # fmt: skip
    cells = np.maximum(cells, 0)
    if not cells.sum() >= _FEWEST:  # NaN does neither
        return None
    total = np.pad(cells.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    apart = np.full(cells.shape, np.inf)
    radius = 1
    while np.isinf(apart).any() and radius < 2 * max(cells.shape):
        (top, bottom), (left, right) = (
            (np.maximum(at - radius, 0), np.minimum(at + radius + 1, len(at)))
            for at in map(np.arange, cells.shape)
        )
        rows = np.minimum(bottom * _CELL, height) - top * _CELL
        columns = np.minimum(right * _CELL, width) - left * _CELL
        people = total[bottom] - total[top]
        people = people[:, right] - people[:, left]
        found = np.isinf(apart) & (people >= _PEOPLE)
        apart[found] = np.sqrt(np.outer(rows, columns)[found] / people[found])
        radius *= 2
    order = apart.argsort(axis=None)
    share = cells.ravel()[order].cumsum()
    return float(apart.ravel()[order][np.searchsorted(share, share[-1] / 2)])


def training_range(
    pictures: Iterable[tuple[np.ndarray, tuple[int, int]]],
) -> dict[str, float] | None:
    """The range of `head_spacing` over annotated pictures: what weights keep as `head_spacing`.

    Args:
        pictures: head points [N, 2] (x, y) and (height, width) of each, in pixels of the pictures
            that are given to the counter.

    Returns:
        `low`, `median` and `high`: 1, 50 and 99 % of the pictures lie below, in pixels. None where
        no picture has 10 people.
    """
    from cmtl_jax.datasets.density_map import density_map  # TFDS takes a second

    found = [head_spacing(density_map(points, *size)) for points, size in pictures]
    known = [spacing for spacing in found if spacing is not None]
    if not known:
        return None
    low, median, high = np.quantile(known, [0.01, 0.5, 0.99])
    return {"low": float(low), "median": float(median), "high": float(high)}


def together(ranges: Sequence[dict[str, float] | None]) -> dict[str, float] | None:
    """One range over those of several trainings: the widest, and the geometric mean of the medians.

    Args:
        ranges: `training_range` of each; None where weights carry none, which says nothing.

    Returns:
        None where there is none of them.
    """
    known = [one for one in ranges if one is not None]
    if not known:
        return None
    return {
        "low": min(one["low"] for one in known),
        "median": statistics.geometric_mean(one["median"] for one in known),
        "high": max(one["high"] for one in known),
    }


def warning(spacing: float | None, trained: dict[str, float] | None, scale: float) -> str | None:
    """What to tell about a picture whose people stand closer or farther than in training.

    Args:
        spacing: `head_spacing` of the map at the size that was counted.
        trained: `training_range` of the weights, where they carry it.
        scale: by which the picture's sides were multiplied before.

    Returns:
        None where there is nothing to tell.
    """
    if spacing is None or trained is None or trained["low"] <= spacing <= trained["high"]:
        return None
    closer = "closer" if spacing < trained["low"] else "farther apart"
    better = float(f"{scale * trained['median'] / spacing:.2g}")
    return (
        f"people seem to stand {spacing:.0f} pixels apart, {closer} than in what these weights "
        f"were trained on ({trained['low']:.0f} to {trained['high']:.0f}); the count may be far "
        f"off; try --scale={better:g}"
    )
