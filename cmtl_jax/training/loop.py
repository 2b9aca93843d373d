"""The training loop as policy. The order within a turn is a rule:

    evaluate, save, stop if asked, next batch, step, log the previous steps

so that a checkpoint of step n holds exactly n batches, and a device never waits for logging.
"""

import time
from collections.abc import Callable, Iterator
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


def run(
    state: TrainState,
    batches: Iterator[Batch],
    train_step: Callable[[TrainState, Batch], tuple[TrainState, dict]],
    hooks: Hooks,
    progress: Progress,
    *,
    start: int,
    steps: int,
    eval_every: int,
    log_every: int,
    in_flight: int = 2,
) -> tuple[TrainState, bool]:
    """Trains from step `start` to `steps`.

    Args:
        state: after `start` steps.
        batches: from batch number `start` on.
        train_step: compiled.
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
        state, metrics = train_step(state, next(batches))
        if step % log_every == 0:
            log(step)  # while this one runs
        progress.add(metrics)
        running.append(metrics)
        if len(running) > in_flight:
            jax.block_until_ready(running.pop(0))
    return state, True
