"""Tiles that count a picture of any size exactly, in constant memory.

The density at a pixel depends on the picture at most 55 pixels away, so a tile with a halo of 56,
cut on the grid of 4 that the poolings see, has inside exactly the density of the whole picture.
All tiles of a picture have one shape, so one program counts them; where their number times that
shape leaves something over, neighbours overlap more, and nothing is padded.
"""

import itertools
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


def best_shape(height: int, width: int, most_pixels: int, step: int) -> tuple[int, int]:
    """The height and width of tiles that leave the network the least to compute.

    Large tiles repeat less of the picture in their halos; a shape that fits the picture leaves
    nothing over.

    Args:
        height: of the picture, pixels.
        width: likewise.
        most_pixels: what a tile may have, for its memory.
        step: the sides are multiples of it, so that pictures of like size share a program; itself a
            multiple of 4.

    Raises:
        ValueError: a step off the grid, or no tile wider than its halos is that small.
    """
    if step % GRID:
        raise ValueError(f"the step must be a multiple of {GRID}, not {step}")
    shapes = [
        shape
        for shape in itertools.product(_sides(height, step), _sides(width, step))
        if shape[0] * shape[1] <= most_pixels
    ]
    if not shapes:
        raise ValueError(f"no tile of {most_pixels} pixels has room between its halos")

    def computed(shape: tuple[int, int]) -> int:
        return _number(height, shape[0]) * _number(width, shape[1]) * shape[0] * shape[1]

    # Of those alike, the largest, so that the fewest programs run.
    return min(shapes, key=lambda shape: (computed(shape), -shape[0] * shape[1], shape))


def tiles(height: int, width: int, shape: tuple[int, int]) -> Iterator[Tile]:
    """Covers a picture with tiles whose cores are disjoint.

    Args:
        height: of the picture, pixels.
        width: likewise.
        shape: height and width of what a tile reads, multiples of 4; a shorter picture is read
            whole, and the last tile ends where a picture does whose side is no multiple of 4.

    Raises:
        ValueError: a side off the grid, or nothing left between the halos.
    """
    for rows in _spans(height, shape[0]):
        for columns in _spans(width, shape[1]):
            read, core, inner = zip(rows, columns, strict=True)
            yield Tile(read, core, inner)


def _sides(length: int, step: int) -> list[int]:
    """Multiples of step for tiles along a side, up to the first that spans it whole."""
    whole = -(-length // step)
    return [n * step for n in range(1, whole + 1) if n == whole or n * step > 2 * HALO]


def _number(length: int, side: int) -> int:
    """Tiles needed along a side, or 1 where one spans it."""
    if side >= length:
        return 1
    return -(-(_on_grid(length) - 2 * HALO) // (side - 2 * HALO))


def _on_grid(length: int) -> int:
    return -(-length // GRID) * GRID


def _spans(length: int, side: int) -> Iterator[tuple[slice, slice, slice]]:
    if side % GRID:
        raise ValueError(f"the sides of a tile must be multiples of {GRID}, not {side}")
    if side < length and side <= 2 * HALO:
        raise ValueError(f"a tile of {side} pixels has nothing between its halos of {HALO}")
    number = _number(length, side)
    spare = max(_on_grid(length) - side, 0) // GRID  # cells from the first start to the last
    starts = [GRID * (i * spare // max(number - 1, 1)) for i in range(number)]
    # Neighbours meet halfway in what both read, at least a halo from the end of either.
    meet = [(a + side + b) // (2 * GRID) * GRID for a, b in itertools.pairwise(starts)]
    for start, first, last in zip(starts, [0, *meet], [*meet, length], strict=True):
        read = slice(start, min(start + side, length))
        yield read, slice(first, last), slice(first - start, last - start)
