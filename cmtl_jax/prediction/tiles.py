"""Tiles that count a picture of any size exactly, in constant memory.

The density at a pixel depends on the picture at most 55 pixels away, so a tile with a halo of 56,
cut on the grid of 4 that the poolings see, has inside exactly the density of the whole picture.
"""

from collections.abc import Iterator
from typing import NamedTuple

HALO = 56
GRID = 4


class Tile(NamedTuple):
    """One tile: rows and columns of the picture.

    Attributes:
        read: slices of the picture that the network sees.
        core: slices of the picture whose density comes from this tile.
        inner: the core within what was read.
    """

    read: tuple[slice, slice]
    core: tuple[slice, slice]
    inner: tuple[slice, slice]


def tiles(height: int, width: int, core: int) -> Iterator[Tile]:
    """Covers a picture with tiles whose cores are disjoint.

    Args:
        height: of the picture, pixels.
        width: likewise.
        core: side of a tile's core, a multiple of 4; what is read is at most core + 2 * HALO.
    """
    if core % GRID:
        raise ValueError(f"the side of a tile must be a multiple of {GRID}, not {core}")
    for rows in _spans(height, core):
        for columns in _spans(width, core):
            read, kept, inner = zip(rows, columns, strict=True)
            yield Tile(read, kept, inner)


def _spans(length: int, core: int) -> Iterator[tuple[slice, slice, slice]]:
    for start in range(0, length, core):
        stop = min(start + core, length)
        first, last = max(start - HALO, 0), min(stop + HALO, length)
        yield slice(first, last), slice(start, stop), slice(start - first, stop - first)
