"""The order of a training loop, with steps and hooks that only note what happens."""

import itertools

import numpy as np

from cmtl_jax.losses import SumCount
from cmtl_jax.training import loop
from cmtl_jax.training.progress import Progress, duration, summarise


class Notes:
    """Hooks that note (what, step, batches in the state)."""

    def __init__(self, stop_at: int | None = None):
        self.events: list[tuple] = []
        self.stop_at = stop_at

    def evaluate(self, step, state):
        self.events.append(("evaluate", step, state))
        return 10.0 + step

    def save(self, step, state, mae):
        self.events.append(("save", step, state, mae))

    def stop_requested(self, step):
        self.events.append(("asked", step))
        return step == self.stop_at

    def log(self, step, summary):
        self.events.append(("log", step, summary["loss"]))

    def of(self, *kinds):
        return [event for event in self.events if event[0] in kinds]


def metrics(loss: float) -> dict:
    one = SumCount(np.float32(loss), np.float32(1))
    return {"loss": np.float32(loss), "count_error": one, "grad_norm": np.float32(1)}


def run(notes: Notes, *, start=0, steps=8, eval_every=4, log_every=3, unlogged=()):
    """The state is the number of batches; the loss of step n is n."""
    progress = Progress(start=start, steps=steps, batch_size=1, unlogged=unlogged)

    def step(_, states, batches):
        notes.events.append(("step", states[0] + 1, batches[0]))
        return (states[0] + 1,), (metrics(states[0] + 1),)

    turns = loop.turns(
        start, itertools.count(start), notes, progress,
        start=start, steps=steps, eval_every=eval_every, log_every=log_every,
    )  # fmt: skip
    (result,) = loop.run([turns], step)
    return result, progress


def test_a_checkpoint_of_step_n_holds_n_batches():
    notes = Notes()
    assert run(notes)[0] == (8, True)
    assert notes.of("save") == [("save", 4, 4, 14.0), ("save", 8, 8, 18.0)]
    assert notes.of("evaluate") == [("evaluate", 4, 4), ("evaluate", 8, 8)]
    assert notes.of("step") == [("step", n + 1, n) for n in range(8)]


def test_order_around_a_validation():
    notes = Notes()
    run(notes)
    at = notes.events.index(("evaluate", 4, 4))
    kinds = [event[0] for event in notes.events[at - 1 : at + 4]]
    assert kinds == ["log", "evaluate", "save", "asked", "step"]


def test_every_step_is_logged_once():
    notes = Notes()
    run(notes)
    # Means of the losses 1..3, 4, 5..6 and 7..8.
    assert notes.of("log") == [("log", 3, 2.0), ("log", 4, 4.0), ("log", 6, 5.5), ("log", 8, 7.5)]


def test_a_step_is_logged_while_the_next_one_runs():
    notes = Notes()
    run(notes)
    kinds = [event[:2] for event in notes.events]
    assert kinds.index(("step", 4)) == kinds.index(("log", 3)) - 1


def test_a_last_step_that_is_no_multiple_is_validated():
    notes = Notes()
    run(notes, steps=6)
    assert [event[1] for event in notes.of("save")] == [4, 6]


def test_a_stop_saves_and_does_no_further_step():
    notes = Notes(stop_at=5)
    result, progress = run(notes)
    assert result == (5, False)
    assert notes.of("save")[-1] == ("save", 5, 5, None)
    assert len(notes.of("step")) == 5
    assert [one["loss"] for one in progress.unlogged()] == [5.0]


def test_a_stopped_and_resumed_loop_logs_what_an_uninterrupted_one_does():
    whole, first, second = Notes(), Notes(stop_at=5), Notes()
    run(whole)
    _, progress = run(first)
    run(second, start=5, unlogged=progress.unlogged())
    assert first.of("log") + second.of("log") == whole.of("log")
    assert first.of("step") + second.of("step") == whole.of("step")


def test_a_resumed_loop_does_not_validate_again():
    notes = Notes()
    run(notes, start=4)
    assert [event[1] for event in notes.of("evaluate")] == [8]


def test_runs_side_by_side_each_do_what_they_do_alone():
    starts, ends = (0, 3, 6), (8, 8, 7)
    alone = [Notes() for _ in starts]
    for notes, start, end in zip(alone, starts, ends, strict=True):
        run(notes, start=start, steps=end)
    together, calls = [Notes() for _ in starts], []

    def step(which, states, batches):
        calls.append(which)
        for i, state, batch in zip(which, states, batches, strict=True):
            together[i].events.append(("step", state + 1, batch))
        return [s + 1 for s in states], [metrics(s + 1) for s in states]

    ended = loop.run(
        [
            loop.turns(
                start, itertools.count(start), notes,
                Progress(start=start, steps=end, batch_size=1),
                start=start, steps=end, eval_every=4, log_every=3,
            )
            for notes, start, end in zip(together, starts, ends, strict=True)
        ],
        step,
    )  # fmt: skip
    assert ended == [(8, True), (8, True), (7, True)]
    assert [notes.events for notes in together] == [notes.events for notes in alone]
    # One call does a step of all; a run at its end is left out.
    assert calls == [(0, 1, 2)] + [(0, 1)] * 4 + [(0,)] * 3


def test_a_summary_divides_once():
    parts = [{"a": SumCount(1.0, 1.0), "b": 1.0}, {"a": SumCount(5.0, 3.0), "b": 2.0}]
    assert summarise(parts) == {"a": 1.5, "b": 1.5}


def test_a_metric_that_older_steps_lack_is_that_of_the_others():
    parts = [{"a": SumCount(1.0, 2.0)}, {"a": SumCount(3.0, 2.0), "new": SumCount(6.0, 4.0)}]
    assert summarise(parts) == {"a": 1.0, "new": 1.5}


def test_durations():
    assert [duration(s) for s in (4.4, 250, 11100)] == ["4 s", "4 min 10 s", "3 h 05 min"]
