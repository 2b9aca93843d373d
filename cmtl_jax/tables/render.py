"""A table as text, Markdown or LaTeX."""

import re
import textwrap
import unicodedata

from cmtl_jax.tables.table import Cell, Number, Row, Table

_MEASURES = ("MAE", "MSE (RMSE)")
_NONE = "–"
_WIDTH = 100


def _number(number: Number) -> str:
    text = f"{number.value:.1f}"
    if number.deviation is not None:
        text += f" ± {number.deviation:.1f} (n={number.runs})"
    return text


def _two(cell: Cell | None) -> list[tuple[str, str]]:
    """MAE and MSE as (number, letter of the footnote)."""
    if cell is None:
        return [(_NONE, "")] * 2
    return [(_number(number), cell.note) for number in (cell.mae, cell.rmse)]


def _heads(table: Table) -> list[str]:
    return [f"{head} {measure}".strip() for head in table.columns.values() for measure in _MEASURES]


def _line(table: Table, row: Row, mark) -> list[str]:
    """The label and the numbers of a row, with marks for footnotes."""
    numbers = [pair for key in table.columns for pair in _two(row.cells.get(key))]
    return [text + mark(letter) for text, letter in [(row.label, row.note), *numbers]]


def text(table: Table) -> str:
    """For a terminal: columns aligned, footnotes below."""
    mark = lambda letter: f" ({letter})" if letter else ""  # noqa: E731
    heads = ["Method", *_heads(table)]
    sections = []
    for heading, rows in table.sections:
        cells = (_line(table, row, mark) for row in rows)
        sections.append((heading, [["  " + label, *numbers] for label, *numbers in cells]))
    lines = [heads] + [line for _, rows in sections for line in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]

    def align(line: list[str]) -> str:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        return "  ".join(cells).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    out = [table.title, rule, align(heads), rule]
    for heading, rows in sections:
        out += [heading, *map(align, rows), rule]
    for letter, note in table.footnotes.items():
        out.append(_wrapped(f"({letter}) {note}", indent=" " * (len(letter) + 3)))
    out += [_wrapped(note) for note in table.notes]
    return "\n".join(out) + "\n"


def _wrapped(note: str, indent: str = "") -> str:
    return textwrap.fill(
        note, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def markdown(table: Table) -> str:
    """A pipe table; headings of sections are rows, footnotes a list."""
    mark = lambda letter: f"<sup>{letter}</sup>" if letter else ""  # noqa: E731
    heads = ["Method", *_heads(table)]
    out = [f"**{_md(table.title)}**", "", _pipes(heads)]
    out.append(_pipes(["---", *["---:"] * (len(heads) - 1)]))
    for heading, rows in table.sections:
        out.append(_pipes([f"*{_md(heading)}*", *[""] * (len(heads) - 1)]))
        for row in rows:
            escaped = Row(_md(row.label), row.cells, row.note)
            out.append(_pipes(_line(table, escaped, mark)))
    out.append("")
    out += [f"- <sup>{letter}</sup> {_md(note)}" for letter, note in table.footnotes.items()]
    out += [f"- {_md(note)}" for note in table.notes]
    return "\n".join(out) + "\n"


def _pipes(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _md(words: str) -> str:
    return re.sub(r"([\\`*_|<>\[\]#~])", r"\\\1", words)


def latex(table: Table) -> str:
    r"""A table environment for a document with \usepackage{booktabs}."""
    mark = lambda letter: rf"\textsuperscript{{{letter}}}" if letter else ""  # noqa: E731
    number = 2 * len(table.columns)
    out = [
        r"\begin{table}",
        r"  \centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"  \caption{{{_tex(table.title.partition(': ')[2])}}}",
        rf"  \begin{{tabular}}{{p{{{0.28 if number > 2 else 0.5}\linewidth}}{'r' * number}}}",
        r"    \toprule",
    ]
    if any(table.columns.values()):
        heads = [rf"\multicolumn{{2}}{{c}}{{{_tex(head)}}}" for head in table.columns.values()]
        rules = [rf"\cmidrule(lr){{{i}-{i + 1}}}" for i in range(2, number + 2, 2)]
        out += ["    " + " & ".join(["", *heads]) + r" \\", "    " + "".join(rules)]
    out.append("    " + " & ".join(["Method", *_MEASURES * len(table.columns)]) + r" \\")
    for heading, rows in table.sections:
        title = rf"\multicolumn{{{number + 1}}}{{l}}{{\emph{{{_tex(heading)}}}}} \\"
        out += [r"    \midrule", f"    {title}"]
        for row in rows:
            cells = _line(table, row, lambda letter: f"\0{letter}\0")
            cells = [re.sub("\0(\\w*)\0", lambda m: mark(m[1]), _tex(cell)) for cell in cells]
            out.append(r"    \raggedright " + " & ".join(cells) + r" \\")
    out += [r"    \bottomrule", r"  \end{tabular}", r"  \par\medskip"]
    notes = [mark(letter) + " " + _tex(note) for letter, note in table.footnotes.items()]
    notes += map(_tex, table.notes)
    out += [r"  \begin{minipage}{\linewidth}\sloppy"]
    out += [rf"    {note}\par" for note in notes]
    out += [r"  \end{minipage}", r"\end{table}"]
    return "\n".join(out) + "\n"


_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_\allowbreak{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "–": "--", "<": r"\textless{}", ">": r"\textgreater{}", '"': r"\textquotedbl{}",
    "/": r"/\allowbreak{}", "…": r"\ldots{}",
}  # fmt: skip


def _tex(words: str) -> str:
    """Escaped for LaTeX; letters that its usual fonts lack lose what is above them, or become ?."""
    out = []
    for letter in words:
        if letter in _TEX:
            out.append(_TEX[letter])
        elif letter == "\0" or (letter.isascii() and letter.isprintable()):
            out.append(letter)
        else:
            plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
            out.append("".join(_TEX.get(c, c) for c in plain if c.isprintable()) or "?")
    return "".join(out)


FORMATS = {"text": text, "markdown": markdown, "latex": latex}
