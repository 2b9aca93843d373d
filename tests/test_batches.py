"""Many pictures and frames, few in memory: order, sizes, scales, errors."""


import numpy as np
import pytest
from PIL import Image

from cmtl_jax.errors import UserError
from cmtl_jax.prediction.batches import (
    Scaling,
    count_arrays,
    count_frames,
    count_pictures,
    default_batch_size,
)
from cmtl_jax.prediction.counter import Count
from cmtl_jax.prediction.video import Frame


class Counter:
    """Counts grey levels: density = level / 1000. Remembers what it was given together."""

    channels = 1

    def __init__(self, most_pixels=10**9, together=10**9):
        self.calls = []
        self._most_pixels, self._together = most_pixels, together

    def _count(self, image):
        if image.shape[0] * image.shape[1] > self._most_pixels:
            raise UserError("not enough memory")
        density = image[..., 0].astype(np.float32) / 1000
        return Count(float(density.sum(dtype=np.float64)), density, image[..., 0], "weights")

    def __call__(self, image):
        self.calls.append([image.shape[:2]])
        return self._count(image)

    def batch(self, images, batch_size=8):
        assert len(images) <= batch_size
        self.calls.append([image.shape[:2] for image in images])
        if len(images) > self._together:
            raise UserError("not enough memory")
        return [self._count(image) for image in images]


def draw(path, seed, size=(40, 56)):
    pixels = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
    Image.fromarray(pixels).save(path)
    return str(path), pixels


def level(value, size=(32, 32)):
    return np.full((*size, 1), value, np.uint8)


def test_one_at_a_time_keeps_the_order(tmp_path):
    drawn = [draw(tmp_path / f"{i}.png", i, (20 + i % 2, 30)) for i in range(5)]
    counter = Counter()
    found = list(count_pictures(counter, [path for path, _ in drawn]))
    assert [i for i, _ in found] == [0, 1, 2, 3, 4]
    for (_, counted), (_, pixels) in zip(found, drawn, strict=True):
        np.testing.assert_array_equal(counted.result.picture, pixels)
        assert counted.result.count == pytest.approx(pixels.sum() / 1000)
        assert counted.scale == 1 and counted.size == pixels.shape
    assert all(len(call) == 1 for call in counter.calls)


def test_like_sizes_together_and_only_full_batches(tmp_path):
    sizes = [(20, 30), (16, 16), (20, 30), (20, 30), (16, 16), (20, 30), (20, 30), (9, 9)]
    drawn = [draw(tmp_path / f"{i}.png", i, size) for i, size in enumerate(sizes)]
    counter = Counter()
    found = dict(count_pictures(counter, [path for path, _ in drawn], batch_size=2))
    assert sorted(found) == list(range(8))
    for i, (_, pixels) in enumerate(drawn):
        assert found[i].result.count == pytest.approx(pixels.sum() / 1000)
    assert sorted(map(tuple, counter.calls)) == sorted(
        [((20, 30),) * 2] * 2 + [((16, 16),) * 2] + [((20, 30),), ((9, 9),)]
    )


def test_a_turned_picture_is_among_those_of_its_upright_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (30, 20), 100).save(tmp_path / "turned.jpg", exif=exif)
    path, _ = draw(tmp_path / "upright.png", 0, (30, 20))
    counter = Counter()
    list(count_pictures(counter, [str(tmp_path / "turned.jpg"), path], batch_size=2))
    assert counter.calls == [[(30, 20)] * 2]


def test_few_pictures_are_in_memory(tmp_path, monkeypatch):
    """However many there are: none is read before its batch, none kept after."""
    import weakref

    from cmtl_jax import pictures

    read, alive = pictures.read, []

    def spy(*arguments):
        image = read(*arguments)
        alive.append(weakref.ref(image))
        return image

    monkeypatch.setattr(pictures, "read", spy)
    path, _ = draw(tmp_path / "a.png", 0)
    most = 0
    for _ in count_pictures(Counter(), [path] * 150, batch_size=4):
        most = max(most, sum(reference() is not None for reference in alive))
    assert len(alive) == 150 and most <= 8


def test_large_pictures_make_small_batches(tmp_path, monkeypatch):
    from cmtl_jax.prediction import batches

    monkeypatch.setattr(batches, "_PIXELS", 3 * 40 * 56)
    path, _ = draw(tmp_path / "a.png", 0)
    counter = Counter()
    list(count_pictures(counter, [path] * 6, batch_size=8))
    assert [len(call) for call in counter.calls] == [3, 3]
    counter = Counter()
    list(count_pictures(counter, [path] * 6, batch_size=8, scaling=Scaling(0.5)))
    assert [len(call) for call in counter.calls] == [1] * 6  # 8 would fit, and are not there


