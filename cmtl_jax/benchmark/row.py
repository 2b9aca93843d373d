"""A row of the benchmark: one thing measured, ours beside PyTorch's."""

import dataclasses
from typing import Any

from cmtl_jax.benchmark.measure import Values
from cmtl_jax.benchmark.targets import TARGETS, Target

NOT_MEASURED = "not measured"


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured.

    Attributes:
        key: room and what tells the rows of a room apart, such as 'train_step/8/float32'.
        title: for people.
        precision: of the products: 'float32', 'tensorfloat32' or 'bfloat16'; '' where none is.
        platform: 'cpu' or 'gpu'.
        unit: of the values, 'seconds' or 'bytes'.
        ours: our values; None where measuring failed.
        torch: PyTorch's by variant; empty where it was not measured.
        left_out: variant -> why it could not be measured.
        pixels: of one value's work; None where it means nothing.
        operations: of one value's work as plain convolutions need them; likewise.
        notes: sentences for people.
        details: further numbers by name.
    """

    key: str
    title: str
    precision: str
    platform: str
    unit: str
    ours: Values | None
    torch: dict[str, Values] = dataclasses.field(default_factory=dict)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    pixels: float | None = None
    operations: float | None = None
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def room(self) -> str:
        return self.key.split("/")[0]

    @property
    def best(self) -> str | None:
        """The variant of PyTorch with the least median; None without any."""
        return min(self.torch, key=lambda name: self.torch[name].median, default=None)

    @property
    def ratio(self) -> float | None:
        """Our median / that of PyTorch's best variant."""
        if self.ours is None or self.best is None:
            return None
        return self.ours.median / self.torch[self.best].median

    @property
    def target(self) -> Target | None:
        return TARGETS.get((self.platform, self.key))

    @property
    def verdict(self) -> str:
        """'dream', 'met' or 'missed'; 'not measured' with a target alone, '' without one."""
        if self.target is None:
            return ""
        if self.target.of == "ratio":
            value = self.ratio
        else:
            value = None if self.ours is None else self.ours.median
        return NOT_MEASURED if value is None else self.target.verdict(value)

    def to_json(self) -> dict[str, Any]:
        """All of it, what follows from it included."""

        def of(values: Values | None) -> dict[str, Any] | None:
            if values is None:
                return None
            return {
                "median": values.median, "least": values.least, "most": values.most,
                "values": list(values.values),
            }  # fmt: skip

        result = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("ours", "torch")
        }
        return result | {
            "ours": of(self.ours),
            "torch": {name: of(values) for name, values in self.torch.items()},
            "torch_best": self.best,
            "ratio": self.ratio,
            "target": None if self.target is None else self.target._asdict(),
            "verdict": self.verdict,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Row":
        """The inverse of to_json."""

        def of(values: dict[str, Any] | None) -> Values | None:
            return None if values is None else Values(tuple(values["values"]))

        names = {field.name for field in dataclasses.fields(cls)}
        fields = {name: value for name, value in data.items() if name in names}
        return cls(
            **fields
            | {
                "ours": of(data["ours"]),
                "torch": {name: of(values) for name, values in data["torch"].items()},
                "notes": tuple(data["notes"]),
            }
        )
