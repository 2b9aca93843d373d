"""What a worker process repeats and measures."""

import dataclasses
from collections.abc import Callable
from typing import Any


def _nothing() -> None:
    pass


@dataclasses.dataclass(frozen=True)
class Task:
    """Work that is set up.

    Attributes:
        run: does it once; on a GPU it may come back before it is done.
        wait: comes back when all of it is done.
        result: numbers of the last run, for checks.
    """

    run: Callable[[], None]
    wait: Callable[[], None] = _nothing
    result: Callable[[], dict[str, Any]] = dict
