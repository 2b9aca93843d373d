"""A table to be shown: published rows, own rows by their protocol, own rows by another."""

import collections
import dataclasses
import json
import statistics
from collections.abc import Iterable, Sequence

from cmtl_jax.tables.published import PublishedTable
from cmtl_jax.tables.results import Result

_TESTED = ("test", "cross-validation")
_OWN = "cmtl_jax, on the same test pictures"
_OTHER = "cmtl_jax, by ANOTHER PROTOCOL: not comparable with the rows above"

# Different for every run, or said elsewhere in a footnote.
_OF_A_RUN = ("weights", "trained on", "trained by", "evaluated by")


@dataclasses.dataclass(frozen=True)
class Number:
    """A number, or the mean of several runs with their standard deviation (n - 1)."""

    value: float
    deviation: float | None = None
    runs: int = 1


@dataclasses.dataclass(frozen=True)
class Cell:
    """MAE and RMSE of one system on one data set; `note` is the letter of their footnote."""

    mae: Number
    rmse: Number
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """A system; `cells` by the columns' keys; `note` is the letter of the system's footnote."""

    label: str
    cells: dict[str, Cell]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """What is rendered.

    Attributes:
        title: of the table.
        columns: key -> head; an empty head has no line of its own.
        sections: heading and rows of each part.
        footnotes: letter -> text.
        notes: of the whole table.
    """

    title: str
    columns: dict[str, str]
    sections: list[tuple[str, list[Row]]]
    footnotes: dict[str, str]
    notes: tuple[str, ...]


def build(published: PublishedTable, results: Sequence[Result]) -> Table:
    """The published table with the results that are of its data sets.

    Runs that differ in nothing but the seed become one row: mean, standard deviation, number.
    """
    footnotes: dict[str, str] = {}

    def note(text: str) -> str:
        letter = _letters(len(footnotes))
        footnotes[letter] = text
        return letter

    rows = [
        Row(
            row.method,
            {
                column: Cell(Number(mae), Number(rmse))
                for column, (mae, rmse) in row.numbers.items()
            },
            note("; ".join(row.notes)) if row.notes else "",
        )
        for row in published.rows
    ]
    sections = [("Published", rows)]
    mine = [result for result in results if result.data_set in published.columns]
    for heading, comparable in ((_OWN, True), (_OTHER, False)):
        groups = _groups(r for r in mine if (not _reasons(r, published)) == comparable)
        if groups:
            sections.append((heading, _rows(groups, published, note)))
    return Table(published.title, published.columns, sections, footnotes, published.notes)


def _reasons(result: Result, published: PublishedTable) -> list[str]:
    """Why a result does not stand beside the published ones."""
    reasons = []
    if result.split not in _TESTED:
        reasons.append(
            {
                "val": "validation pictures, held out of the training pictures",
                "train": "training pictures",
            }.get(result.split, result.split.replace("_", " ") + " pictures alone")
        )
    elif result.num_images != published.num_images[result.data_set]:
        reasons.append(
            f"{result.num_images} of the {published.num_images[result.data_set]} test pictures"
        )
    trained_on = _trained_on(result)
    if not trained_on.startswith((result.data_set, "not known")):
        reasons.append(f"trained on {trained_on}")
    return reasons


def _trained_on(result: Result) -> str:
    return result.protocol["trained on"].partition(", preset ")[0]


def _groups(results: Iterable[Result]) -> list[list[Result]]:
    """Results of one system and protocol, with different seeds, together."""
    groups: dict[tuple, list[Result]] = {}
    seen: collections.Counter = collections.Counter()
    for result in results:
        protocol = {k: v for k, v in result.protocol.items() if k not in _OF_A_RUN}
        about = [result.num_images, dict(result.settings), protocol]
        if not result.settings:  # nothing says that two such are of one system
            about.append(result.protocol.get("weights"))
        key = (
            result.system,
            result.data_set,
            result.split,
            json.dumps(about, sort_keys=True),
        )
        # A seed that comes again is a run of its own: its deviation is not that of seeds.
        again = seen[(*key, result.seed)]
        seen[(*key, result.seed)] += 1
        groups.setdefault((*key, again), []).append(result)
    return list(groups.values())


