"""Streams of batches: padding, shards, resumption, workers, errors."""

import numpy as np
import pytest

from cmtl_jax.datasets import prepare
from cmtl_jax.datasets.density_map import density_map
from cmtl_jax.datasets.prepare import IndexEntry, Record
from cmtl_jax.errors import UserError
from cmtl_jax.input_pipeline import buckets
from cmtl_jax.input_pipeline.batch import Batch, Crop, collate
from cmtl_jax.input_pipeline.count_groups import CountGroups
from cmtl_jax.input_pipeline.crops import Augmentation, CropRule
from cmtl_jax.input_pipeline.loader import EvaluationLoader, Shard, TrainingLoader, stream
from cmtl_jax.input_pipeline.pictures import Pictures
from cmtl_jax.input_pipeline.plan import EvaluationPlan, TrainingPlan
from cmtl_jax.pictures import encode_png

GROUPS = CountGroups((1.5, 6.5), (1.0, 1.0, 1.0), (1, 1, 1))
SIZES = [(40, 56), (37, 61), (1, 1), (64, 40), (10, 8000), (33, 33), (40, 56), (3, 200), (90, 90)]
MEAN, STD = 100.0, 50.0
WHOLE = Shard()


class MemorySplit:
    """Pictures of random pixels in memory."""

    def __init__(self, sizes=tuple(SIZES), damaged: int | None = None):
        self.records, self.index = [], []
        for i, (height, width) in enumerate(sizes):
            rng = np.random.default_rng(i)
            png = encode_png(rng.integers(0, 256, (height, width, 1), np.uint8))
            points = (rng.random((i + 1, 2)) * [width, height]).astype(np.float32)
            points = np.minimum(points, np.array([width, height]) - 0.5).astype(np.float32)
            density = density_map(points, height, width)
            self.records.append(
                Record(f"p{i}.png", png[:40] if i == damaged else png, points, density)
            )
            self.index.append(IndexEntry(f"p{i}.png", height, width, len(points)))

    def __len__(self):
        return len(self.records)

    def __getitem__(self, i):
        return self.records[i]

    def points(self, i):
        return self.records[i].points


def memory_pictures(**options) -> Pictures:
    channels = options.pop("channels", 1)
    return Pictures.of_splits([MemorySplit(**options)], channels=channels, cache_mib=1)


def training(
    pictures, *, shard=WHOLE, mode="quarter", steps=40, seed=0, batch_size=4, start=0, workers=0
):
    rule = CropRule(mode, 24, 32)
    sizes = [rule.size(entry.height, entry.width) for entry in pictures.index]
    plan = TrainingPlan(sizes, buckets.choose(sizes, 3), batch_size, steps, seed)
    loader = TrainingLoader(
        pictures, GROUPS, batch_size, MEAN, STD, shard, rule, Augmentation(0.5, 0.5, 10), seed
    )
    return stream(plan, loader, start=start, num_workers=workers)


def evaluation(pictures, batch_size=4, shard=WHOLE, max_buckets=3):
    sizes = [(entry.height, entry.width) for entry in pictures.index]
    plan = EvaluationPlan(sizes, buckets.choose(sizes, max_buckets), batch_size)
    return stream(plan, EvaluationLoader(pictures, GROUPS, batch_size, MEAN, STD, shard))


def same(a: Batch, b: Batch) -> bool:
    return all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def concatenated(shards: list[Batch]) -> Batch:
    return Batch(*(np.concatenate(parts) for parts in zip(*shards, strict=True)))