@pytest.mark.parametrize("batch_size", [1, 3])
def test_errors_take_the_place_of_counts(tmp_path, batch_size):
    good = [draw(tmp_path / f"{i}.png", i)[0] for i in range(3)]
    (tmp_path / "bad.png").write_bytes(b"bad")
    paths = [good[0], str(tmp_path / "bad.png"), good[1], str(tmp_path / "none.png"), good[2]]
    found = dict(count_pictures(Counter(), paths, batch_size=batch_size))
    assert [i for i in sorted(found) if isinstance(found[i], UserError)] == [1, 3]
    assert "bad.png is truncated" in str(found[1]) and "none.png" in str(found[3])


def test_too_large_is_refused_before_it_is_decoded(tmp_path):
    path, _ = draw(tmp_path / "a.png", 0)
    ((_, error),) = count_pictures(Counter(), [path], scaling=Scaling(max_pixels=40 * 56 - 1))
    assert "declares 56 x 40 pixels, more than the limit of 2239" in str(error)
    ((_, error),) = count_pictures(Counter(), [path], scaling=Scaling(2.0, max_pixels=40 * 56))
    assert "a.png: scaled by 2 it would have 112 x 80 pixels" in str(error)


def test_too_little_memory_for_many_is_enough_for_one():
    counter = Counter(most_pixels=1000, together=2)
    found = count_arrays(counter, [level(10, (10, 10)), level(20, (40, 40)), level(30, (10, 10))])
    assert [len(call) for call in counter.calls] == [3, 1, 1, 1]
    assert found[0].result.count == pytest.approx(1) and found[2].result.count == pytest.approx(3)
    assert isinstance(found[1], UserError)


def test_a_count_that_is_no_number_is_an_error():
    class Broken(Counter):
        def _count(self, image):
            density = np.full(image.shape[:2], np.nan, np.float32)
            return Count(float("nan"), density, image[..., 0], "weights")

    (error,) = count_arrays(Broken(), [level(1)])
    assert "count is nan" in str(error)


@pytest.mark.parametrize(
    "scaling, size",
    [
        (Scaling(0.5), (30, 50)), (Scaling(0.37), (22, 37)), (Scaling(2.0), (120, 200)),
        (Scaling(max_side=50), (30, 50)), (Scaling(max_side=100), (60, 100)),
        (Scaling(max_side=1000), (60, 100)), (Scaling(1e-9), (1, 1)),
    ],
)  # fmt: skip
def test_scaling_keeps_what_was_counted(scaling, size):
    image = np.random.default_rng(0).integers(0, 256, (60, 100, 1), np.uint8)
    (counted,) = count_arrays(Counter(), [image], scaling)
    assert counted.size == size and scaling.of(60, 100) == counted.scale
    result = counted.result
    assert result.density.shape == (60, 100) and result.density.dtype == np.float32
    np.testing.assert_array_equal(result.picture, image[..., 0])
    # The map's sum is the count at that size, which is not that of the original.
    assert result.density.sum(dtype=np.float64) == pytest.approx(result.count, rel=1e-6)
    area = size[0] * size[1] / 6000
    assert result.count == pytest.approx(image.sum() / 1000 * area, rel=0.05 if area > 0.01 else 1)


def test_people_stay_where_they_are():
    image = np.zeros((64, 64, 1), np.uint8)
    image[:32, 32:] = 200
    (counted,) = count_arrays(Counter(), [image], Scaling(0.5))
    inside = counted.result.density[:32, 32:].sum()
    assert inside == pytest.approx(counted.result.count, rel=1e-6)


def test_frames_come_in_order_with_errors_among_them():
    broken = UserError("damaged")
    items = [Frame(level(10 * i), i, i / 10) for i in range(8)]
    items.insert(3, broken)
    counter = Counter()
    found = list(count_frames(counter, iter(items), batch_size=2))
    assert found[3] is broken
    pairs = [item for item in found if item is not broken]
    assert [frame.number for frame, _ in pairs] == list(range(8))
    for frame, counted in pairs:
        assert counted.result.count == pytest.approx(frame.image.sum() / 1000)
    assert [len(call) for call in counter.calls] == [2, 1, 2, 2, 1]


def test_frames_that_change_their_size():
    items = [Frame(level(1, (8 + i // 2, 8)), i, i / 10) for i in range(4)]
    counter = Counter()
    assert len(list(count_frames(counter, items, batch_size=4))) == 4
    assert all(len(set(call)) == 1 for call in counter.calls)


def test_no_frames():
    assert list(count_frames(Counter(), [])) == []
    assert list(count_pictures(Counter(), [])) == []


def test_batches_do_not_pay_on_a_cpu():
    assert default_batch_size() == 1  # of the tests' processor
