"""A side of a comparison as a process of its own, which does nothing until it is told to."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any, Self

_LEAST_SECONDS = 0.3  # of one measurement: quicker tasks are run several times in each
_LAST_LINES = 5  # of what a side that ended has written


class SideError(Exception):
    """A side could not do what it was told; the message is one line."""


def variables(changes: Mapping[str, str | None] | None) -> dict[str, str]:
    """This process's environment with variables set, or with None removed."""
    merged = {**os.environ, **(changes or {})}
    return {name: value for name, value in merged.items() if value is not None}


class Side:
    """A worker process; see cmtl_jax.benchmark.worker for what it understands."""

    def __init__(self, framework: str, environment: Mapping[str, str | None] | None = None):
        """Starts the process.

        Args:
            framework: 'ours' or 'torch'.
            environment: variables set, or with None removed, in its environment.
        """
        self._log = tempfile.TemporaryFile("w+", errors="replace")
        self.framework = framework
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cmtl_jax.benchmark.worker", framework],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=variables(environment),
            text=True,
        )
        self._times: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def prepare(self, name: str, task: str, /, **spec: Any) -> dict[str, Any]:
        """Sets a task up under a name; gives what was held and taken before.

        Returns:
            imported_seconds, imported_bytes (resident after imports), prepared_seconds.

        Raises:
            SideError: it cannot be set up.
        """
        return self._ask(command="prepare", name=name, task=task, spec=spec)

    def settle(self, name: str) -> None:
        """Runs a task once more, and sees how often one measurement is to run it."""
        self._times[name] = 1
        self._times[name] = max(1, round(_LEAST_SECONDS / max(self.run(name), 1e-6)))

    def run(self, name: str) -> float:
        """Seconds of a task, the average where it is quick and run several times."""
        times = self._times.get(name, 1)
        return self._ask(command="run", name=name, times=times)["seconds"] / times

    def result(self, name: str) -> dict[str, Any]:
        """What the last run of a task found."""
        return self._ask(command="result", name=name)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def peak(self) -> int:
        """The most bytes that the process held at a time, until now."""
        return self._ask(command="memory")["peak_bytes"]

    def close(self) -> None:
        """Ends the process, and waits until it has ended."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def _ask(self, **message: Any) -> dict[str, Any]:
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except (BrokenPipeError, ValueError):
            line = ""
        if not line:
            raise SideError(self._last_words())
        answer = json.loads(line)
        if "error" in answer:
            raise SideError(answer["error"])
        return answer

    def _last_words(self) -> str:
        status = self._process.wait()
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()][-_LAST_LINES:]
        reason = "killed, perhaps for want of memory" if status == -9 else f"status {status}"
        return " ".join([f"{self.framework}: the process ended ({reason}).", *lines])


@dataclasses.dataclass(frozen=True)
class Once:
    """A task done once in a fresh process.

    Attributes:
        seconds: from the start of the process to its end.
        imported_seconds: of them, importing.
        prepared_seconds: of them, setting the task up.
        run_seconds: of them, the task.
        imported_bytes: resident after importing.
        peak_bytes: the most that was resident at a time.
        result: what the task found.
    """

    seconds: float
    imported_seconds: float
    prepared_seconds: float
    run_seconds: float
    imported_bytes: int
    peak_bytes: int
    result: dict[str, Any]


def once(
    framework: str,
    task: str,
    environment: Mapping[str, str | None] | None = None,
    /,
    *,
    times: int = 1,
    **spec: Any,
) -> Once:
    """Does a task, so many times, in a fresh process.

    Raises:
        SideError: it failed.
    """
    began = time.perf_counter()
    with Side(framework, environment) as side:
        before = side.prepare("task", task, **spec)
        run = sum(side.run("task") for _ in range(times))
        result, peak = side.result("task"), side.peak()
    return Once(
        time.perf_counter() - began,
        before["imported_seconds"],
        before["prepared_seconds"],
        run,
        before["imported_bytes"],
        peak,
        result,
    )
