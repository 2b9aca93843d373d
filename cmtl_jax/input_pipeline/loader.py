"""Streams of batches (Grain): planned, loaded ahead, a pure function of the step."""

import dataclasses
from collections.abc import Iterator

import grain
import numpy as np

from cmtl_jax.input_pipeline.batch import Batch, Crop, collate
from cmtl_jax.input_pipeline.count_groups import CountGroups, count_of
from cmtl_jax.input_pipeline.crops import Augmentation, CropRule, augment, random_crop, whole
from cmtl_jax.input_pipeline.patches import Patches
from cmtl_jax.input_pipeline.pictures import Pictures
from cmtl_jax.input_pipeline.plan import EvaluationPlan, PlannedBatch, TrainingPlan


@dataclasses.dataclass(frozen=True)
class Shard:
    """This process's part of every global batch: consecutive examples.

    Attributes:
        index: number of this process.
        count: number of processes.
    """

    index: int = 0
    count: int = 1

    def rows(self, batch_size: int) -> range:
        """Positions in the global batch that this process loads.

        Raises:
            ValueError: count does not divide batch_size.
        """
        size, rest = divmod(batch_size, self.count)
        if rest:
            raise ValueError(f"{self.count} processes cannot share a batch of {batch_size} evenly")
        return range(self.index * size, (self.index + 1) * size)


@dataclasses.dataclass(frozen=True)
class Loader:
    """What turns a planned batch into arrays.

    Attributes:
        pictures: where they come from.
        groups: count -> group.
        batch_size: of the global batch.
        mean: grey level that becomes 0.
        std: grey levels that become 1.
        shard: this process's part.
    """

    pictures: Pictures | Patches
    groups: CountGroups
    batch_size: int
    mean: float
    std: float
    shard: Shard = Shard()

    def _collate(self, planned: PlannedBatch, crop, count: str = "points") -> Batch:
        rows = self.shard.rows(self.batch_size)
        crops = [crop(planned, row) for row in rows if row < len(planned.positions)]
        groups = [self.groups(count_of(crop.points, crop.density, count)) for crop in crops]
        return collate(
            crops,
            groups,
            planned.shape,
            len(rows),
            mean=self.mean,
            std=self.std,
            channels=self.pictures.channels,
        )


@dataclasses.dataclass(frozen=True)
class TrainingLoader(Loader):
    """Random crops, or with crop_rule None whole patches, augmented.

    What is random in example `row` of batch `number` depends on (seed, number, row) alone. An
    example's group is that of its count (see count_groups.count_of) by the rule `count`.
    """

    crop_rule: CropRule | None = CropRule("fixed", 128, 128)
    augmentation: Augmentation = Augmentation()
    seed: int = 0
    count: str = "points"

    def __call__(self, planned: PlannedBatch) -> Batch:
        return self._collate(planned, self._crop, self.count)

    def _crop(self, planned: PlannedBatch, row: int) -> Crop:
        rng = np.random.default_rng([self.seed, planned.number, row])
        picture = self.pictures[planned.positions[row]]
        if self.crop_rule is None:
            crop = whole(picture)
        else:
            crop = random_crop(picture, self.crop_rule, rng)
        return augment(crop, self.augmentation, rng)


@dataclasses.dataclass(frozen=True)
class EvaluationLoader(Loader):
    """Whole pictures."""

    def __call__(self, planned: PlannedBatch) -> tuple[PlannedBatch, Batch]:
        return planned, self._collate(planned, self._whole)

    def _whole(self, planned: PlannedBatch, row: int) -> Crop:
        return whole(self.pictures[planned.positions[row]])


def stream(
    plan: TrainingPlan | EvaluationPlan, loader: Loader, *, start: int = 0, num_workers: int = 0
) -> Iterator:
    """Loaded batches of a plan, in order, read ahead; an error of the loader is raised as it is.

    Args:
        plan: of the batches.
        loader: makes one of them.
        start: number of the first batch; the stream is the same as one that came to it.
        num_workers: processes that load, each with a cache of its own; with 0, threads of this
            process do.
    """
    dataset = grain.MapDataset.source(plan)[start:].map(loader)
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    dataset = dataset.to_iter_dataset(options)
    if num_workers:
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=num_workers))
    return iter(dataset)
