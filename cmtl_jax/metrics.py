"""Counting metrics: one picture's numbers, and the sums from which a data set's numbers follow.

All metrics are over whole pictures, each counted once. What the literature of this field calls MSE
is a root mean squared error; it is called `rmse` here.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import spatial

GAME_LEVELS = (0, 1, 2, 3)

MAP_QUALITY_CONVENTION = (
    "NWPU-Crowd (released qualitycc.py): raw maps in people per pixel at the picture's size;"
    " PSNR = 20 log10(max(true) / rmse); SSIM from the sums over non-overlapping 11x11 blocks,"
    " C1 = 1e-4, C2 = 9e-4; pictures without people are left out"
)

_SSIM_BLOCK = 11
_SSIM_C1 = 0.01**2
_SSIM_C2 = 0.03**2

_FEWEST_FOR_THIRDS = 6  # pictures; two in each say little, fewer nothing

# Upper ends of the classes of true counts; the same for every data set, so that runs compare.
_DENSITY_EDGES = (0, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)

_QUANTITIES = (
    "absolute_error",
    "squared_error",
    "normalized_error",
    *(f"game_{level}" for level in GAME_LEVELS),
    "psnr",
    "ssim",
    "stray",
    "group_correct",
    "count_true",
    "count_pred",
)


@dataclasses.dataclass(frozen=True)
class ImageMetrics:
    """What one picture contributes to the metrics.

    Attributes:
      id: Name of the picture; may hold any character.
      count_true: What the count is held against, by default the number of annotated head points.
      count_pred: Predicted count, the sum of the predicted density map.
      group_true: Count group of the picture, None where it is not known.
      group_pred: Predicted count group, None for models without a high-level prior.
      game: Sum over the cells of GAME(L) of |points - predicted sum|, for L = 0, 1, 2, 3, in
        people. `game[0]` is the absolute count error where `count_true` is their number.
      psnr: Decibels, see `psnr_ssim`; NaN where undefined.
      ssim: See `psnr_ssim`; NaN where undefined.
      stray: People counted in those of GAME(3)'s 8x8 cells that no head lies in; NaN where it is
        not known.
      brightness: Mean grey level, 0..255, of the picture as the network sees it; NaN where it is
        not known.
      spacing: Median distance from a head to the nearest other, in pixels of the same; NaN with
        fewer than two heads, or where it is not known.
    """

    id: str
    count_true: float
    count_pred: float
    group_true: int | None
    group_pred: int | None
    game: tuple[float, ...]
    psnr: float = math.nan
    ssim: float = math.nan
    stray: float = math.nan
    brightness: float = math.nan
    spacing: float = math.nan

    @property
    def error(self) -> float:
        """Signed count error, prediction minus truth, in people."""
        return self.count_pred - self.count_true


def measure(
    id: str,
    density_pred: np.ndarray,
    points: np.ndarray,
    density_true: np.ndarray | None = None,
    group_true: int | None = None,
    group_pred: int | None = None,
    count_true: float | None = None,
    picture: np.ndarray | None = None,
) -> ImageMetrics:
    """Measures one picture.

    Args:
      id: Name of the picture.
      density_pred: [H, W] predicted density map in people per pixel, at the picture's size.
      points: [N, 2] head points (x, y) in pixels, 0-based. A point outside the picture counts, in
        the cell nearest to it.
      density_true: [H, W] ground-truth density map in people per pixel, or None when the quality
        of the map is not to be measured.
      group_true: Count group of the picture.
      group_pred: Predicted count group.
      count_true: What the count is held against; the number of head points by default.
      picture: [H, W, C] grey levels 0..255, or None when its brightness is not to be measured.

    Raises:
      ValueError: A shape is not the one stated.
    """
    density_pred = np.asarray(density_pred, np.float32)
    if density_pred.ndim != 2:
        raise ValueError(f"density_pred must be [H, W], got shape {density_pred.shape}")
    points = np.asarray(points, np.float64)
    points = points.reshape(0, 2) if points.size == 0 else points
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"points must be [N, 2], got shape {points.shape}")
    psnr, ssim = (math.nan, math.nan)
    if density_true is not None:
        psnr, ssim = psnr_ssim(density_pred, density_true)
    game, stray = _game(density_pred, points)
    return ImageMetrics(
        id=id,
        count_true=whole(len(points) if count_true is None else count_true),
        count_pred=float(density_pred.sum(dtype=np.float64)),
        group_true=None if group_true is None else int(group_true),
        group_pred=None if group_pred is None else int(group_pred),
        game=game,
        psnr=psnr,
        ssim=ssim,
        stray=stray,
        brightness=math.nan if picture is None else float(np.mean(picture, dtype=np.float64)),
        spacing=_spacing(points),
    )


def _spacing(points: np.ndarray) -> float:
    """Median distance from a head to the nearest other, pixels; NaN with fewer than two."""
    if len(points) < 2:
        return math.nan
    distances, _ = spatial.cKDTree(points).query(points, k=2)
    return float(np.median(distances[:, 1]))


def whole(number: float) -> float:
    """A whole number as an int, which is written without a decimal point."""
    return int(number) if float(number).is_integer() else float(number)


def _game(density: np.ndarray, points: np.ndarray) -> tuple[tuple[float, ...], float]:
    """GAME of one picture before averaging (Guerrero-Gomez-Olmedo et al., 2015), L = 0..3, and
    the people predicted in the cells of the last level that no head lies in.

    The picture is divided into 2^L x 2^L cells with boundaries floor(i * H / 2^L). The boundaries
    of one level are among those of the next, so coarser cells are sums of the finest ones.
    """
    splits = 2 ** GAME_LEVELS[-1]
    height, width = density.shape
    rows = np.arange(splits + 1) * height // splits
    cols = np.arange(splits + 1) * width // splits
    cells = np.array(
        [
            [density[a:b, c:d].sum(dtype=np.float64) for c, d in zip(cols, cols[1:])]
            for a, b in zip(rows, rows[1:])
        ]
    )
    # side="right" skips cells without pixels, which pictures smaller than the grid have.
    col = np.searchsorted(cols[1:-1], np.clip(np.floor(points[:, 0]), 0, width - 1), side="right")
    row = np.searchsorted(rows[1:-1], np.clip(np.floor(points[:, 1]), 0, height - 1), side="right")
    heads = np.bincount(row * splits + col, minlength=splits * splits).reshape(splits, splits)
    difference = cells - heads
    game = []
    for level in GAME_LEVELS:
        side = 2**level
        coarse = difference.reshape(side, splits // side, side, splits // side).sum(axis=(1, 3))
        game.append(float(np.abs(coarse).sum()))
    # The same expression as the count error, so that both agree to the last bit.
    game[0] = abs(float(density.sum(dtype=np.float64)) - len(points))
    return tuple(game), float(cells[heads == 0].sum())


def psnr_ssim(pred: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Quality of a density map by the convention of NWPU-Crowd (`MAP_QUALITY_CONVENTION`).

    The released code puts block sums where SSIM has means and variances. This is kept, so that
    numbers compare with the published ones: with proper means the constants C1 and C2 would drown
    maps of a few thousandths of a person per pixel, and every map would score nearly 1. The price
    is that single blocks may leave [-1, 1]. CSRNet's convention (both maps normalised) differs;
    never compare the two.

    Args:
      pred: [H, W] predicted density map in people per pixel.
      true: [H, W] ground-truth density map in people per pixel.

    Returns:
      (PSNR in decibels, SSIM). Both are NaN for a picture without people; PSNR is NaN when the
      maps are equal; SSIM is NaN for a picture smaller than one block.

    Raises:
      ValueError: The maps differ in shape or are not [H, W].
    """
    pred = np.asarray(pred, np.float64)
    true = np.asarray(true, np.float64)
    if pred.shape != true.shape or pred.ndim != 2:
        raise ValueError(f"maps must be [H, W] of one shape, got {pred.shape} and {true.shape}")
    peak = true.max(initial=0.0)
    if peak <= 0:
        return math.nan, math.nan
    mean_square = float(np.mean((pred - true) ** 2))
    psnr = math.nan
    if mean_square > 0:
        psnr = 20 * math.log10(peak / math.sqrt(mean_square))
    s_pred, s_true = _block_sums(pred), _block_sums(true)
    if s_true.size == 0:
        return psnr, math.nan
    squares = s_pred**2 + s_true**2
    product = s_pred * s_true
    variance = _block_sums(pred**2 + true**2) - squares
    covariance = _block_sums(pred * true) - product
    with np.errstate(divide="ignore", invalid="ignore"):
        blocks = (2 * product + _SSIM_C1) * (2 * covariance + _SSIM_C2)
        blocks /= (squares + _SSIM_C1) * (variance + _SSIM_C2)
    return psnr, float(blocks.mean())


