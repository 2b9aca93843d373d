"""Buckets: few shapes, every picture fits, little padding."""

import math
import time

import numpy as np
import pytest

from cmtl_jax import pictures as picture_files
from cmtl_jax.input_pipeline import buckets
from cmtl_jax.input_pipeline.buckets import Buckets
from cmtl_jax.input_pipeline.plan import EvaluationPlan


def test_the_smallest_shape_that_holds_a_picture():
    shapes = Buckets(((8, 8), (8, 16), (16, 12), (16, 16)))
    assert shapes.of((8, 8)) == 0
    assert shapes.of((3, 9)) == 1
    assert shapes.of((9, 3)) == 2
    assert shapes.of((16, 13)) == 3
    with pytest.raises(ValueError, match=r"\(17, 1\)"):
        shapes.of((17, 1))


@pytest.mark.parametrize("seed", range(20))
def test_few_shapes_that_hold_everything(seed):
    rng = np.random.default_rng(seed)
    sizes = [tuple(map(int, size)) for size in rng.integers(1, 300, (rng.integers(1, 60), 2))]
    most = int(rng.integers(1, 9))
    chosen = buckets.choose(sizes, most)
    assert 1 <= len(chosen.shapes) <= most
    assert all(side % 4 == 0 and side > 0 for shape in chosen.shapes for side in shape)
    areas = [math.prod(shape) for shape in chosen.shapes]
    assert areas == sorted(areas)
    used = set()
    for h, w in sizes:
        i = chosen.of((h, w))
        used.add(i)
        assert h <= chosen.shapes[i][0] and w <= chosen.shapes[i][1]
        assert areas[i] == min(
            a for a, (height, width) in zip(areas, chosen.shapes) if h <= height and w <= width
        )
    assert used == set(range(len(chosen.shapes)))


@pytest.mark.parametrize("seed", range(20))
def test_a_shape_saves_more_pixels_than_its_program_costs(seed):
    rng = np.random.default_rng(seed)
    sizes = [tuple(map(int, size)) for size in rng.integers(1, 300, (rng.integers(2, 60), 2))]
    program = int(rng.integers(1, 200_000))

    def cost(chosen):
        padded = sum(math.prod(chosen.shapes[chosen.of(size)]) for size in sizes)
        return padded + program * len(chosen.shapes)

    few, many = buckets.choose(sizes, 8, program), buckets.choose(sizes, 8)
    assert len(few.shapes) <= len(many.shapes)
    assert cost(few) <= cost(many)


def test_few_pictures_share_a_shape_where_programs_cost_more():
    sizes = [(96, 100), (100, 96), (40, 40)]
    assert buckets.choose(sizes, 8, 1000).shapes == ((40, 40), (100, 100))
    assert buckets.choose(sizes, 8, 10_000).shapes == ((100, 100),)


def test_one_bucket_is_the_largest_sides_rounded_up():
    assert buckets.choose([(10, 30), (21, 7)], 1).shapes == ((24, 32),)


def test_enough_buckets_pad_to_multiples_of_4_alone():
    sizes = [(4, 8), (5, 8), (8, 8), (100, 40)]
    chosen = buckets.choose(sizes, 8)
    assert chosen.shapes == ((4, 8), (8, 8), (100, 40))
    assert chosen.waste(sizes) == pytest.approx(1 - (32 + 40 + 64 + 4000) / (32 + 64 + 64 + 4000))


def test_frequent_sizes_keep_their_shape():
    # Merging the first two shapes adds fewer pixels to one picture, but there are 100 of them.
    assert buckets.choose([(8, 8)] * 100 + [(8, 12), (8, 20)], 2).shapes == ((8, 8), (8, 20))


def test_upright_and_lying_pictures_do_not_share_a_shape():
    sizes = [(100, 400), (96, 396), (400, 100), (392, 98)]
    assert set(buckets.choose(sizes, 2).shapes) == {(100, 400), (400, 100)}


def test_extreme_pictures():
    chosen = buckets.choose([(1, 1), (10, 8000)], 2)
    assert chosen.shapes == ((4, 4), (12, 8000))


def test_thousands_of_sizes_take_seconds():
    rng = np.random.default_rng(0)
    sizes = [tuple(map(int, size)) for size in rng.integers(200, 2000, (3000, 2))]
    began = time.monotonic()
    chosen = buckets.choose(sizes, 8)
    assert time.monotonic() - began < 20
    assert len(chosen.shapes) == 8
    assert chosen.waste(sizes) < buckets.choose(sizes, 1).waste(sizes) / 1.2


@pytest.fixture(scope="module")
def part_a(shared):
    """Sizes of the 300 pictures of ShanghaiTech part A train."""
    files = sorted((shared / "data/ShanghaiTech/part_A_final/train_data/images").glob("*.jpg"))
    sizes = [picture_files.size(file) for file in files]
    assert len(sizes) == 300
    return sizes


@pytest.mark.parametrize("quarter", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_part_a_wastes_at_most_15_percent_fillers_included(part_a, batch_size, quarter):
    sizes = [(h // 4, w // 4) for h, w in part_a] if quarter else part_a
    plan = EvaluationPlan(sizes, buckets.choose(sizes, 8), batch_size)
    batches = [plan[i] for i in range(len(plan))]
    assert len({batch.shape for batch in batches}) <= 8
    computed = sum(batch_size * math.prod(batch.shape) for batch in batches)
    assert 1 - sum(h * w for h, w in sizes) / computed <= 0.15
