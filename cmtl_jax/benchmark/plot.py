"""Curves of how cost grows, as a PNG."""

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from cmtl_jax.benchmark.curve import Curve

_OURS, _TORCH = "#2563eb", "#d97706"
_QUIET = "#6b7280"
_COLUMNS = 2
_LINES = {1: "in proportion", 0: "no change", -1: "shared evenly"}


def growth(curves: Sequence[Curve], note: str = "") -> bytes:
    """A panel for each curve: medians with their spread, on logarithmic axes.

    The dotted line is what cost would follow, see Curve.power: through our last point where it
    grows in proportion, through our first where it should not grow.

    Args:
        curves: at least one.
        note: of the machine, below the panels.

    Returns:
        The bytes of a PNG.
    """
    rows = -(-len(curves) // _COLUMNS)
    figure = Figure(figsize=(11, 3.9 * rows), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, min(_COLUMNS, len(curves)), squeeze=False).ravel()
    for axes, curve in zip(panels, curves, strict=False):
        _panel(axes, curve)
    for axes in panels[len(curves) :]:
        axes.remove()
    if note:
        figure.supxlabel(note, fontsize=8, color=_QUIET)
    with io.BytesIO() as file:
        figure.savefig(file, format="png")
        return file.getvalue()


def _panel(axes: Axes, curve: Curve) -> None:
    axes.set_xscale("log")
    grows = curve.power > 0
    if grows:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    sides = [(curve.ours, _OURS, "cmtl_jax", "o")]
    if curve.torch:
        sides.append((curve.torch, _TORCH, f"PyTorch, {curve.variant}", "s"))
    for found, colour, label, marker in sides:
        medians = [values.median for values in found]
        spread = [
            [values.median - values.least for values in found],
            [values.most - values.median for values in found],
        ]
        axes.errorbar(
            curve.x, medians, yerr=spread, color=colour, label=label, marker=marker,
            markersize=5, linewidth=1.6, capsize=3,
        )  # fmt: skip
    at = -1 if grows else 0
    line = [curve.ours[at].median * (x / curve.x[at]) ** curve.power for x in curve.x]
    axes.plot(curve.x, line, color=_QUIET, linestyle=":", linewidth=1, label=_LINES[curve.power])
    if not grows:
        axes.set_ylim(bottom=0)
    axes.set_title(curve.title, fontsize=10)
    axes.set_xlabel(curve.name)
    axes.set_ylabel("seconds")
    axes.xaxis.set_major_locator(FixedLocator(curve.x))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _short(x)))
    axes.grid(True, color="#e6e8ec", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


def _short(x: float) -> str:
    for bound, name in ((1e6, "M"), (1e3, "k")):
        if x >= bound:
            return f"{x / bound:.3g}{name}"
    return f"{x:g}"
