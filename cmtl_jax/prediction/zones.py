"""Zones: named polygons of a picture whose people are counted each on their own."""

import dataclasses
import json
import math
import os
import pathlib

import numpy as np

from cmtl_jax.errors import UserError
from cmtl_jax.escape import printable

UNITS = ("pixels", "fraction")

_GRID = 256  # corners lie on 1/256 pixel, so that all that follows is exact in integers
_LONGEST_NAME = 100


@dataclasses.dataclass(frozen=True)
class Zones:
    """Polygons and their names.

    A picture of H x W pixels spans 0 <= x <= W and 0 <= y <= H, and pixel (column, row) the unit
    square from (column, row) on. A pixel belongs to a zone if its centre, (column + 0.5,
    row + 0.5), lies inside; a centre on a border belongs to the zone to its right, on a horizontal
    border to the one below. So each pixel of a picture cut into zones belongs to exactly one of
    them, and the counts of the zones sum to the count of the picture. Corners are rounded to 1/256
    pixel first. (OpenCV's fillPoly draws borders into both neighbours.) Ours.

    Attributes:
        points: corners of each zone by its name, float64 [N, 2] (x, y), as in the file.
        unit: `pixels`, or `fraction` of the picture's width and height.
        source: the file, for messages.
    """

    points: dict[str, np.ndarray]
    unit: str
    source: str = "the zones"
    _masks: dict = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self):
        if self.unit not in UNITS:
            raise UserError(f'{self.source}: "unit" must be one of {UNITS}, not {self.unit!r}')
        if not self.points:
            raise UserError(f'{self.source}: there is no zone; add "name": [[x, y], ...]')
        for name, points in self.points.items():
            self._check(name, points)

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Zones":
        """Zones of a JSON file: {"unit": "pixels", "zones": {"north": [[x, y], ...], ...}}.

        Raises:
            UserError: unreadable, of another form, fewer than 3 different corners, sides that
                cross or touch, a corner that no picture has.
        """
        try:
            text = pathlib.Path(path).read_text(encoding="utf-8-sig")
            content = json.loads(text, object_pairs_hook=_without_repetition)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        except (OSError, ValueError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{path} is no readable JSON file ({reason}); correct it") from error
        form = 'expected {"unit": "pixels", "zones": {"name": [[x, y], ...]}}'
        if not isinstance(content, dict) or not isinstance(content.get("zones"), dict):
            raise UserError(f"{path}: {form}; correct the file")
        if unknown := sorted(content.keys() - {"unit", "zones"}):
            raise UserError(f"{path}: {unknown[0]!r} is not understood; {form}")
        points = {name: _points(value, name, path) for name, value in content["zones"].items()}
        return cls(points, content.get("unit", "pixels"), str(path))

    def polygons(self, height: int, width: int) -> dict[str, np.ndarray]:
        """Corners of each zone in a picture of that size, float64 [N, 2] (x, y), pixels.

        Raises:
            UserError: a corner lies outside the picture, or a zone is too small for it.
        """
        corners = self._corners(height, width)
        return {name: points / _GRID for name, points in corners.items()}

    def counts(self, density: np.ndarray) -> dict[str, float]:
        """People in each zone.

        Args:
            density: [H, W] people per pixel.

        Raises:
            UserError: as `polygons`.
        """
        masks = self.masks(*density.shape)
        return {
            name: float(density.sum(where=mask, dtype=np.float64)) for name, mask in masks.items()
        }

    def masks(self, height: int, width: int) -> dict[str, np.ndarray]:
        """Which pixels belong to each zone: bool [H, W].

        Raises:
            UserError: as `polygons`.
        """
        if (height, width) not in self._masks:
            corners = self._corners(height, width)
            self._masks.clear()  # those of one size are kept, as all frames of a video have it
            self._masks[height, width] = {
                name: _mask(points.tolist(), height, width) for name, points in corners.items()
            }
        return self._masks[height, width]

    def _corners(self, height: int, width: int) -> dict[str, np.ndarray]:
        """Corners on the grid of 1/256 pixel, int64 [N, 2]."""
        size = np.array([width, height])
        factor = size if self.unit == "fraction" else np.ones(2)
        corners = {}
        for name, points in self.points.items():
            outside = np.flatnonzero(((points * factor > size) | (points < 0)).any(axis=1))
            if outside.size:
                x, y = points[outside[0]]
                raise UserError(
                    f"{self.source}: zone {name!r} has a corner at ({x:g}, {y:g}), outside a "
                    f"picture of {width}x{height} pixels; correct it, or give fractions of the "
                    'sides with "unit": "fraction"'
                )
            corners[name] = _distinct(np.rint(points * factor * _GRID).astype(np.int64))
            if len(corners[name]) < 3:
                raise UserError(
                    f"{self.source}: zone {name!r} is smaller than a pixel in a picture of "
                    f"{width}x{height} pixels; enlarge it"
                )
        return corners

    def _check(self, name: str, points: np.ndarray) -> None:
        """What can be told before any picture is known."""
        where = f"{self.source}: zone {name!r}"
        if not name.strip() or len(name) > _LONGEST_NAME or printable(name) != name:
            raise UserError(
                f"{self.source}: a zone needs a name of 1 to {_LONGEST_NAME} printable characters, "
                f"not {name[:_LONGEST_NAME]!r}"
            )
        if (points < 0).any() or (self.unit == "fraction" and (points > 1).any()):
            wanted = "0 to 1" if self.unit == "fraction" else "0 or more"
            raise UserError(f"{where} has a corner outside the picture; coordinates are {wanted}")
        corners = _distinct(points)
        if len(corners) < 3:
            raise UserError(f"{where} has fewer than 3 different corners; add some")
        if self.unit == "pixels" and (points <= 1).all():
            raise UserError(
                f'{where} lies within the first pixel; say "unit": "fraction" if that is meant'
            )
        if (crossing := _crossing(corners)) is not None:
            first, second = (f"({x:g}, {y:g})" for x, y in corners[list(crossing)])
            raise UserError(
                f"{where}: the sides that begin at {first} and {second} cross or touch; put the "
                "corners in order around the zone"
            )


def _without_repetition(pairs: list[tuple[str, object]]) -> dict:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{twice!r} is there twice; rename one of them")
    return content


def _points(value: object, name: str, path: str | os.PathLike) -> np.ndarray:
    wanted = f"{path}: zone {name!r} must be a list of corners [[x, y], ...]"
    if not isinstance(value, list):
        raise UserError(f"{wanted}; correct the file")
    for i, corner in enumerate(value):
        numbers = isinstance(corner, list) and [type(x) in (int, float) for x in corner]
        if numbers != [True, True] or not all(_reasonable(x) for x in corner):
            raise UserError(f"{wanted}, corner {i + 1} is {json.dumps(corner)[:60]}")
    return np.array(value, np.float64).reshape(-1, 2)


def _reasonable(value: int | float) -> bool:
    return abs(value) < 1e6 and math.isfinite(value)  # products of grid positions fit in int64


def _distinct(points: np.ndarray) -> np.ndarray:
    """Without corners that repeat the one before, the last and first included."""
    if len(points) == 0:
        return points
    return points[(points != np.roll(points, 1, axis=0)).any(axis=1)]


def _crossing(points: np.ndarray) -> tuple[int, int] | None:
    """Two sides of a closed polygon that share more than the corner between neighbours.

    Args:
        points: [N, 2], each unlike the one before.

    Returns:
        Positions of the corners where the two sides begin.
    """
    ends = np.roll(points, -1, axis=0)
    number = len(points)

    def turn(a, b, c):
        """1 if a, b, c turn one way, -1 the other, 0 on a line."""
        return np.sign((b - a)[..., 0] * (c - a)[..., 1] - (b - a)[..., 1] * (c - a)[..., 0])

    def between(a, b, c):
        """Whether c, known to be on the line through a and b, lies between them."""
        return ((np.minimum(a, b) <= c) & (c <= np.maximum(a, b))).all(axis=-1)

    for i in range(number):
        a, b = points[i], ends[i]
        after = points[(i + 2) % number]
        # A neighbour may only turn back on itself.
        if turn(a, b, after) == 0 and ((b - a) * (after - b)).sum() < 0:
            return i, (i + 1) % number
        others = np.arange(i + 2, number if i else number - 1)
        if not others.size:
            continue
        c, d = points[others], ends[others]
        abc, abd, cda, cdb = turn(a, b, c), turn(a, b, d), turn(c, d, a), turn(c, d, b)
        found = (abc * abd < 0) & (cda * cdb < 0)
        found |= (abc == 0) & between(a, b, c)
        found |= (abd == 0) & between(a, b, d)
        found |= (cda == 0) & between(c, d, a)
        found |= (cdb == 0) & between(c, d, b)
        if found.any():
            return i, int(others[found.argmax()])
    return None


def _mask(corners: list[list[int]], height: int, width: int) -> np.ndarray:
    """Pixels whose centre lies inside, bool [H, W]; see `Zones`.

    A pixel is inside if the number of sides to the left of its centre is odd. Each side counts in
    the rows whose centre line it crosses, its upper end included and its lower end not.
    """
    flips = np.zeros((height, width + 1), bool)
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y1 > y2:  # neighbours share the very same side, whichever way they go round it
            x1, y1, x2, y2 = x2, y2, x1, y1
        first, last = (-((_GRID // 2 - y) // _GRID) for y in (y1, y2))
        rows = np.arange(max(first, 0), min(last, height))
        if not rows.size:
            continue
        # The first pixel whose centre is at the side or to its right, rounded up exactly.
        rise = y2 - y1
        crossing = x1 * rise + (rows * _GRID + _GRID // 2 - y1) * (x2 - x1)
        column = -((_GRID // 2 * rise - crossing) // (_GRID * rise))
        flips[rows, np.clip(column, 0, width)] ^= True
    return np.logical_xor.accumulate(flips[:, :width], axis=1)
