"""Metrics against plain re-computation, analytic cases and real annotations."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.io

from cmtl_jax import metrics
from cmtl_jax.metrics import CountMetrics, ImageMetrics, measure, psnr_ssim


def _plain_game(density, points, level):
    """GAME by its definition: a loop over cells, a loop over points."""
    height, width = density.shape
    n = 2**level
    total = 0.0
    for i in range(n):
        for j in range(n):
            top, bottom = math.floor(i * height / n), math.floor((i + 1) * height / n)
            left, right = math.floor(j * width / n), math.floor((j + 1) * width / n)
            heads = sum(
                top <= min(max(math.floor(y), 0), height - 1) < bottom
                and left <= min(max(math.floor(x), 0), width - 1) < right
                for x, y in points
            )
            total += abs(heads - float(density[top:bottom, left:right].astype(np.float64).sum()))
    return total


def _plain_ssim(pred, true):
    """SSIM with block sums, block by block."""
    values = []
    for i in range(0, true.shape[0] - 10, 11):
        for j in range(0, true.shape[1] - 10, 11):
            p = pred[i : i + 11, j : j + 11].astype(np.float64)
            t = true[i : i + 11, j : j + 11].astype(np.float64)
            sp, st = p.sum(), t.sum()
            variance = (p * p).sum() + (t * t).sum() - sp * sp - st * st
            covariance = (p * t).sum() - sp * st
            values.append(
                (2 * sp * st + 1e-4)
                * (2 * covariance + 9e-4)
                / ((sp * sp + st * st + 1e-4) * (variance + 9e-4))
            )
    return sum(values) / len(values)


def _images(rng, num):
    return [
        ImageMetrics(
            id=str(i),
            count_true=int(rng.integers(0, 5) * rng.integers(0, 300)),
            count_pred=float(rng.uniform(0, 900)),
            group_true=int(rng.integers(0, 3)),
            group_pred=int(rng.integers(0, 3)) if i % 3 else None,
            game=tuple(rng.uniform(0, 100, 4)),
            psnr=float(rng.uniform(10, 40)) if i % 4 else math.nan,
            ssim=float(rng.uniform(0, 1)) if i % 4 else math.nan,
            stray=float(rng.uniform(0, 9)) if i % 5 else math.nan,
        )
        for i in range(num)
    ]


def _accumulate(images):
    total = CountMetrics.empty()
    for image in images:
        total = total.add(image)
    return total


@pytest.mark.parametrize("shape", [(64, 96), (37, 53), (5, 3), (1, 1), (1, 40)])
def test_game_is_the_definition(shape):
    rng = np.random.default_rng(0)
    density = rng.uniform(0, 0.05, shape).astype(np.float32)
    # Some points lie outside, and one on every cell boundary of the finest level.
    points = rng.uniform(-3, 1.1 * max(shape), (60, 2))
    edges = [(shape[1] * i // 8, shape[0] * i // 8) for i in range(9)]
    points = np.concatenate([points, edges])
    image = measure("a", density, points)
    for level in range(4):
        expected = _plain_game(density, points, level)
        np.testing.assert_allclose(image.game[level], expected, rtol=1e-9, atol=1e-9)


def test_game_by_hand():
    density = np.zeros((8, 8), np.float32)
    density[0, 0] = 2.0
    image = measure("a", density, np.array([[7.0, 7.0], [7.5, 0.0]]))
    assert image.count_true == 2 and image.count_pred == 2.0
    assert image.game == (0.0, 4.0, 4.0, 4.0)


def test_stray_people_are_those_in_cells_without_a_head():
    density = np.zeros((16, 16), np.float32)
    density[0:2, 0:2] = 1.0  # a cell with a head
    density[0:2, 2:4] = 0.5  # the next one, without
    density[15, 15] = 3.0
    points = np.array([[1.0, 1.5], [15.9, 15.0]])
    assert measure("a", density, points).stray == 2.0
    assert measure("a", density, points[:1]).stray == 5.0
    assert measure("a", density, points[:0]).stray == 9.0


def test_the_light_and_the_distance_between_heads():
    density, points = np.zeros((40, 40)), np.array([[3.0, 4.0], [6.0, 8.0], [30.0, 8.0]])
    picture = np.full((40, 40, 3), 250, np.uint8)
    picture[:20] = 50
    image = measure("a", density, points, picture=picture)
    assert image.brightness == 150
    assert image.spacing == 5  # of 5, 5 and 24
    alone = measure("a", density, points[:1])
    assert math.isnan(alone.spacing) and math.isnan(alone.brightness)


def test_game_never_falls_with_the_level_and_starts_at_the_count_error():
    rng = np.random.default_rng(1)
    for _ in range(20):
        shape = tuple(rng.integers(1, 60, 2))
        points = rng.uniform(0, 60, (int(rng.integers(0, 40)), 2))
        image = measure("a", rng.uniform(0, 0.1, shape), points)
        assert image.game[0] == abs(image.error)
        for coarse, fine in zip(image.game, image.game[1:]):
            assert fine >= coarse - 1e-9


def test_perfect_prediction_has_no_error():
    points = np.array([[3, 4], [10, 2], [31, 30]])
    density = np.zeros((32, 32), np.float32)
    density[points[:, 1], points[:, 0]] = 1
    image = measure("a", density, points, density, 3, 3)
    assert image.game == (0, 0, 0, 0) and image.error == 0
    assert math.isnan(image.psnr)
    assert image.ssim == pytest.approx(1.0)


def test_count_of_a_large_map_is_summed_in_float64():
    density = np.full((3000, 4000), 1e-4, np.float32)
    expected = 12e6 * float(np.float32(1e-4))
    assert measure("a", density, np.zeros((0, 2))).count_pred == pytest.approx(expected, rel=1e-12)


def test_no_points_in_any_form():
    for points in ([], np.zeros((0, 2)), np.zeros(0)):
        assert measure("a", np.zeros((4, 4)), points).count_true == 0


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\[H, W\]"):
        measure("a", np.zeros((4, 4, 1)), [])
    with pytest.raises(ValueError, match=r"\[N, 2\]"):
        measure("a", np.zeros((4, 4)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="one shape"):
        psnr_ssim(np.zeros((4, 4)), np.zeros((4, 5)))


def test_psnr_analytic():
    true = np.zeros((22, 33))
    true[5, 5] = 0.4
    psnr, _ = psnr_ssim(true + 0.004, true)
    assert psnr == pytest.approx(40.0)


def test_ssim_is_the_plain_loop():
    rng = np.random.default_rng(2)
    true = rng.uniform(0, 0.02, (50, 47))
    pred = rng.uniform(0, 0.02, (50, 47))
    assert psnr_ssim(pred, true)[1] == pytest.approx(_plain_ssim(pred, true), rel=1e-9)
    assert psnr_ssim(true, true)[1] == pytest.approx(1.0)


def test_map_quality_is_undefined_without_people():
    psnr, ssim = psnr_ssim(np.full((22, 22), 0.1), np.zeros((22, 22)))
    assert math.isnan(psnr) and math.isnan(ssim)
    psnr, ssim = psnr_ssim(np.zeros((10, 40)), np.full((10, 40), 0.1))
    assert math.isfinite(psnr) and math.isnan(ssim)


def test_result_is_the_plain_formulas():
    images = _images(np.random.default_rng(3), 50)
    result = _accumulate(images).result()
    true = np.array([i.count_true for i in images], np.float64)
    pred = np.array([i.count_pred for i in images])
    people = true > 0
    assert 0 < people.sum() < 50
    expected = {
        "mae": np.mean(np.abs(pred - true)),
        "rmse": np.sqrt(np.mean((pred - true) ** 2)),
        "nae": np.mean((np.abs(pred - true)[people] / true[people])),
        "nae_num_images": people.sum(),
        "psnr": np.nanmean([i.psnr for i in images]),
        "ssim": np.nanmean([i.ssim for i in images]),
        "stray": np.nanmean([i.stray for i in images]),
        "group_accuracy": np.mean(
            [i.group_true == i.group_pred for i in images if i.group_pred is not None]
        ),
        "num_images": 50,
        "mean_count_true": true.mean(),
        "mean_count_pred": pred.mean(),
    }
    for level in range(4):
        expected[f"game_{level}"] = np.mean([i.game[level] for i in images])
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, rel=1e-12), name


def _sums(metrics):
    return np.concatenate([metrics.sums, metrics.counts])


def test_merge_in_any_order_and_grouping():
    rng = np.random.default_rng(4)
    images = _images(rng, 40)
    whole = _sums(_accumulate(images))
    for _ in range(5):
        shuffled = [images[i] for i in rng.permutation(40)]
        a, b, c = (_accumulate(part) for part in (shuffled[:7], shuffled[7:8], shuffled[8:]))
        for merged in (a.merge(b).merge(c), a.merge(b.merge(c)), c.merge(a).merge(b)):
            np.testing.assert_allclose(_sums(merged), whole, rtol=1e-12)
    empty = CountMetrics.empty()
    np.testing.assert_array_equal(_sums(empty.merge(_accumulate(images))), whole)


def test_adding_does_not_change_the_old_sums():
    images = _images(np.random.default_rng(6), 2)
    first = CountMetrics.empty().add(images[0])
    before = _sums(first)
    first.add(images[1])
    np.testing.assert_array_equal(_sums(first), before)


def test_rmse_is_never_below_mae():
    rng = np.random.default_rng(7)
    for num in (1, 2, 30):
        result = _accumulate(_images(rng, num)).result()
        assert result["rmse"] >= result["mae"] * (1 - 1e-12)


def test_nothing_measured_is_nan_not_zero():
    result = CountMetrics.empty().result()
    assert result["num_images"] == 0
    for name in ("mae", "rmse", "nae", "game_3", "psnr", "ssim", "group_accuracy"):
        assert math.isnan(result[name])


def test_diverged_model_is_not_hidden():
    image = measure("a", np.full((8, 8), np.nan), np.zeros((3, 2)))
    assert math.isnan(CountMetrics.empty().add(image).result()["mae"])


def test_best_constant_is_the_median():
    assert metrics.best_constant_mae([1, 100, 10], [10, 20, 0]) == pytest.approx(20 / 3)
    train = np.random.default_rng(8).lognormal(4, 1, 101)
    best = metrics.best_constant_mae(train, train)
    for constant in np.linspace(train.min(), train.max(), 500):
        assert best <= np.abs(train - constant).mean() + 1e-9
    assert math.isnan(metrics.best_constant_mae([], [1]))


def test_error_by_density_takes_every_picture_once():
    images = _images(np.random.default_rng(9), 200)
    bins = metrics.error_by_density(images)
    assert sum(b.num_images for b in bins) == 200
    for b in bins:
        high = math.inf if b.high is None else b.high
        inside = [i for i in images if b.low <= i.count_true <= high]
        assert len(inside) == b.num_images
        assert b.mae == pytest.approx(np.mean([abs(i.error) for i in inside]))
        assert b.bias == pytest.approx(np.mean([i.error for i in inside]))
    assert [b.low for b in bins] == sorted(b.low for b in bins)
    assert bins[0].label == "0"
    assert metrics.error_by_density([]) == []


def test_thirds_are_ordered_and_take_every_picture_once():
    rng = np.random.default_rng(10)
    images = [
        dataclasses.replace(image, brightness=float(rng.integers(0, 50)) if i % 7 else math.nan)
        for i, image in enumerate(_images(rng, 41))
    ]
    thirds = metrics.error_by_thirds(images, "brightness")
    assert [third.num_images for third in thirds] == [12, 12, 11]  # 35 are known
    assert thirds[0].high <= thirds[1].low and thirds[1].high <= thirds[2].low
    known = [image for image in images if math.isfinite(image.brightness)]
    for name in ("mae", "bias", "mean_count_true"):
        pooled = np.average([getattr(third, name) for third in thirds], weights=[12, 12, 11])
        expected = {
            "mae": [abs(image.error) for image in known],
            "bias": [image.error for image in known],
            "mean_count_true": [image.count_true for image in known],
        }[name]
        assert pooled == pytest.approx(np.mean(expected)), name
    brightest = sorted(known, key=lambda image: image.brightness)[24:]
    assert thirds[2].stray == pytest.approx(np.nanmean([image.stray for image in brightest]))
    people = [image for image in brightest if image.count_true]
    assert thirds[2].nae == pytest.approx(
        np.mean([abs(image.error) / image.count_true for image in people])
    )


def test_few_pictures_have_no_thirds():
    images = [ImageMetrics(str(i), 1, 1.0, None, None, (0.0,) * 4, spacing=i) for i in range(6)]
    assert len(metrics.error_by_thirds(images, "spacing")) == 3
    assert metrics.error_by_thirds(images[1:], "spacing") == []
    assert metrics.error_by_thirds(images, "brightness") == []


def test_authors_maps_against_their_points(shared):
    """On the authors' own maps GAME(0) is rounding; finer levels see kernels cut by cells."""
    maps = np.load(shared / "fixtures" / "authors_density.npz")
    folder = shared / "data/ShanghaiTech/part_B_final/test_data/ground_truth"
    for name in maps.files:
        number = name.rsplit("_", 1)[1]
        info = scipy.io.loadmat(folder / f"GT_IMG_{number}.mat")["image_info"]
        points = info[0, 0][0, 0][0] - 1.0
        density = maps[name]
        image = measure(name, density, points, density)
        assert image.count_true == len(points)
        assert image.game[0] < 1e-3 * max(1, len(points))
        assert image.game[3] < 0.5 * len(points)
        # x and y swapped is the classic mistake; GAME must show it.
        swapped = measure(name, density, points[:, ::-1])
        assert swapped.game[3] > 2 * image.game[3]