def check(batch: Batch, batch_size: int) -> None:
    """What holds for every batch."""
    b, height, width = batch.image.shape[:3]
    assert b == batch_size
    assert height % 4 == width % 4 == 0
    assert batch.image.dtype == batch.density.dtype == np.float32
    assert batch.density.shape == (b, height, width, 1)
    assert batch.size.dtype == batch.group.dtype == np.int32
    assert batch.count.dtype == batch.weight.dtype == np.float32
    for i in range(b):
        h, w = batch.size[i]
        assert 1 <= h <= height
        assert 1 <= w <= width
        for padded in (batch.image[i], batch.density[i]):
            assert not padded[h:].any()
            assert not padded[:, w:].any()
        if batch.weight[i]:
            assert batch.weight[i] == 1
            assert batch.group[i] == sum(batch.count[i] > edge for edge in GROUPS.edges)
        else:
            assert not batch.image[i].any()
            assert not batch.density[i].any()
            assert batch.count[i] == 0


def test_collate():
    image = np.array([[[0], [100], [150]]], np.uint8)
    density = np.array([[0.5, 0.25, 0.25]], np.float32)
    crop = Crop(image, density, np.zeros((1, 2), np.float32))
    batch = collate([crop], [2], (4, 8), 3, mean=MEAN, std=STD)
    check(batch._replace(group=np.array([0, 0, 0], np.int32)), 3)
    assert batch.image[0, 0, :4, 0].tolist() == [-2, 0, 1, 0]
    assert batch.density[0, 0, :4, 0].tolist() == [0.5, 0.25, 0.25, 0]
    assert batch.size[0].tolist() == [1, 3]
    assert batch.count.tolist() == [1, 0, 0]
    assert batch.group.tolist() == [2, 0, 0]
    assert batch.weight.tolist() == [1, 0, 0]


def test_fillers_alone_have_the_pictures_channels():
    assert collate([], [], (4, 8), 2, mean=0, std=1, channels=3).image.shape == (2, 4, 8, 3)


def test_collate_refuses_too_many():
    crop = Crop(np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4), np.float32), np.zeros((0, 2)))
    with pytest.raises(ValueError, match="2 examples"):
        collate([crop] * 2, [0] * 2, (4, 4), 1, mean=0, std=1)


def test_shards():
    assert [list(Shard(i, 3).rows(6)) for i in range(3)] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(ValueError, match="4 processes"):
        Shard(0, 4).rows(6)


@pytest.mark.parametrize("mode", ["quarter", "fixed"])
def test_training_batches(mode):
    batches = list(training(memory_pictures(), mode=mode))
    assert len(batches) == 40
    for batch in batches:
        check(batch, 4)
    assert len({batch.image.shape for batch in batches}) <= 3
    assert sum(batch.weight.sum() for batch in batches) > 0.9 * 160


def test_pictures_smaller_than_the_crop_are_taken_whole():
    split = MemorySplit([(20, 30), (1, 1), (24, 32)])
    sizes = {(20, 30), (1, 1), (24, 32)}
    batches = list(training(Pictures.of_splits([split], channels=1), mode="fixed"))
    assert {tuple(size) for batch in batches for size in batch.size[batch.weight > 0]} == sizes
    counts = {(20, 30): 1, (1, 1): 2, (24, 32): 3}
    for batch in batches:
        for size, count in zip(batch.size[batch.weight > 0], batch.count, strict=False):
            assert count == counts[tuple(size)]


@pytest.mark.parametrize("start", [0, 1, 17, 39, 40])
def test_a_resumed_stream_goes_on_where_it_was(start):
    batches = list(training(memory_pictures()))[start:]
    resumed = list(training(memory_pictures(), start=start))
    assert len(resumed) == len(batches) == 40 - start
    assert all(map(same, batches, resumed))


def test_the_length_of_training_does_not_change_its_batches():
    batches = list(training(memory_pictures(), steps=5))
    longer = training(memory_pictures(), steps=10_000)
    assert all(same(batch, next(longer)) for batch in batches)


def test_the_seed_changes_the_stream():
    a, b = (list(training(memory_pictures(), steps=5, seed=seed)) for seed in (0, 1))
    assert not any(map(same, a, b))


def test_batches_are_not_repeated():
    first = [batch.image.tobytes() for batch in training(memory_pictures(), mode="fixed")]
    assert len(set(first)) == len(first)


