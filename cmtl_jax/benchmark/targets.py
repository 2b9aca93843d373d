"""What this project wants to reach; ratio = our time or memory / PyTorch's best. Ours."""

from typing import NamedTuple

GIB = 2**30


class Target(NamedTuple):
    """A bound on a row.

    Attributes:
        at_most: the row's ratio, or its own value, may be this much.
        dream: likewise, what would be better still; None where there is no such thing.
        of: 'ratio', 'seconds' or 'bytes'.
    """

    at_most: float
    dream: float | None
    of: str = "ratio"

    def verdict(self, value: float) -> str:
        """'dream', 'met' or 'missed'."""
        if self.dream is not None and value <= self.dream:
            return "dream"
        return "met" if value <= self.at_most else "missed"


# By platform and the key of a row.
TARGETS = {
    ("cpu", "train_step/8/float32"): Target(0.9, 0.5),
    ("cpu", "train_step/1/float32"): Target(0.9, 0.5),
    ("cpu", "prediction/picture/float32"): Target(0.8, 0.4),
    ("cpu", "evaluation/cold"): Target(0.8, 0.4),
    ("cpu", "memory/cold"): Target(1.0, 0.6),
    ("cpu", "memory/warm"): Target(1.0, 0.6),
    ("cpu", "prediction/large"): Target(2 * GIB, None, "bytes"),
    ("cpu", "prediction/first_count"): Target(6.0, 3.0, "seconds"),
    **{
        ("gpu", f"train_step/{batch}/{precision}"): Target(0.7, 0.4)
        for batch in (64, 256)
        for precision in ("float32", "tensorfloat32", "bfloat16")
    },
}
