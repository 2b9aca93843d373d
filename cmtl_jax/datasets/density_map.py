"""Head points to a density map: one Gaussian of mass 1 per head."""

import dataclasses
import functools
import math

import numpy as np

from cmtl_jax.errors import UserError

BORDERS = ("clip_renorm", "recenter")
OUTSIDE = ("clamp", "drop", "reference")


@dataclasses.dataclass(frozen=True)
class DensityRule:
    """How head points become a density map.

    Attributes:
      kernel: side of the square window a Gaussian is cut to, in pixels; odd.
      sigma: standard deviation of the Gaussian, in pixels.
      border: what happens where the picture's border cuts the window. `clip_renorm` (ours)
        keeps the peak in place and scales what is left to mass 1; `recenter` (authors' code)
        puts a new Gaussian into the middle of the cut window.
      outside: what happens to points outside the picture. `clamp` (ours) moves them to the
        nearest pixel inside; `drop` leaves them out; `reference` (authors' code) mirrors
        negative 1-based coordinates, then clamps.

    Raises:
      UserError: a value out of range.
    """

    kernel: int = 15
    sigma: float = 4.0
    border: str = "clip_renorm"
    outside: str = "clamp"

    def __post_init__(self):
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise UserError(f"density map: kernel must be odd and positive, not {self.kernel}")
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise UserError(f"density map: sigma must be positive, not {self.sigma}")
        if self.border not in BORDERS:
            raise UserError(f"density map: border must be one of {BORDERS}, not {self.border!r}")
        if self.outside not in OUTSIDE:
            raise UserError(f"density map: outside must be one of {OUTSIDE}, not {self.outside!r}")

    @property
    def slug(self) -> str:
        """The rule as a part of a file name; different rules have different slugs."""
        sigma = repr(float(self.sigma)).replace(".", "p").replace("+", "")
        return f"k{self.kernel}-s{sigma}-{self.border}-{self.outside}"


def apply_outside(points: np.ndarray, height: int, width: int, outside: str) -> np.ndarray:
    """Moves points outside the picture inside, or leaves them out.

    Points inside keep their fractional coordinates; a moved point lies on a whole pixel.

    Args:
      points: [N, 2] head points (x, y), pixels, 0-based.
      height: of the picture, pixels.
      width: of the picture, pixels.
      outside: `clamp`, `drop` or `reference`, see `DensityRule`.

    Returns:
      [M, 2] points of the same dtype with 0 <= x < width and 0 <= y < height.
    """
    points = np.asarray(points).reshape(-1, 2)
    if not np.issubdtype(points.dtype, np.floating):
        points = points.astype(np.float64)
    size = np.array([width, height])
    inside = (points >= 0) & (points < size)
    if outside == "drop":
        return points[inside.all(axis=1)]
    if outside == "clamp":
        moved = np.clip(np.floor(points), 0, size - 1)
    elif outside == "reference":
        # The released MATLAB rule min(w, max(1, abs(floor(x)))) on 1-based coordinates.
        moved = np.minimum(size, np.maximum(1, np.abs(np.floor(points) + 1))) - 1
    else:
        raise UserError(f"density map: outside must be one of {OUTSIDE}, not {outside!r}")
    return np.where(inside, points, moved).astype(points.dtype)


@functools.lru_cache(maxsize=4096)
def _window(kernel: int, sigma: float, border: str, before: int, after: int) -> np.ndarray:
    """One side of the window, [n] float64 of sum 1, with `before` and `after` entries cut off.

    A window is the outer product of its two sides, for both border rules, as the Gaussian and
    its sum over a rectangle are products.
    """
    length = kernel - before - after
    if border == "recenter":
        position = np.arange(length) - (length - 1) / 2
    else:
        position = np.arange(length) + before - kernel // 2
    side = np.exp(-(position**2) / (2 * sigma**2))
    return side / side.sum()


@functools.lru_cache(maxsize=4096)
def _patch(rule: DensityRule, top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """The window of one head, [h, w] float64 of sum 1, cut by the given numbers of pixels."""
    rows = _window(rule.kernel, rule.sigma, rule.border, top, bottom)
    columns = _window(rule.kernel, rule.sigma, rule.border, left, right)
    return np.outer(rows, columns)


def density_map(
    points: np.ndarray, height: int, width: int, rule: DensityRule = DensityRule(), dtype=np.float32
) -> np.ndarray:
    """The density map of head points: people per pixel, one Gaussian of sum 1 per head.

    A head's Gaussian is centred at the pixel (floor(x), floor(y)). With kernel 15, sigma 4,
    `recenter` and `reference` this is the map of the authors' data preparation, except that a
    picture with a single head holds one person, not 255 as there.

    Args:
      points: [N, 2] head points (x, y), pixels, 0-based.
      height: of the picture, pixels.
      width: of the picture, pixels.
      rule: kernel, sigma, border and points outside.
      dtype: of the result; sums are taken in float64.

    Returns:
      [height, width] density; its sum is the number of points after `apply_outside`.

    Raises:
      UserError: a point is not finite.
    """
    points = np.asarray(points).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise UserError("density map: head points contain NaN or infinity; correct the annotation")
    density = np.zeros((height, width), np.float64)
    half = rule.kernel // 2
    pixels = np.floor(apply_outside(points, height, width, rule.outside)).astype(np.int64)
    for x, y in pixels.tolist():
        top, left = max(0, half - y), max(0, half - x)
        bottom, right = max(0, y + half + 1 - height), max(0, x + half + 1 - width)
        rows = slice(y - half + top, y + half + 1 - bottom)
        columns = slice(x - half + left, x + half + 1 - right)
        density[rows, columns] += _patch(rule, top, bottom, left, right)
    return density.astype(dtype, copy=False)
