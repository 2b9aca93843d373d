"""The training loop as policy, for one run or several side by side.

The order within a turn is a rule:

    evaluate, save, stop if asked, next batch, step, log the previous steps

so that a checkpoint of step n holds exactly n batches, and a device never waits for logging.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Protocol

import jax

from cmtl_jax.input_pipeline.batch import Batch
from cmtl_jax.training.progress import Progress
from cmtl_jax.training.state import TrainState


class Hooks(Protocol):
    """What the loop leaves to others."""

    def evaluate(self, step: int, state: TrainState) -> float:
        """Validates; returns what the best checkpoint is chosen by."""

    def save(self, step: int, state: TrainState, mae: float | None) -> None:
        """Saves a checkpoint."""

    def stop_requested(self, step: int) -> bool:
        """Whether the run is to save and end now."""

    def log(self, step: int, summary: dict[str, float]) -> None:
        """Takes the summary of the steps since the last log."""


Turns = Generator[tuple[TrainState, Batch], tuple[TrainState, dict], tuple[TrainState, bool]]


def run(
    runs: Sequence[Turns],
    train_step: Callable[
        [tuple[int, ...], tuple[TrainState, ...], tuple[Batch, ...]],
        tuple[Sequence[TrainState], Sequence[dict]],
    ],
) -> list[tuple[TrainState, bool]]:
    """Drives the turns of runs: one step of each that is not at its end, in one call.

    Args:
        runs: one or several.
        train_step: compiled; takes which runs these are, their states and batches; gives states
            and metrics, likewise.

    Returns:
        What each run's turns return.
    """
    results: list = [None] * len(runs)
    waiting: dict[int, tuple[TrainState, Batch]] = {}

    def advance(i: int, done: tuple[TrainState, dict] | None) -> None:
        try:
            waiting[i] = runs[i].send(done)
        except StopIteration as end:
            results[i] = end.value

    for i in range(len(runs)):
        advance(i, None)
    while waiting:
        which = tuple(sorted(waiting))
        states, batches = zip(*(waiting.pop(i) for i in which), strict=True)
        for i, *done in zip(which, *train_step(which, states, batches), strict=True):
            advance(i, tuple(done))
    return results


def turns(
    state: TrainState,
    batches: Iterator[Batch],
    hooks: Hooks,
    progress: Progress,
    *,
    start: int,
    steps: int,
    eval_every: int,
    log_every: int,
    in_flight: int = 2,
) -> Turns:
    """One run's training from step `start` to `steps`.

    Yields a state and a batch, and takes the state after that step, and its metrics.

    Args:
        state: after `start` steps.
        batches: from batch number `start` on.
        hooks: evaluation, saving, stopping, logging.
        progress: collects metrics.
        start: steps done.
        steps: steps to do in all.
        eval_every: steps between validations, each with a checkpoint.
        log_every: steps between logs.
        in_flight: steps that may run or wait on the device at once.

    Returns:
        The state, and whether all steps were done (False: stopped on request).
    """
    running: list[dict] = []

    def log(step: int) -> None:
        if progress.pending:
            hooks.log(step, progress.log(step))

    for step in range(start, steps + 1):
        if step > start and (step % eval_every == 0 or step == steps):
            log(step)
            began = time.monotonic()
            mae = hooks.evaluate(step, state)
            hooks.save(step, state, mae)
            progress.pause(time.monotonic() - began)
        if step == steps:
            break
        if hooks.stop_requested(step):
            # What is not logged yet is saved, for the same log lines as without the stop.
            hooks.save(step, state, None)
            return state, False
        state, metrics = yield state, next(batches)
        if step % log_every == 0:
            log(step)  # while this one runs
        progress.add(metrics)
        running.append(metrics)
        if len(running) > in_flight:
            jax.block_until_ready(running.pop(0))
    return state, True