def test_crops_of_one_picture_in_one_batch_differ():
    pictures = Pictures.of_splits([MemorySplit([(200, 300)])], channels=1)
    (batch,) = training(pictures, steps=1, batch_size=8)
    assert len({image.tobytes() for image in batch.image}) == 8


@pytest.mark.parametrize("processes", [2, 4])
def test_shards_of_training_make_the_batch_of_one_process(processes):
    alone = list(training(memory_pictures()))
    shards = [
        list(training(memory_pictures(), shard=Shard(i, processes))) for i in range(processes)
    ]
    assert all(
        same(a, concatenated(b)) for a, b in zip(alone, zip(*shards, strict=True), strict=True)
    )


@pytest.mark.parametrize("batch_size", [1, 2, 4, 6, 16])
def test_evaluation_shows_every_picture_once_and_whole(batch_size):
    split = MemorySplit()
    pictures = Pictures.of_splits([split], channels=1)
    seen = []
    shapes = set()
    for planned, batch in evaluation(pictures, batch_size):
        check(batch, batch_size)
        shapes.add(batch.image.shape[1:3])
        assert batch.weight.tolist() == [row < len(planned.positions) for row in range(batch_size)]
        for row, position in enumerate(planned.positions):
            seen.append(position)
            h, w = SIZES[position]
            assert batch.size[row].tolist() == [h, w]
            grey = batch.image[row, :h, :w] * STD + MEAN
            np.testing.assert_allclose(grey, pictures[position].image, atol=1e-3)
            assert batch.count[row] == position + 1
            assert np.array_equal(batch.density[row, :h, :w, 0], split[position].density)
    assert sorted(seen) == list(range(len(SIZES)))
    assert len(shapes) <= 3


@pytest.mark.parametrize(("batch_size", "processes"), [(4, 2), (4, 4), (16, 8)])
def test_shards_of_evaluation_make_the_batch_of_one_process(batch_size, processes):
    pictures = memory_pictures(channels=3)
    shards = [list(evaluation(pictures, batch_size, Shard(i, processes))) for i in range(processes)]
    seen = []
    for (planned, alone), *parts in zip(evaluation(pictures, batch_size), *shards, strict=True):
        assert all(part[0] == planned for part in parts)
        assert same(alone, concatenated([part[1] for part in parts]))  # fillers have 3 channels
        for i, (_, part) in enumerate(parts):
            rows = Shard(i, processes).rows(batch_size)
            assert part.weight.tolist() == [row < len(planned.positions) for row in rows]
            seen += [planned.positions[row] for row in rows if row < len(planned.positions)]
    assert sorted(seen) == list(range(len(SIZES)))


def test_tiny_and_long_pictures_alone():
    for size in ((1, 1), (10, 8000)):
        pictures = Pictures.of_splits([MemorySplit([size])], channels=1)
        for batch in training(pictures, steps=3):
            check(batch, 4)
        ((planned, batch),) = evaluation(pictures, batch_size=2)
        assert planned.positions == (0,)
        assert batch.size[0].tolist() == list(size)
        assert batch.density.sum() == pytest.approx(1, abs=1e-5)


def test_an_error_while_loading_reaches_the_consumer():
    pictures = memory_pictures(damaged=4)
    with pytest.raises(UserError, match=r"^p4\.png is truncated or not a picture"):
        list(evaluation(pictures))
    with pytest.raises(UserError, match=r"^p4\.png is truncated or not a picture"):
        list(training(pictures))


def test_worker_processes_load_the_same_batches(tmp_path):
    prepared = prepare.prepare(
        "synthetic",
        tfds_dir=tmp_path,
        options={"num_train": 5, "num_test": 0, "height": (64, 96), "width": (64, 96)},
    )
    pictures = Pictures.of_splits([prepared.splits["train"]], channels=1, cache_mib=1)
    alone = list(training(pictures, steps=12))[3:]
    by_two = list(training(pictures, steps=12, start=3, workers=2))
    assert len(alone) == len(by_two) == 9
    assert all(map(same, alone, by_two))
