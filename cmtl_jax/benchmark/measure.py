"""Repeated measurements of sides that take turns."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Collection, Mapping

DROP = 1.5  # a variant that takes this many times the best one's value gets no further round
LEAST_ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Values:
    """What was measured of one side, round by round; seconds or bytes."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def least(self) -> float:
        return min(self.values)

    @property
    def most(self) -> float:
        return max(self.values)


def alternate(
    sides: Mapping[str, Callable[[], float]],
    *,
    repeats: int,
    seconds: float,
    variants: Collection[str] = (),
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Values]:
    """Measures sides in rounds, all of them once in each.

    The order is reversed from round to round, so that none always follows the same other. Of the
    variants, of which the best alone counts, those far behind after the first round are left alone:
    their value is that of the first round.

    Args:
        sides: measures once and gives the value, such as seconds, by name.
        repeats: rounds.
        seconds: no further round begins after that long, but for the first LEAST_ROUNDS.
        variants: names of sides.
        clock: seconds that passed.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    running = list(sides)
    began = clock()
    for number in range(repeats):
        if number >= LEAST_ROUNDS and clock() - began > seconds:
            break
        for name in running if number % 2 == 0 else reversed(running):
            found[name].append(sides[name]())
        if number == 0 and variants:
            bound = DROP * min(found[name][0] for name in variants)
            running = [n for n in running if n not in variants or found[n][0] <= bound]
    return {name: Values(tuple(values)) for name, values in found.items()}
