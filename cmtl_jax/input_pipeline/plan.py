"""The plan: which pictures form which batch, a pure function of (seed, batch number)."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from cmtl_jax.input_pipeline.buckets import Buckets, Shape


@dataclasses.dataclass(frozen=True)
class PlannedBatch:
    """A global batch before it is loaded.

    Attributes:
        number: of the batch in its plan.
        positions: of its pictures, at most batch_size; rows beyond them are fillers.
        shape: (H, W) that all of them are padded to.
    """

    number: int
    positions: tuple[int, ...]
    shape: Shape


def group_by_bucket(
    order: Sequence[int], sizes: Sequence[Shape], buckets: Buckets, batch_size: int
) -> list[tuple[tuple[int, ...], Shape]]:
    """Cuts pictures into batches of one shape each.

    What does not fill a batch of its own shape moves on to the next larger shape that holds it, so
    that at most the last batches have fillers.

    Args:
        order: positions of pictures in the order wanted.
        sizes: (height, width) of every position.
        buckets: the shapes.
        batch_size: pictures a batch.

    Returns:
        (positions, shape) of each batch; every position of order is in exactly one.
    """
    waiting: list[list[int]] = [[] for _ in buckets.shapes]
    for position in order:
        waiting[buckets.of(sizes[position])].append(position)
    batches = []
    for i, shape in enumerate(buckets.shapes):
        full = len(waiting[i]) // batch_size * batch_size
        for start in range(0, full, batch_size):
            batches.append((tuple(waiting[i][start : start + batch_size]), shape))
        rest = waiting[i][full:]
        for j in range(i + 1, len(buckets.shapes)):
            if not rest or not waiting[j]:
                continue
            if all(a <= b for a, b in zip(shape, buckets.shapes[j], strict=True)):
                waiting[j] = rest + waiting[j]
                rest = []
        if rest:
            batches.append((tuple(rest), shape))
    return batches


class TrainingPlan:
    """Pictures in a new random order again and again; random access by batch number.

    One round passes over all pictures as often as it takes to form MIN_BATCHES batches, so that the
    fillers of its last batches hardly count, even where pictures are fewer than a batch.
    """

    MIN_BATCHES = 32

    def __init__(
        self, sizes: Sequence[Shape], buckets: Buckets, batch_size: int, steps: int, seed: int
    ):
        """Sizes are those of the crops; steps is the length of the plan in batches."""
        self._sizes = list(sizes)
        self._buckets = buckets
        self._batch_size = batch_size
        self._steps = steps
        self._seed = seed
        self._passes = -(-self.MIN_BATCHES * batch_size // len(self._sizes))
        # The number of crops in each bucket is the same in every round, and so is this.
        self._current = (0, self._round(0))
        self.batches_per_round = len(self._current[1])

    def _round(self, number: int) -> list[tuple[tuple[int, ...], Shape]]:
        rng = np.random.default_rng([self._seed, number])
        order = [i for _ in range(self._passes) for i in rng.permutation(len(self._sizes)).tolist()]
        batches = group_by_bucket(order, self._sizes, self._buckets, self._batch_size)
        return [batches[i] for i in rng.permutation(len(batches))]

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, number: int) -> PlannedBatch:
        """Batch of a number from 0 on; safe for threads."""
        wanted, i = divmod(int(number), self.batches_per_round)
        current, batches = self._current
        if current != wanted:
            batches = self._round(wanted)
            self._current = (wanted, batches)
        positions, shape = batches[i]
        return PlannedBatch(int(number), positions, shape)


class EvaluationPlan:
    """Every picture exactly once, in batches of one shape each."""

    def __init__(self, sizes: Sequence[Shape], buckets: Buckets, batch_size: int):
        """Sizes are those of the pictures."""
        self.batch_size = batch_size
        self._batches = group_by_bucket(range(len(sizes)), sizes, buckets, batch_size)

    @property
    def shapes(self) -> list[Shape]:
        """The shapes of its batches, each once, in the order in which they come."""
        return list(dict.fromkeys(shape for _, shape in self._batches))

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> PlannedBatch:
        positions, shape = self._batches[int(number)]
        return PlannedBatch(int(number), positions, shape)
