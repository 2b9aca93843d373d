"""A report as text: tables that are Markdown, aligned for a terminal."""

from collections.abc import Sequence

from cmtl_jax.benchmark import machine
from cmtl_jax.benchmark.measure import Values
from cmtl_jax.benchmark.report import Report
from cmtl_jax.benchmark.row import NOT_MEASURED, Row
from cmtl_jax.benchmark.targets import GIB

_NONE = "–"
_HEADS = (
    "what", "precision", "cmtl_jax", "PyTorch's best", "Mpx/s", "GFLOP/s", "of peak", "ratio",
    "at most", "dream", "",
)  # fmt: skip
_LEFT = 4  # columns of text; the others are numbers


def text(report: Report) -> str:
    """Machine, table, what is to be said of single rows, and how cost grows."""
    lines = [*_about(report), ""]
    if report.rows:
        lines += [*_table(_HEADS, [_line(report, row) for row in report.rows]), ""]
        lines += [
            "Median (least to most). Mpx/s and GFLOP/s are ours; operations are those of plain",
            "convolutions, and their peak is the best matrix product of either side. Ratio: our",
            "median / that of PyTorch's best variant, in the same precision.",
        ]
        if remarks := [line for row in report.rows for line in _remarks(row)]:
            lines += ["", *remarks]
    for curve in report.curves:
        heads, sides = [curve.name, "cmtl_jax"], [curve.ours]
        if curve.torch:
            heads.append(f"PyTorch, {curve.variant}")
            sides.append(curve.torch)
        cells = [
            [f"{x:g}", *(values(found, "seconds") for found in points)]
            for x, *points in zip(curve.x, *sides, strict=True)
        ]
        lines += ["", f"{curve.title}; growth at the end: exponent {curve.exponent():.2f}", ""]
        lines += _table(heads, cells)
    return "\n".join(lines) + "\n"


def values(found: Values | None, unit: str) -> str:
    """Median (least to most) with its unit, such as '1.23 s (1.20–1.31)'."""
    if found is None:
        return "failed"
    divisor, name = _unit(found.median, unit)
    median, least, most = (_number(x / divisor) for x in (found.median, found.least, found.most))
    return f"{median} {name}" + (f" ({least}–{most})" if len(found.values) > 1 else "")


def _unit(value: float, unit: str) -> tuple[float, str]:
    if unit == "bytes":
        return (GIB, "GiB") if value >= GIB else (2**20, "MiB")
    return (1.0, "s") if value >= 1 else (1e-3, "ms")


def _number(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def busy(report: Report) -> bool:
    """Whether others had work for the machine when the measurements began."""
    before = report.machine["load_before"]
    return before is not None and before > machine.BUSY_LOAD


def _about(report: Report) -> list[str]:
    m, ours = report.machine, report.programs["ours"]
    torch = report.programs.get("torch")
    memory = "" if m["memory_bytes"] is None else f", {m['memory_bytes'] / GIB:.0f} GiB"
    instructions = f" ({', '.join(m['instructions'])})" if m["instructions"] else ""
    lines = [
        f"machine: {m['processor']}{instructions}, {m['cores']} cores{memory}, {m['system']}",
        f"programs: {ours['program']}; Python {m['python']}, JAX {ours['jax']} on "
        f"{len(ours['devices'])} x {ours['devices'][0]}",
        "PyTorch: not measured"
        if torch is None
        else f"PyTorch: {torch['torch']}, {torch['threads']} threads"
        + (f", {torch['cuda']}" if torch["cuda"] else ""),
    ]
    for precision, found in report.products.items():
        rates = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in found.items())
        lines.append(f"matrix product in {precision}, GFLOP/s: {rates}")
    if m["load_before"] is not None:
        lines.append(f"load before: {m['load_before']:.2f}, after: {m.get('load_after', 0):.2f}")
    if busy(report):
        lines.append(
            "WARNING: the machine was busy before the measurements began; times say little"
        )
    if report.settings.get("trial"):
        lines.append("TRIAL: small sizes, done once; the times say nothing")
    return lines


def _line(report: Report, row: Row) -> list[str]:
    best = _NONE
    if row.best is not None:
        best = f"{values(row.torch[row.best], row.unit)}, {row.best}"
    pixels = rate = share = _NONE
    timed = row.ours is not None and row.unit == "seconds"
    if timed and row.pixels:
        pixels = _number(row.pixels / row.ours.median / 1e6)
    if timed and row.operations:
        per_second = row.operations / row.ours.median
        rate = _number(per_second / 1e9)
        if peak := report.peak(row.precision):
            share = f"{per_second / peak:.0%}"
    # Times of a busy machine, or of a trial, prove nothing.
    proves = row.verdict in ("", NOT_MEASURED) or not (
        busy(report) or report.settings.get("trial")
    )
    most = dream = _NONE
    if (target := row.target) is not None:
        most, dream = (_bound(x, target.of) for x in (target.at_most, target.dream))
    ratio = _NONE if row.ratio is None else f"{row.ratio:.2f}"
    return [
        row.title, row.precision or _NONE, values(row.ours, row.unit), best, pixels, rate, share,
        ratio, most, dream, row.verdict + ("" if proves else "?"),
    ]  # fmt: skip


def _bound(value: float | None, of: str) -> str:
    if value is None:
        return _NONE
    if of == "ratio":
        return f"{value:g}"
    divisor, name = _unit(value, of)
    return f"{value / divisor:g} {name}"


def _remarks(row: Row) -> list[str]:
    name = f"- {row.title} {row.precision}".rstrip()
    said = [f"{name}: {note}" for note in row.notes]
    return said + [f"{name}: {variant} left out: {why}" for variant, why in row.left_out.items()]


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in (heads, *lines)) for i in range(len(heads))]

    def joined(cells: Sequence[str]) -> str:
        aligned = [
            cell.ljust(width) if i < _LEFT else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(aligned) + " |"

    rule = [
        "-" * (width + 2) if i < _LEFT else "-" * (width + 1) + ":"
        for i, width in enumerate(widths)
    ]
    return [joined(heads), "|" + "|".join(rule) + "|", *map(joined, lines)]
