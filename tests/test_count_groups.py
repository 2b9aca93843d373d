"""Count groups: edges, weights, the authors' labels."""

import json

import numpy as np
import pytest

from cmtl_jax.input_pipeline import count_groups
from cmtl_jax.input_pipeline.count_groups import CountGroups
from cmtl_jax.input_pipeline.crops import CropRule


def labels(groups: CountGroups, counts) -> np.ndarray:
    return np.array([groups(count) for count in counts])


def test_authors_labels_of_part_a(shared):
    truth = np.load(shared / "fixtures/authors_labels_part_A.npz")
    groups = count_groups.fit(truth["counts"], 10, "released", "released")
    assert np.array_equal(labels(groups, truth["counts"]), truth["labels"])
    assert len(truth["labels"]) == 2439
    assert list(groups.histogram) == truth["histogram"].tolist()
    assert list(groups.class_weights) == truth["weights"].tolist()


@pytest.mark.parametrize("low", [0, 3, 40])
@pytest.mark.parametrize("high", [41, 63, 87, 100, 443, 1000])
def test_released_rule_rounds_half_to_even(low, high):
    counts = np.arange(low, high + 1)  # for 0..100 the counts 5, 15, ... lie on the edges
    width = (high - low) / 10
    expected = np.minimum(np.round(counts / width), 9).astype(int)
    groups = count_groups.fit(counts, 10, "released", "released")
    assert np.array_equal(labels(groups, counts), expected)
    histogram = [(expected == group).sum() for group in range(10)]
    assert list(groups.histogram) == histogram
    shares = np.array(histogram) / len(counts)
    np.testing.assert_allclose(groups.class_weights, (1 - shares) / 9)


def test_c3_rounds_down():
    counts = np.arange(40, 141)  # a tenth of the range is 10
    groups = count_groups.fit(counts, 10, "c3", "released")
    assert groups.edges == tuple(range(10, 100, 10))
    assert np.array_equal(labels(groups, counts), np.minimum(counts // 10, 9))
    rounded = count_groups.fit(counts, 10, "released", "released")
    assert rounded.edges[:2] == pytest.approx((5, 15))


def test_quantile_groups_are_equally_large():
    groups = count_groups.fit(np.random.default_rng(0).permutation(1000), 10, "quantile", "none")
    assert groups.histogram == (100,) * 10
    assert groups(0) == 0
    assert groups(99) == 0
    assert groups(100) == 1
    assert groups(10_000) == 9


def test_many_empty_crops_are_one_group_and_the_others_share_the_rest():
    counts = np.concatenate([np.zeros(5400), np.arange(1, 4601)])
    groups = count_groups.fit(counts, 10, "quantile", "inv_sqrt")
    assert groups.histogram[0] == 5400
    assert sum(groups.histogram) == 10_000
    assert max(groups.histogram[1:]) - min(groups.histogram[1:]) <= 1


def test_crops_of_a_sparse_data_set_fill_all_groups():
    rng = np.random.default_rng(0)
    counts = np.where(rng.random(12_800) < 0.54, 0, rng.geometric(0.25, 12_800))
    groups = count_groups.fit(counts, 10, "quantile", "inv_sqrt")
    assert min(groups.histogram) > 50
    assert groups(0) == 0
    assert groups(1) == 1


@pytest.mark.parametrize("binning", ["quantile", "uniform", "released", "c3"])
@pytest.mark.parametrize("weights", ["none", "inv_sqrt", "released"])
@pytest.mark.parametrize(
    "counts",
    [
        [0],
        [7] * 50,
        [0] * 99 + [1],
        [0, 1, 2] * 5,
        [0] * 1000 + [3000],
        np.random.default_rng(0).poisson(0.4, 500),
        np.random.default_rng(0).lognormal(4, 2, 500).round(),
    ],
)
def test_edges_and_weights_of_odd_data(counts, binning, weights):
    groups = count_groups.fit(counts, 10, binning, weights)
    assert len(groups.edges) == 9
    assert np.isfinite(groups.edges).all()
    assert (np.diff(groups.edges) > 0).all()
    assert len(groups.class_weights) == len(groups.histogram) == 10
    own = labels(groups, counts)
    assert list(groups.histogram) == [(own == group).sum() for group in range(10)]
    assert np.isfinite(groups.class_weights).all()
    assert min(groups.class_weights) >= 0
    if weights != "released":
        assert np.mean([groups.class_weights[group] for group in own]) == pytest.approx(1)


def test_inverse_square_root_weights():
    groups = count_groups.fit([0] * 64 + [10] * 16, 2, "uniform", "inv_sqrt")
    assert groups.histogram == (64, 16)
    # A quarter of the crops weighs twice as much each: 0.8 w + 0.2 (2 w) = 1.
    assert groups.class_weights == pytest.approx((1 / 1.2, 2 / 1.2))


def test_uniform_groups():
    groups = count_groups.fit([10, 15, 30], 4, "uniform", "none")
    assert groups.edges == pytest.approx((15, 20, 25))
    assert [groups(c) for c in (0, 14.9, 15, 19.9, 25, 99)] == [0, 0, 1, 1, 3, 3]


def test_json():
    groups = count_groups.fit(np.arange(313) ** 1.5, 10, "released", "inv_sqrt")
    assert CountGroups.from_json(json.loads(json.dumps(groups.to_json()))) == groups


class Heads:
    """Pictures with a head in every pixel."""

    def __init__(self, *sizes):
        entry = type("Entry", (), {})
        self.index = []
        for height, width in sizes:
            self.index.append(entry())
            self.index[-1].height, self.index[-1].width = height, width

    def points(self, position):
        entry = self.index[position]
        y, x = np.mgrid[: entry.height, : entry.width]
        return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


def test_sampled_counts_are_those_of_crops():
    pictures = Heads((40, 20), (1, 1), (8, 64))
    counts = count_groups.sample_counts(pictures, CropRule("quarter", 0, 0), 3, seed=0)
    assert counts.tolist() == [50] * 3 + [1] * 3 + [32] * 3
    counts = count_groups.sample_counts(pictures, CropRule("fixed", 16, 16), 2, seed=0)
    assert counts.tolist() == [256] * 2 + [1] * 2 + [128] * 2


class Halves(Heads):
    """A density map of half a person a pixel."""

    def __getitem__(self, position):
        entry = self.index[position]
        density = np.full((entry.height, entry.width), 0.5, np.float32)
        return type("Picture", (), {"density": density})


def test_counts_of_points_and_of_density():
    """The crops are the same; the heads are one to a pixel, the density is a half."""
    rule = CropRule("quarter")
    points, density = (
        count_groups.sample_counts(Halves((40, 20), (9, 64)), rule, 3, 0, count)
        for count in ("points", "density")
    )
    assert points.tolist() == [50] * 3 + [32] * 3
    assert density.tolist() == [25] * 3 + [16] * 3
    points = np.zeros((3, 2), np.float32)
    density = np.full((7, 9), 0.125, np.float32)
    assert count_groups.count_of(points, density, "points") == 3
    assert count_groups.count_of(points, density, "density") == 7.875


def test_sampled_counts_depend_on_the_seed():
    class UpperHalf(Heads):
        def points(self, position):
            return super().points(position)[:800]  # the upper half

    def sample(seed):
        rule = CropRule("fixed", 10, 10)
        return count_groups.sample_counts(UpperHalf((40, 40)), rule, 400, seed)

    assert np.array_equal(sample(1), sample(1))
    assert not np.array_equal(sample(1), sample(2))
    assert sample(1).mean() == pytest.approx(50, abs=10)  # by symmetry half of 10 x 10
