"""Plots of an evaluation as PNG bytes, for light and for dark pages.

Figures are made without pyplot, which keeps global state and may look for a display.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
)

from cmtl_jax.metrics import ImageMetrics, error_by_density

_DPI = 150


class _Theme:
    """Colours of a plot."""

    def __init__(self, dark: bool):
        self.page = "#1b1d22" if dark else "#ffffff"
        self.text = "#e4e6eb" if dark else "#22252b"
        self.quiet = "#8d93a0" if dark else "#6b7280"
        self.grid = "#33373f" if dark else "#e6e8ec"
        self.first = "#6ea8fe" if dark else "#2563eb"
        self.second = "#ffb454" if dark else "#d97706"


def scatter(images: Sequence[ImageMetrics], dark: bool = False) -> bytes:
    """Predicted over true counts, one dot a picture, with the line where both are equal.

    The axes are logarithmic when the counts span more than a factor of ten; linear from 0 to 1
    where there are pictures without people.

    Args:
      images: At least one picture.
      dark: Whether the plot goes on a dark page.

    Returns:
      A PNG file.
    """
    theme = _Theme(dark)
    figure, axes = _figure(theme, 5.2, 4.8)
    true = np.array([image.count_true for image in images], np.float64)
    pred = np.array([image.count_pred for image in images], np.float64)
    true, pred = true[np.isfinite(pred)], pred[np.isfinite(pred)]
    both = np.concatenate([true, pred, [0.0]] if true.size == 0 else [true, pred])
    low, high = float(both.min()), float(both.max())
    positive = both[both > 0]
    if positive.size and high > 10 * max(1.0, positive.min()):
        if low >= 1:
            scale, limits = {"value": "log"}, (low / 1.25, high * 1.25)
        else:
            scale = {"value": "symlog", "linthresh": 1.0, "linscale": 0.4}
            limits = (-0.3 if low >= 0 else low * 1.25, high * 1.25)
        axes.set_xscale(**scale)
        axes.set_yscale(**scale)
    else:
        margin = 0.05 * max(high - low, 1.0)
        limits = (low - margin, high + margin)
    axes.plot(limits, limits, color=theme.quiet, linewidth=1, linestyle=(0, (5, 4)), zorder=1)
    size = 26 if len(true) <= 400 else 12
    axes.scatter(
        true, pred, s=size, color=theme.first, alpha=0.6, linewidths=0, zorder=2, clip_on=False
    )
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.set_xlabel("true count")
    axes.set_ylabel("predicted count")
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() != "linear":
            marks = (1, 2, 5) if high < 300 * max(low, 1.0) else (1,)
            ticks = [k * 10.0**e for e in range(8) for k in marks]
            below = [0.0, *(-tick for tick in ticks)] if low < 1 else []
            axis.set_major_locator(FixedLocator([*below, *ticks]))
            axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(_plain))
    axes.grid(color=theme.grid, linewidth=0.8)
    return _png(figure)


def density_errors(images: Sequence[ImageMetrics], dark: bool = False) -> bytes:
    """Mean absolute and mean signed error (bias) by classes of the true count.

    Args:
      images: At least one picture.
      dark: Whether the plot goes on a dark page.

    Returns:
      A PNG file.
    """
    theme = _Theme(dark)
    figure, axes = _figure(theme, 5.2, 3.9)
    bins = error_by_density(images)
    at = np.arange(len(bins))
    for offset, color, label, values in (
        (-0.2, theme.first, "mean absolute error", [b.mae for b in bins]),
        (0.2, theme.second, "bias (mean signed error)", [b.bias for b in bins]),
    ):
        axes.bar(at + offset, values, 0.38, color=color, label=label, zorder=2)
    axes.axhline(0, color=theme.quiet, linewidth=1, zorder=3)
    axes.set_xticks(at, [f"{b.label}\nn = {b.num_images}" for b in bins])
    axes.set_xlim(-0.6, max(len(bins) - 0.4, 0.6))
    small = 9 if len(bins) <= 6 else 6
    axes.set_xlabel("people in the picture (n: number of pictures)")
    axes.set_ylabel("error (people per picture)")
    axes.yaxis.set_major_formatter(FuncFormatter(_plain))
    axes.tick_params(axis="x", length=0, labelsize=small)
    axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    _legend(axes, theme)
    return _png(figure)


def error_histogram(images: Sequence[ImageMetrics], dark: bool = False) -> bytes:
    """Histogram of the signed errors, with their mean and median.

    Args:
      images: At least one picture.
      dark: Whether the plot goes on a dark page.

    Returns:
      A PNG file.
    """
    theme = _Theme(dark)
    figure, axes = _figure(theme, 5.2, 3.9)
    errors = np.array([image.error for image in images], np.float64)
    errors = errors[np.isfinite(errors)]
    if errors.size:
        edges = np.histogram_bin_edges(errors, "auto" if np.ptp(errors) > 0 else 1)
        if not 8 <= len(edges) <= 60 and np.ptp(errors) > 0:
            edges = np.linspace(errors.min(), errors.max(), 9 if len(edges) < 8 else 61)
        axes.hist(errors, edges, color=theme.first, alpha=0.85, zorder=2)
        axes.axvline(0, color=theme.quiet, linewidth=1, zorder=3)
        for value, name, style in (
            (errors.mean(), "mean (bias)", "-"),
            (np.median(errors), "median", (0, (4, 3))),
        ):
            label = f"{name} {value:+.1f}".replace("-", "−")
            axes.axvline(
                value, color=theme.second, linewidth=1.6, linestyle=style, label=label, zorder=4
            )
        _legend(axes, theme)
    axes.set_xlabel("predicted count − true count (people)")
    axes.set_ylabel("pictures")
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    return _png(figure)


def learning_curve(curve: Sequence[Mapping], dark: bool = False) -> bytes | None:
    """Validation MAE and training losses over the steps.

    Args:
      curve: Rows of a metrics.jsonl file: dicts with `step` and numbers; those whose name ends in
        "mae" go into one panel, those whose name ends in "loss" into another. Names may carry
        prefixes set off by "_", "/" or ".", such as "val_mae" or "train/loss".
      dark: Whether the plot goes on a dark page.

    Returns:
      A PNG file, or None when no row has any of these.
    """
    panels = []
    for word, label in (("mae", "MAE (people)"), ("loss", "loss")):
        series = _series(curve, word)
        if series:
            panels.append((word, label, series))
    if not panels:
        return None
    theme = _Theme(dark)
    figure = Figure(figsize=(8.6, 2.7 * len(panels)), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.patch.set_facecolor(theme.page)
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    colors = [theme.first, theme.second, "#10b981", "#e5534b", "#a371f7", "#8d93a0"]
    for axes, (word, label, series) in zip(all_axes, panels):
        _style(axes, theme)
        smallest = math.inf
        for i, (name, (steps, values)) in enumerate(sorted(series.items())):
            color = colors[i % len(colors)]
            smallest = min(smallest, values.min())
            dense = len(steps) > 200
            axes.plot(
                steps,
                values,
                color=color,
                linewidth=0.8 if dense else 1.6,
                alpha=0.3 if dense else 1.0,
                marker="o" if len(steps) <= 60 else None,
                markersize=3.5,
                label=None if dense else name,
            )
            if dense:
                width = len(steps) // 50
                smooth = np.convolve(values, np.full(width, 1 / width), "valid")
                middle = steps[(width - 1) // 2 :][: len(smooth)]
                axes.plot(middle, smooth, color=color, linewidth=1.8, label=name)
            if word == "mae":
                best = int(values.argmin())
                axes.annotate(
                    f"{values[best]:.4g} at step {steps[best]:,.0f}",
                    (steps[best], values[best]),
                    xytext=(0, 12),
                    textcoords="offset points",
                    ha="center" if 0.15 < best / len(steps) < 0.8 else "right" if best else "left",
                    color=theme.text,
                    fontsize=8.5,
                )
                axes.plot(steps[best], values[best], "o", color=color, markersize=7)
        if word == "loss" and smallest > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(_plain))
        axes.set_ylabel(label)
        axes.grid(color=theme.grid, linewidth=0.8)
        _legend(axes, theme, loc="lower right", bbox_to_anchor=(1, 1), ncols=4)  # above the lines
    all_axes[-1].set_xlabel("training step")
    all_axes[-1].xaxis.set_major_formatter(FuncFormatter(_plain))
    return _png(figure)


def _series(curve: Sequence[Mapping], word: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rows: dict[str, dict[float, float]] = {}
    for row in curve:
        step = row.get("step")
        if not _is_number(step):
            continue
        for name, value in row.items():
            if re.split(r"[_/.]", str(name).lower())[-1] == word and _is_number(value):
                rows.setdefault(str(name), {})[float(step)] = float(value)
    result = {}
    for name, points in rows.items():
        ordered = sorted(points.items())
        result[name] = tuple(np.array(column) for column in zip(*ordered))
    return result


def _is_number(value: object) -> bool:
    is_real = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return is_real and math.isfinite(value)


def _plain(value: float, _: int | None = None) -> str:
    """Tick label such as 1,000 or −2.5."""
    return f"{value:,.6g}".replace("-", "−")


def _figure(theme: _Theme, width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.patch.set_facecolor(theme.page)
    axes = figure.subplots()
    _style(axes, theme)
    return figure, axes


def _style(axes: Axes, theme: _Theme) -> None:
    axes.set_facecolor(theme.page)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.quiet)
    axes.tick_params(which="both", colors=theme.quiet, labelcolor=theme.text, labelsize=9)
    axes.xaxis.label.set_color(theme.text)
    axes.yaxis.label.set_color(theme.text)


def _legend(axes: Axes, theme: _Theme, **place) -> None:
    axes.legend(frameon=False, labelcolor=theme.text, fontsize=9, **place)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
