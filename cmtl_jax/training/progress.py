"""The progress line of a training run: losses, speed, time left."""

import logging
import time
from collections.abc import Sequence

import jax
import numpy as np

from cmtl_jax.losses import SumCount


def summarise(metrics: Sequence[dict]) -> dict[str, float]:
    """Metrics of several steps, on the host -> one number each: all sums over all counts.

    A metric that some steps lack, saved by an older version, is taken of those that have it.
    """
    summary = {}
    for name, last in metrics[-1].items():
        values = [m[name] for m in metrics if name in m]
        if isinstance(last, SumCount):
            total = sum(float(value.sum) for value in values)
            summary[name] = total / max(sum(float(value.count) for value in values), 1e-12)
        else:
            summary[name] = float(np.mean([float(value) for value in values]))
    return summary


def duration(seconds: float) -> str:
    """Seconds as people read them: '3 h 05 min', '4 min 10 s', '12 s'."""
    seconds = round(seconds)
    hours, minutes = seconds // 3600, seconds % 3600 // 60
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds % 60:02d} s" if minutes else f"{seconds} s"


class Progress:
    """Collects the metrics of steps, without waiting for them, and logs them now and then."""

    def __init__(
        self,
        *,
        start: int,
        steps: int,
        batch_size: int,
        unlogged: Sequence[dict] = (),
        name: str = "",
    ):
        """Continues at step start; unlogged are the metrics that were not logged before it.

        Lines begin with the name.
        """
        self._name = name
        self._steps = steps
        self._batch_size = batch_size
        self._pending: list[dict] = [
            {name: SumCount(*m) if isinstance(m, (list, tuple)) else m for name, m in one.items()}
            for one in unlogged
        ]
        self._last_step = start
        self._last_time = time.monotonic()
        self._paused = 0.0

    @property
    def pending(self) -> bool:
        """Whether there are steps to log."""
        return bool(self._pending)

    def unlogged(self) -> list[dict]:
        """Metrics of steps since the last log, as JSON takes them; waits for those steps."""
        return jax.tree.map(float, [
            {name: list(m) if isinstance(m, SumCount) else m for name, m in one.items()}
            for one in jax.device_get(self._pending)
        ])  # fmt: skip

    def add(self, metrics: dict) -> None:
        """Remembers the metrics of a step that may still be running."""
        self._pending.append(metrics)

    def pause(self, seconds: float) -> None:
        """Time spent on something else than training steps."""
        self._paused += seconds

    def log(self, step: int) -> dict[str, float]:
        """Waits for the remembered steps, the last of which is `step`; logs and returns them."""
        summary = summarise(jax.device_get(self._pending))
        self._pending.clear()
        now = time.monotonic()
        seconds = max(now - self._last_time - self._paused, 1e-9)
        rate = (step - self._last_step) / seconds
        self._last_step, self._last_time, self._paused = step, now, 0.0
        summary["steps_per_second"] = rate
        left = duration((self._steps - step) / rate) if rate else "?"
        group = (
            f", groups {summary['group_accuracy']:.0%} right"
            if "group_accuracy" in summary else ""
        )  # fmt: skip
        logging.info(
            "%sstep %d/%d (%.0f %%) loss %.4g, count error %.1f a crop%s | %.2f steps/s, "
            "%.1f crops/s, %s left", self._name, step, self._steps, 100 * step / self._steps,
            summary["loss"], summary["count_error"], group, rate, rate * self._batch_size, left,
        )  # fmt: skip
        return summary
