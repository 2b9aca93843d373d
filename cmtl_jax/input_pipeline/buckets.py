"""Buckets: the few padded shapes that pictures of all sizes share, so that few programs compile."""

import dataclasses
from collections.abc import Sequence

import numpy as np

Shape = tuple[int, int]


def _round_up(size: Shape) -> Shape:
    return -(-size[0] // 4) * 4, -(-size[1] // 4) * 4


@dataclasses.dataclass(frozen=True)
class Buckets:
    """A set of shapes (H, W), multiples of 4, by ascending area."""

    shapes: tuple[Shape, ...]

    def of(self, size: Shape) -> int:
        """Position of the smallest shape that holds a picture of that size.

        Raises:
            ValueError: none does.
        """
        for i, (height, width) in enumerate(self.shapes):
            if size[0] <= height and size[1] <= width:
                return i
        raise ValueError(f"no bucket of {self.shapes} holds a picture of size {size}")

    def waste(self, sizes: Sequence[Shape]) -> float:
        """Share of all pixels of the padded pictures that is padding."""
        used = sum(h * w for h, w in sizes)
        padded = sum(np.prod(self.shapes[self.of(size)]) for size in sizes)
        return 1 - used / padded


def choose(sizes: Sequence[Shape], max_buckets: int) -> Buckets:
    """Shapes from the data: few of them, and little padding.

    Starts with a shape for every size and merges, while there are more than max_buckets, the two
    whose merging adds the fewest padded pixels.

    Args:
        sizes: (height, width) of every picture.
        max_buckets: how many shapes there may be.
    """
    unique, counts = np.unique([_round_up(size) for size in sizes], axis=0, return_counts=True)
    shapes, counts = [tuple(map(int, shape)) for shape in unique], list(map(int, counts))
    while len(shapes) > max_buckets:
        sides = np.array(shapes)
        weight = np.array(counts)
        area = sides.prod(axis=1)
        merged = np.maximum(sides[:, None], sides[None]).prod(axis=2)
        cost = weight[:, None] * (merged - area[:, None]) + weight[None] * (merged - area[None])
        np.fill_diagonal(cost, np.iinfo(cost.dtype).max)
        i, j = sorted(np.unravel_index(int(cost.argmin()), cost.shape))
        union = tuple(int(max(a, b)) for a, b in zip(shapes[i], shapes[j], strict=True))
        shapes[i], counts[i] = union, counts[i] + counts[j]
        del shapes[j], counts[j]
    return Buckets(tuple(sorted(set(shapes), key=lambda s: (s[0] * s[1], s))))
