"""Crowd-count groups: the ten classes of the high-level prior, and their weights."""

import dataclasses
import typing
from collections.abc import Callable, Sequence

import numpy as np

from cmtl_jax.input_pipeline.crops import CropRule, points_inside

if typing.TYPE_CHECKING:  # counting a picture needs no data sets
    from cmtl_jax.input_pipeline.patches import Patches
    from cmtl_jax.input_pipeline.pictures import Pictures


@dataclasses.dataclass(frozen=True)
class CountGroups:
    """Maps a count to its group; stored with each checkpoint.

    Attributes:
        edges: ascending counts that separate the groups: number of groups - 1 of them. A count on
            an edge belongs to the upper group.
        class_weights: weight of each group in the classification loss.
        histogram: examples of each group that edges and weights were taken from.
    """

    edges: tuple[float, ...]
    class_weights: tuple[float, ...]
    histogram: tuple[int, ...]

    def __call__(self, count: float) -> int:
        """The group of a count, 0 to number of groups - 1."""
        return int(np.searchsorted(self.edges, count, side="right"))

    def to_json(self) -> dict[str, list[float]]:
        return {key: list(value) for key, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, list[float]]) -> "CountGroups":
        return cls(**{key: tuple(value) for key, value in data.items()})


def count_of(points: np.ndarray, density: np.ndarray | None, rule: str) -> float:
    """The count of a crop that its group is taken from.

    Args:
        points: [N, 2], head points in the crop.
        density: [h, w], the crop's part of the density map; of rule 'density' alone.
        rule: 'points' (ours: heads in the crop) or 'density' (authors' code: the sum of its density
            map, to which heads at its edge add in part).
    """
    if rule == "points":
        return len(points)
    return float(density.sum(dtype=np.float64))


def sample_counts(
    pictures: "Pictures", rule: CropRule, samples: int, seed: int, count: str = "points"
) -> np.ndarray:
    """Counts (see count_of) of `samples` random crops of every picture: [pictures * samples]."""
    rng = np.random.default_rng(seed)
    counts = []
    for position, entry in enumerate(pictures.index):
        points = pictures.points(position)
        whole = pictures[position].density if count == "density" else None
        for _ in range(samples):
            top, left, h, w = rule.place(entry.height, entry.width, rng)
            density = None if whole is None else whole[top : top + h, left : left + w]
            counts.append(count_of(points_inside(points, top, left, h, w), density, count))
    return np.array(counts)


def stored_counts(patches: "Patches", count: str) -> np.ndarray:
    """Counts (see count_of) of all stored patches, in their order."""
    if count == "points":
        return np.array([entry.count for entry in patches.index])
    return np.array([count_of(*patches.truth(i), count) for i in range(len(patches))])


def fit(counts: Sequence[float], number: int, binning: str, class_weights: str) -> CountGroups:
    """Count groups from the counts of training crops.

    Args:
        counts: people in each crop.
        number: of groups.
        binning: 'quantile' (ours: groups of equal size as far as ties allow), 'uniform' (equal
            width from the smallest to the largest count), 'released' (authors' code: the count
            divided by a tenth of the range, rounded to even; the smallest count is not
            subtracted), 'c3' (C-3-Framework: the same, rounded down; its range is that of the
            first 50 batches, here that of all counts).
        class_weights: 'none', 'inv_sqrt' (ours: 1 / sqrt of the group's share), 'released'
            (authors' code: (1 - share) / (number - 1)). The first two have mean 1 over the crops.
            The weight of a group without crops is 0 for 'inv_sqrt'.
    """
    counts = np.asarray(counts, np.float64)
    low, high = counts.min(), counts.max()
    width = (high - low or 1.0) / number
    if binning == "quantile":
        edges = _quantile_edges(counts, number)
    elif binning == "uniform":
        edges = low + width * np.arange(1, number)
    else:
        edges = _rounding_edges(width, number, np.floor if binning == "c3" else np.round)
    group = np.searchsorted(edges, counts, side="right")
    histogram = np.bincount(group, minlength=number)
    return CountGroups(
        tuple(map(float, edges)),
        tuple(map(float, _weights(histogram, class_weights))),
        tuple(map(int, histogram)),
    )


def _quantile_edges(counts: np.ndarray, number: int) -> np.ndarray:
    """Each group takes its equal share of the crops that the groups below it have left.

    Where one count makes up more than a share, such as empty crops, it is a group of its own and
    the other groups still share the rest evenly.
    """
    edges: list[float] = []
    rest = np.sort(counts)
    for groups_left in range(number, 1, -1):
        if len(rest):
            share = -(-len(rest) // groups_left)
            edges.append(float(np.ceil(rest[share - 1])) + 0.5)
            rest = rest[rest > edges[-1]]
        else:
            edges.append(edges[-1] + 1)
    return np.array(edges)


def _rounding_edges(width: float, number: int, rounded: Callable) -> np.ndarray:
    """Smallest counts with rounded(count / width) >= 1, 2, ...; np.round takes half to even."""
    edges = width * (np.arange(1, number) - (0.5 if rounded is np.round else 0))
    for i in range(number - 1):
        while rounded(edges[i] / width) > i:
            edges[i] = np.nextafter(edges[i], -np.inf)
        while rounded(edges[i] / width) <= i:
            edges[i] = np.nextafter(edges[i], np.inf)
    return edges


def _weights(histogram: np.ndarray, rule: str) -> np.ndarray:
    share = histogram / histogram.sum()
    if rule == "none":
        return np.ones(len(histogram))
    if rule == "released":
        return (1 - share) / (1 - share).sum()
    weights = np.where(histogram > 0, 1 / np.sqrt(np.maximum(share, 1e-12)), 0)
    return weights / (share * weights).sum()
