"""One finding of a check: how bad it is, what is so, what to do about it."""

import dataclasses
import json
from collections.abc import Iterable, Sequence

from cmtl_jax.escape import printable

OK, NOTE, WARNING, ERROR = MARKS = ("OK", "NOTE", "WARNING", "ERROR")

_NAMED = 3  # files that a line names


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        mark: 'OK'; 'NOTE', worth knowing; 'WARNING', results will suffer; 'ERROR', it cannot work.
        name: of the check, such as 'points.swapped'; the same whatever was found.
        what: what was found.
        advice: what to do; empty where nothing is.
        files: all that are concerned, in order; the text names the first.
        subject: what was checked, where there are several, such as 'shanghaitech/part_b'.
    """

    mark: str
    name: str
    what: str
    advice: str = ""
    files: Sequence[str] = ()
    subject: str = ""

    def __str__(self) -> str:
        """One line, whatever a file's name holds."""
        subject = f"{self.subject} " if self.subject else ""
        unnamed = [file for file in self.files if file not in self.what]
        files = f" ({some(unnamed)})" if unnamed else ""
        advice = f"; {self.advice}" if self.advice else ""
        return printable(f"{self.mark:<8} {subject}{self.name}: {self.what}{files}{advice}")

    def to_json(self) -> str:
        """One JSON object on one line."""
        return json.dumps(dataclasses.asdict(self) | {"files": list(self.files)})


def some(names: Sequence[str]) -> str:
    """The first names and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def report(findings: Iterable[Finding], *, as_json: bool) -> int:
    """Prints each finding as it comes and the summary.

    Returns:
        Exit status: 1 with an error among them, else 0.
    """
    counts = dict.fromkeys(MARKS, 0)
    for finding in findings:
        counts[finding.mark] += 1
        print(finding.to_json() if as_json else finding, flush=True)
    status = int(counts[ERROR] > 0)
    if as_json:
        print(json.dumps({"summary": counts, "status": status}), flush=True)
    else:
        print(_summary(counts), flush=True)
    return status


def _summary(counts: dict[str, int]) -> str:
    words = {ERROR: "error", WARNING: "warning", NOTE: "note"}
    bad = [f"{n} {word}{'s' * (n != 1)}" for mark, word in words.items() if (n := counts[mark])]
    return ", ".join([*bad, f"{counts[OK]} OK"])
