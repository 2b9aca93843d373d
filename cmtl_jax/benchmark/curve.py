"""How cost grows: measured points over one quantity."""

import dataclasses
import math
from typing import Any

from cmtl_jax.benchmark.measure import Values


@dataclasses.dataclass(frozen=True)
class Curve:
    """Seconds over a quantity.

    Attributes:
        name: of the quantity: 'pictures', 'pixels', 'batch' or 'devices'.
        title: for people.
        x: the quantity, ascending.
        ours: seconds at each.
        torch: PyTorch's; empty where it was not measured.
        variant: of PyTorch.
        power: of the quantity that cost would follow: 1 in proportion, 0 no change, -1 shared.
    """

    name: str
    title: str
    x: tuple[float, ...]
    ours: tuple[Values, ...]
    torch: tuple[Values, ...] = ()
    variant: str = ""
    power: int = 1

    def exponent(self) -> float:
        """Slope of our last two points on logarithmic axes: 1 where cost grows in proportion."""
        if len(self.x) < 2:
            return math.nan
        (a, b), (s, t) = self.x[-2:], (values.median for values in self.ours[-2:])
        return math.log(t / s) / math.log(b / a)

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return dataclasses.asdict(self) | {"exponent": self.exponent()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Curve":
        """The inverse of to_json."""

        def of(points: list[dict[str, Any]]) -> tuple[Values, ...]:
            return tuple(Values(tuple(point["values"])) for point in points)

        return cls(
            data["name"], data["title"], tuple(data["x"]), of(data["ours"]), of(data["torch"]),
            data["variant"], data["power"],
        )  # fmt: skip
