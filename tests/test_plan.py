"""Plans: which pictures form which batch."""

import collections
import concurrent.futures
import itertools
import pickle

import numpy as np
import pytest

from cmtl_jax.input_pipeline import buckets
from cmtl_jax.input_pipeline.buckets import Buckets
from cmtl_jax.input_pipeline.plan import EvaluationPlan, TrainingPlan, group_by_bucket


def random_sizes(seed: int, number: int) -> list[tuple[int, int]]:
    rng = np.random.default_rng(seed)
    return [tuple(map(int, size)) for size in rng.integers(1, 200, (number, 2))]


def check(batches, sizes, order, batch_size):
    """Every position once, in a batch that is not too large and whose shape holds it."""
    positions = [position for batch, _ in batches for position in batch]
    assert sorted(positions) == sorted(order)
    for batch, shape in batches:
        assert 1 <= len(batch) <= batch_size
        assert all(h <= shape[0] and w <= shape[1] for h, w in (sizes[i] for i in batch))


@pytest.mark.parametrize("batch_size", [1, 3, 4, 50])
@pytest.mark.parametrize("seed", range(5))
def test_every_position_once_in_a_shape_that_holds_it(seed, batch_size):
    sizes = random_sizes(seed, 37)
    chosen = buckets.choose(sizes, 6)
    order = np.random.default_rng(seed).permutation(37).tolist()
    batches = group_by_bucket(order, sizes, chosen, batch_size)
    check(batches, sizes, order, batch_size)
    assert sum(len(batch) < batch_size for batch, _ in batches) <= len(chosen.shapes)
    if batch_size == 1:
        assert all(shape == chosen.shapes[chosen.of(sizes[i])] for (i,), shape in batches)


def test_nested_shapes_leave_fillers_in_the_last_batch_alone():
    sizes = [(4, 4)] * 5 + [(8, 8)] * 2 + [(16, 16)] * 3
    batches = group_by_bucket(range(10), sizes, Buckets(((4, 4), (8, 8), (16, 16))), 4)
    assert [(len(batch), shape) for batch, shape in batches] == [
        (4, (4, 4)), (4, (16, 16)), (2, (16, 16))
    ]  # fmt: skip
    check(batches, sizes, range(10), 4)


def test_a_shape_that_does_not_hold_the_rest_does_not_get_it():
    sizes = [(4, 16)] + [(12, 8)] * 2
    batches = group_by_bucket(range(3), sizes, Buckets(((4, 16), (12, 8))), 2)
    assert batches == [((0,), (4, 16)), ((1, 2), (12, 8))]


def test_one_shape_keeps_the_order():
    order = [3, 0, 2, 1]
    batches = group_by_bucket(order, [(4, 4)] * 4, Buckets(((4, 4),)), 3)
    assert [batch for batch, _ in batches] == [(3, 0, 2), (1,)]


def training_plan(number=37, batch_size=4, seed=0, steps=10_000, sizes=None) -> TrainingPlan:
    sizes = sizes or random_sizes(1, number)
    return TrainingPlan(sizes, buckets.choose(sizes, 4), batch_size, steps, seed)


def test_a_batch_depends_on_seed_and_number_alone():
    plan, other = training_plan(), training_plan()
    numbers = np.random.default_rng(0).permutation(5 * plan.batches_per_round).tolist()
    shuffled = {i: plan[i] for i in numbers}
    assert [shuffled[i] for i in range(len(numbers))] == [other[i] for i in range(len(numbers))]
    assert [plan[i].number for i in (7, 0, 3)] == [7, 0, 3]
    assert pickle.loads(pickle.dumps(plan))[123] == other[123]
    assert [training_plan(seed=1)[i] for i in range(9)] != [other[i] for i in range(9)]


def test_threads_get_the_same_batches():
    plan, other = training_plan(), training_plan()
    last = plan.batches_per_round
    numbers = [last - 1, last, 2 * last - 1, 2 * last, 0] * 40
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        got = list(threads.map(plan.__getitem__, numbers))
    assert got == [other[i] for i in numbers]


@pytest.mark.parametrize(("number", "batch_size"), [(37, 4), (3, 24), (1, 1), (500, 8)])
def test_a_round_takes_every_picture_equally_often(number, batch_size):
    plan = training_plan(number, batch_size)
    for first in (0, plan.batches_per_round):
        round_ = [plan[first + i] for i in range(plan.batches_per_round)]
        seen = collections.Counter(i for batch in round_ for i in batch.positions)
        assert len(seen) == number
        assert len(set(seen.values())) == 1
        fillers = sum(batch_size - len(batch.positions) for batch in round_)
        assert fillers <= 4 * (batch_size - 1)  # one batch of each shape
        assert fillers / (batch_size * len(round_)) < 0.12


def test_rounds_differ():
    plan = training_plan()
    rounds = [
        [plan[r * plan.batches_per_round + i].positions for i in range(plan.batches_per_round)]
        for r in range(3)
    ]
    assert rounds[0] != rounds[1] != rounds[2] != rounds[0]


def test_shapes_are_mixed_over_a_round():
    sizes = [(8, 8)] * 200 + [(80, 80)] * 200
    plan = training_plan(sizes=sizes)
    shapes = [plan[i].shape for i in range(plan.batches_per_round)]
    changes = sum(a != b for a, b in itertools.pairwise(shapes))
    assert changes > len(shapes) / 4  # independent draws would give a half


@pytest.mark.parametrize("batch_size", [1, 2, 4, 7, 64])
def test_evaluation_takes_every_picture_once(batch_size):
    sizes = [*random_sizes(2, 23), (1, 1), (10, 8000)]
    plan = EvaluationPlan(sizes, buckets.choose(sizes, 8), batch_size)
    batches = [plan[i] for i in range(len(plan))]
    check([(b.positions, b.shape) for b in batches], sizes, range(25), batch_size)
    assert [b.number for b in batches] == list(range(len(plan)))
