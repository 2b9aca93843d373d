"""The validation split: a partition, seeded, spread over the counts."""

import collections
import itertools

import numpy as np
import pytest

from cmtl_jax.errors import UserError
from cmtl_jax.input_pipeline import holdout

RULES = {
    "stratified": holdout.stratified,
    "released": lambda counts, *options: holdout.released(len(counts), *options),
}
COUNTS = np.random.default_rng(0).lognormal(5, 1, 300).round().tolist()


def test_a_tenth_is_held_out_and_the_rest_trains():
    train, val = holdout.stratified(COUNTS, 0.1, 0)
    assert len(val) == 30
    assert sorted(train + val) == list(range(300))
    assert train == sorted(train)
    assert val == sorted(val)
    assert all(type(i) is int for i in train + val)


def test_the_seed_decides():
    assert holdout.stratified(COUNTS, 0.1, 3) == holdout.stratified(COUNTS, 0.1, 3)
    assert holdout.stratified(COUNTS, 0.1, 3) != holdout.stratified(COUNTS, 0.1, 4)


@pytest.mark.parametrize("seed", range(5))
def test_each_tenth_picture_by_count_gives_one(seed):
    counts = np.random.default_rng(seed).permutation(200)  # a picture's count is its rank
    _, val = holdout.stratified(counts, 0.1, seed)
    assert sorted(int(counts[i]) // 10 for i in val) == list(range(20))


def test_every_picture_may_be_held_out():
    held = {i for seed in range(200) for i in holdout.stratified(COUNTS[:20], 0.1, seed)[1]}
    assert held == set(range(20))


def test_any_two_pictures_of_equal_count_may_be_held_out():
    pairs = {tuple(holdout.stratified([5] * 6, 1 / 3, seed)[1]) for seed in range(300)}
    assert pairs == set(itertools.combinations(range(6), 2))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_nothing_held_out(rule):
    assert rule(COUNTS, 0, 0) == (list(range(300)), [])


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_at_least_one_is_held_out(rule):
    train, val = rule([4, 5, 6], 0.1, 0)
    assert (len(train), len(val)) == (2, 1)


@pytest.mark.parametrize(("number", "fraction"), [(1, 0.1), (4, 1.0), (0, 0.1)])
def test_too_few_pictures(number, fraction):
    with pytest.raises(UserError, match="val_fraction=0"):
        holdout.stratified([1] * number, fraction, 0)


@pytest.mark.parametrize(("number", "held_out"), [(300, 29), (400, 39), (36, 3), (301, 30)])
def test_the_authors_hold_out_one_picture_less_than_a_tenth_rounded_up(number, held_out):
    # Their loop over idx = 1..N takes for validation what has idx < ceil(N * 0.1).
    train, val = holdout.released(number, 0.1, 0)
    assert len(val) == held_out == sum(idx < -(-number // 10) for idx in range(1, number + 1))
    assert sorted(train + val) == list(range(number))
    assert (train, val) == (sorted(train), sorted(val))


def test_the_authors_train_on_271_pictures_of_part_a(shared):
    names = np.load(shared / "fixtures/authors_labels_part_A.npz")["names"]
    pictures = {name.split("_")[0] for name in names.tolist()}
    assert len(holdout.released(300, 0.1, 0)[0]) == len(pictures) == 271
    assert pictures < {str(number) for number in range(1, 301)}


def test_the_authors_rule_takes_any_pictures():
    held = collections.Counter(i for s in range(2000) for i in holdout.released(40, 0.1, s)[1])
    assert set(held) == set(range(40))
    assert max(abs(n - 150) for n in held.values()) < 60  # five standard deviations
    assert holdout.released(300, 0.1, 3) == holdout.released(300, 0.1, 3)
    assert holdout.released(300, 0.1, 3) != holdout.released(300, 0.1, 4)


def test_a_single_picture_cannot_be_held_out():
    with pytest.raises(UserError, match="val_fraction=0"):
        holdout.released(1, 0.1, 0)
