"""Where numbers of a run go: metrics.jsonl and TensorBoard events."""

import json
import math
import os
import pathlib
import time
from collections.abc import Mapping

import tensorboardX

from cmtl_jax.work_folder import read_jsonl


class MetricsWriter:
    """Appends scalars of a step to metrics.jsonl and to TensorBoard events."""

    def __init__(self, workdir: pathlib.Path, start_step: int):
        """Continues a run at start_step: lines of later steps, from before a crash, are dropped."""
        path = workdir / "metrics.jsonl"
        kept = [line for line in read_jsonl(path) if line.get("step", 0) <= start_step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        os.replace(temporary, path)
        self._file = path.open("a")
        self._events = tensorboardX.SummaryWriter(
            str(workdir / "events"), purge_step=start_step + 1, max_queue=100
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values of one step; what is not finite becomes null."""
        finite = {k: float(v) if math.isfinite(v) else None for k, v in values.items()}
        line = {"step": step, "time": round(time.time(), 3), **finite}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in finite.items():
            if value is not None:
                self._events.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        self._events.close()


class NoWriter:
    """For processes that do not write."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes nothing."""

    def close(self) -> None:
        """Does nothing."""