def _rows(groups: list[list[Result]], published: PublishedTable, note) -> list[Row]:
    """One row for a system with one group a column, else one row for each group."""
    systems: dict[str, list[list[Result]]] = {}
    for group in groups:
        systems.setdefault(group[0].system, []).append(group)
    rows = []
    for system, own in sorted(systems.items()):
        columns = [group[0].data_set for group in own]
        together = len(set(columns)) == len(columns)
        for part in [own] if together else [[group] for group in own]:
            cells = {}
            for group in sorted(part, key=lambda g: list(published.columns).index(g[0].data_set)):
                differing = [] if together else _differing(group, own)
                cells[group[0].data_set] = _cell(group, published, differing, note)
            rows.append(Row(system, cells))
    return rows


def _differing(group: list[Result], others: list[list[Result]]) -> list[str]:
    """The settings that tell a group from the others of its system and data set."""
    peers = [other[0] for other in others if other[0].data_set == group[0].data_set]
    keys = sorted({key for peer in peers for key in peer.settings})
    return [
        f"{key}={group[0].settings.get(key, 'not known')}"
        for key in keys
        if len({peer.settings.get(key) for peer in peers}) > 1
    ]


def _cell(group: list[Result], published: PublishedTable, differing: list[str], note) -> Cell:
    numbers = []
    for name in ("mae", "rmse"):
        values = [getattr(result, name) for result in group]
        deviation = statistics.stdev(values) if len(values) > 1 else None
        numbers.append(Number(statistics.fmean(values), deviation, len(values)))
    return Cell(*numbers, note("; ".join(_footnote(group, published, differing))))


def _footnote(
    group: list[Result], published: PublishedTable, differing: list[str]
) -> Iterable[str]:
    """The protocol of a number, in parts."""
    first = group[0]
    protocol = first.protocol
    for reason in _reasons(first, published):
        yield f"NOT the published protocol: {reason}"
    where = f"{first.data_set}, {first.split}, {first.num_images} pictures"
    yield where if "folds" not in protocol else f"{where}, folds: {protocol['folds']}"
    if len(group) > 1:
        each = ", ".join(f"{r.mae:.1f} / {r.rmse:.1f}" for r in group)
        yield f"mean ± standard deviation (n - 1) of {len(group)} seeds: MAE / MSE {each}"
    if first.folds:
        yield "MSE pooled over all pictures" + "".join(
            f", mean of the folds' {r.rmse_mean_of_folds:.1f}" for r in group
        )
        for result in group:
            yield "MAE / MSE of each fold: " + ", ".join(
                f"{fold['mae']:.1f} / {fold['rmse']:.1f}" for fold in result.folds.values()
            )
    for name in ("pictures", "ground truth", "selection"):
        if name in protocol:
            yield f"{name}: {protocol[name]}"
    if differing:
        yield "with " + ", ".join(differing)
    plural = "s" if len(group) > 1 else ""
    seeds = ("not known" if result.seed is None else str(result.seed) for result in group)
    yield f"seed{plural} " + ", ".join(seeds)
    mean_of = protocol.get("mean of the weights of")
    steps = "weights of step " + ", ".join(map(_steps, group))
    yield f"mean of the weights of {mean_of}" if mean_of else steps
    yield f"trained on {_trained_on(first)}, pictures sha256 {_short(protocol)}"
    for name in ("trained by", "evaluated by"):
        said = sorted({r.protocol[name] for r in group if name in r.protocol})
        if said:
            yield f"{name} {', '.join(said)}"
    yield ", ".join(str(result.workdir) for result in group)


def _steps(result: Result) -> str:
    if result.step is None:
        return "not known"
    steps = result.step if isinstance(result.step, tuple) else (result.step,)
    return "/".join(map(str, steps))


def _short(protocol) -> str:
    """The first eight letters of each hash."""
    text = protocol.get("training pictures sha256") or "not known"
    words = [part.split()[-1] for part in text.split("; ")]
    if all(len(word) == 64 for word in words):
        return "/".join(word[:8] for word in words)
    return text


def _letters(number: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return letters