def _block_sums(a: np.ndarray) -> np.ndarray:
    """Sums over whole 11x11 blocks from the upper left corner; what is left over is dropped."""
    rows, cols = (side // _SSIM_BLOCK for side in a.shape)
    a = a[: rows * _SSIM_BLOCK, : cols * _SSIM_BLOCK]
    return a.reshape(rows, _SSIM_BLOCK, cols, _SSIM_BLOCK).sum(axis=(1, 3))


@dataclasses.dataclass(frozen=True, eq=False)
class CountMetrics:
    """Sums over pictures, each a (sum, count) pair in float64, from which the metrics follow.

    Parts of a data set can be added up in any order.
    """

    sums: np.ndarray
    counts: np.ndarray

    @classmethod
    def empty(cls) -> "CountMetrics":
        """No picture yet."""
        return cls(np.zeros(len(_QUANTITIES)), np.zeros(len(_QUANTITIES)))

    def add(self, image: ImageMetrics) -> "CountMetrics":
        """Returns the sums with one more picture."""
        error = image.error
        values = {
            "absolute_error": abs(error),
            "squared_error": error**2,
            **{f"game_{level}": image.game[level] for level in GAME_LEVELS},
            "count_true": image.count_true,
            "count_pred": image.count_pred,
        }
        if math.isfinite(image.stray):
            values["stray"] = image.stray
        if image.count_true > 0:
            values["normalized_error"] = abs(error) / image.count_true
        if math.isfinite(image.psnr):
            values["psnr"] = image.psnr
        if math.isfinite(image.ssim):
            values["ssim"] = image.ssim
        if image.group_true is not None and image.group_pred is not None:
            values["group_correct"] = float(image.group_true == image.group_pred)
        sums, counts = self.sums.copy(), self.counts.copy()
        for name, value in values.items():
            sums[_QUANTITIES.index(name)] += value
            counts[_QUANTITIES.index(name)] += 1
        return CountMetrics(sums, counts)

    def merge(self, other: "CountMetrics") -> "CountMetrics":
        """Returns the sums over the pictures of both."""
        return CountMetrics(self.sums + other.sums, self.counts + other.counts)

    def result(self) -> dict[str, float | int]:
        """The metrics; NaN for each that no picture contributed to.

        Returns:
          `mae`, `rmse` (called MSE in papers), `game_0` to `game_3` and the mean counts in people
          per picture; `nae` over the `nae_num_images` pictures with at least one person; `psnr` in
          decibels and `ssim` by `MAP_QUALITY_CONVENTION`; `stray`, people per picture counted where
          nobody is; `group_accuracy` from 0 to 1; `num_images`.
        """
        mean = {
            name: float(s / n) if n else math.nan
            for name, s, n in zip(_QUANTITIES, self.sums, self.counts)
        }
        number = {name: int(n) for name, n in zip(_QUANTITIES, self.counts)}
        return {
            "mae": mean["absolute_error"],
            "rmse": math.sqrt(mean["squared_error"]),
            "nae": mean["normalized_error"],
            "nae_num_images": number["normalized_error"],
            **{f"game_{level}": mean[f"game_{level}"] for level in GAME_LEVELS},
            "psnr": mean["psnr"],
            "ssim": mean["ssim"],
            "stray": mean["stray"],
            "group_accuracy": mean["group_correct"],
            "num_images": number["absolute_error"],
            "mean_count_true": mean["count_true"],
            "mean_count_pred": mean["count_pred"],
        }


def best_constant_mae(counts_train: Sequence[float], counts_test: Sequence[float]) -> float:
    """MAE, in people, of answering the median training count for every test picture.

    The median is the constant with the least MAE on the training pictures; a model worth having
    is well below it. NaN when either split is empty.
    """
    if len(counts_train) == 0 or len(counts_test) == 0:
        return math.nan
    constant = np.median(np.asarray(counts_train, np.float64))
    return float(np.mean(np.abs(np.asarray(counts_test, np.float64) - constant)))


@dataclasses.dataclass(frozen=True)
class DensityBin:
    """The errors over pictures whose true count lies in [low, high].

    `high` is None for the class without an upper end. `mae`, `bias` (mean signed error, prediction
    minus truth) and `mean_count_true` are in people per picture.
    """

    low: int
    high: int | None
    num_images: int
    mean_count_true: float
    mae: float
    bias: float

    @property
    def label(self) -> str:
        """Range of true counts, such as "26–50"."""
        if self.high is None:
            return f"{self.low}+"
        return str(self.low) if self.low == self.high else f"{self.low}–{self.high}"


def error_by_density(images: Sequence[ImageMetrics]) -> list[DensityBin]:
    """Errors by classes of the true count, sparse to dense; classes without pictures left out."""
    counts = np.array([image.count_true for image in images], np.float64)
    errors = np.array([image.error for image in images], np.float64)
    index = np.searchsorted(_DENSITY_EDGES, counts, side="left")
    bins = []
    for i in np.unique(index):
        inside = index == i
        bins.append(
            DensityBin(
                low=0 if i == 0 else _DENSITY_EDGES[i - 1] + 1,
                high=_DENSITY_EDGES[i] if i < len(_DENSITY_EDGES) else None,
                num_images=int(inside.sum()),
                mean_count_true=float(counts[inside].mean()),
                mae=float(np.abs(errors[inside]).mean()),
                bias=float(errors[inside].mean()),
            )
        )
    return bins


@dataclasses.dataclass(frozen=True)
class Third:
    """The errors over the third of the pictures that has least, middle or most of a quantity.

    `low` and `high` are its least and most there. `mae`, `bias` (mean signed error, prediction
    minus truth), `stray` and `mean_count_true` are in people per picture; `nae` is over the
    pictures with people, `stray` over those where it is known, and NaN where there are none.
    """

    low: float
    high: float
    num_images: int
    mean_count_true: float
    mae: float
    nae: float
    bias: float
    stray: float


def error_by_thirds(images: Sequence[ImageMetrics], quantity: str) -> list[Third]:
    """Errors by thirds of the pictures, from those with least of a quantity to those with most.

    Args:
      images: Of an evaluation; those where the quantity is not known are left out.
      quantity: 'brightness' or 'spacing'.

    Returns:
      Three, whose numbers of pictures differ by one at most; none of fewer than six pictures.
    """
    known = [image for image in images if math.isfinite(getattr(image, quantity))]
    if len(known) < _FEWEST_FOR_THIRDS:
        return []
    values = np.array([getattr(image, quantity) for image in known])
    thirds = []
    for part in np.array_split(values.argsort(kind="stable"), 3):
        total = CountMetrics.empty()
        for i in part.tolist():
            total = total.add(known[i])
        result = total.result()
        thirds.append(
            Third(
                low=float(values[part].min()),
                high=float(values[part].max()),
                num_images=len(part),
                mean_count_true=result["mean_count_true"],
                mae=result["mae"],
                nae=result["nae"],
                bias=result["mean_count_pred"] - result["mean_count_true"],
                stray=result["stray"],
            )
        )
    return thirds
