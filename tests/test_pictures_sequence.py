"""The sequence of decoded pictures: order, cache, threads, damaged files."""

import concurrent.futures
import pickle
import sys
import threading

import numpy as np
import pytest

from cmtl_jax.datasets.prepare import IndexEntry, Record
from cmtl_jax.errors import UserError
from cmtl_jax.input_pipeline import detail
from cmtl_jax.input_pipeline.pictures import Pictures
from cmtl_jax.input_pipeline.seen import Seen
from cmtl_jax.pictures import encode_png

SIDE = 32
ONE = SIDE * SIDE * (1 + 4) + 2 * 4  # bytes of a grey picture, its density and one head point


class MemorySplit:
    """A split whose record i is a grey picture of level i, and that counts its readings."""

    def __init__(self, number: int, first: int = 0, damaged: int | None = None):
        self.levels = range(first, first + number)
        self.index = [IndexEntry(f"p{i}", SIDE, SIDE, 1) for i in self.levels]
        self.damaged = damaged
        self.read = [0] * number

    def __len__(self):
        return len(self.levels)

    def __getitem__(self, i):
        self.read[i] += 1
        level = self.levels[i]
        png = encode_png(np.full((SIDE, SIDE, 1), level, np.uint8))
        density = np.full((SIDE, SIDE), level, np.float32)
        return Record(f"p{level}", png[:40] if i == self.damaged else png, self.points(i), density)

    def points(self, i):
        return np.full((1, 2), self.levels[i], np.float32)


def mib(pictures: float) -> float:
    return pictures * ONE / 2**20


def check(picture, level: int, channels: int = 1) -> None:
    assert picture.id == f"p{level}"
    assert picture.image.shape == (SIDE, SIDE, channels)
    assert picture.image.dtype == np.uint8
    assert (picture.image == level).all()
    assert (picture.density == level).all()
    assert picture.points.tolist() == [[level, level]]


def test_splits_in_order():
    pictures = Pictures.of_splits([MemorySplit(3), MemorySplit(2, first=10)], channels=1)
    assert len(pictures) == 5
    assert [entry.id for entry in pictures.index] == ["p0", "p1", "p2", "p10", "p11"]
    for position, level in enumerate([0, 1, 2, 10, 11]):
        check(pictures[position], level)
        assert pictures.points(position).tolist() == [[level, level]]
    with pytest.raises(IndexError):
        pictures[5]


def test_colour():
    check(Pictures.of_splits([MemorySplit(3)], channels=3)[2], 2, channels=3)


def test_subset():
    split = MemorySplit(6)
    subset = Pictures.of_splits([split], channels=3).subset([4, 1, 3]).subset([2, 0])
    assert [entry.id for entry in subset.index] == ["p3", "p4"]
    check(subset[0], 3, channels=3)
    check(subset[1], 4, channels=3)
    assert subset.points(1).tolist() == [[4, 4]]


def test_without_cache_every_access_reads():
    split = MemorySplit(2)
    pictures = Pictures.of_splits([split], channels=1)
    for _ in range(3):
        check(pictures[1], 1)
    assert split.read == [0, 3]


def test_the_cache_keeps_what_was_used_last():
    split = MemorySplit(4)
    pictures = Pictures.of_splits([split], channels=1, cache_mib=mib(2.5))
    for position in (0, 1, 0, 2, 0, 2):  # 2 takes the place of 1
        check(pictures[position], position)
    assert split.read == [1, 1, 1, 0]
    check(pictures[1], 1)  # takes the place of 0
    check(pictures[2], 2)
    check(pictures[0], 0)
    assert split.read == [2, 2, 1, 0]


def test_a_picture_above_the_limit_does_not_empty_the_cache():
    split = MemorySplit(2)
    pictures = Pictures.of_splits([split], channels=1, cache_mib=mib(0.9))
    check(pictures[0], 0)
    check(pictures[0], 0)
    assert split.read == [2, 0]


def test_subsets_share_one_limit():
    split = MemorySplit(6)
    pictures = Pictures.of_splits([split], channels=1, cache_mib=mib(3.5))
    train, val = pictures.subset([0, 2, 4]), pictures.subset([5, 4])
    check(train[2], 4)
    check(val[1], 4)
    check(pictures[4], 4)
    assert split.read == [0, 0, 0, 0, 1, 0]  # read once by all of them
    check(train[0], 0)
    check(train[1], 2)
    check(val[0], 5)  # the fourth picture: 4 has to go
    check(train[0], 0)
    check(train[1], 2)
    check(train[2], 4)
    assert split.read == [1, 0, 1, 0, 2, 1]


def test_a_pickled_copy_starts_empty_and_works():
    split = MemorySplit(3)
    pictures = Pictures.of_splits([split], channels=1, cache_mib=mib(3)).subset([2, 1])
    check(pictures[0], 2)
    data = pickle.dumps(pictures)
    assert len(data) < ONE
    copy = pickle.loads(data)
    check(copy[0], 2)
    check(copy[0], 2)
    assert copy._records[0][0].read[2] == 1 + 1  # once before the copy, once by it


def test_threads():
    split = MemorySplit(8)
    limit = mib(3.5)
    pictures = Pictures.of_splits([split], channels=1, cache_mib=limit)
    cache, too_much = pictures._cache, []
    interval = sys.getswitchinterval()
    stop = threading.Event()

    def watch():
        while not stop.is_set():
            with cache._lock:
                held = sum(picture.num_bytes for picture in cache._pictures.values())
                if held > limit * 2**20 or held != cache.num_bytes:
                    too_much.append(held)

    def work(seed):
        for position in np.random.default_rng(seed).integers(0, 8, 150).tolist():
            check(pictures[position], position)

    watcher = threading.Thread(target=watch)
    sys.setswitchinterval(1e-5)
    try:
        watcher.start()
        with concurrent.futures.ThreadPoolExecutor(6) as threads:
            list(threads.map(work, range(6)))
    finally:
        stop.set()
        watcher.join()
        sys.setswitchinterval(interval)
    assert not too_much
    assert len(cache) == 3
    assert cache.num_bytes == 3 * ONE


def test_a_damaged_picture_is_named_and_does_not_stop_the_others():
    pictures = Pictures.of_splits([MemorySplit(3, damaged=1)], channels=1, cache_mib=1)
    for _ in range(2):
        with pytest.raises(UserError, match=r"p1 is truncated or not a picture"):
            pictures[1]
    check(pictures[2], 2)
    assert pictures.points(1).tolist() == [[1, 1]]


def test_scaled_pictures_are_area_averages_with_the_same_people():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (SIDE, SIDE + 2, 1), np.uint8)
    heads = np.array([[0, 0], [10.5, 7], [SIDE + 1.99, SIDE - 0.01]], np.float32)
    density = rng.random((SIDE, SIDE + 2)).astype(np.float32)
    split = MemorySplit(1)
    split.index = [IndexEntry("p0", SIDE, SIDE + 2, len(heads))]
    split.points = lambda i: heads
    split.__class__ = type(
        "OneSplit",
        (MemorySplit,),
        {"__getitem__": lambda self, i: Record("p0", encode_png(image), heads, density)},
    )
    pictures = Pictures.of_splits([split], channels=1, seen=Seen(0.5), cache_mib=1).subset([0])
    picture = pictures[0]
    blocks = (SIDE // 2, 2, SIDE // 2 + 1, 2)
    assert pictures.index == [IndexEntry("p0", SIDE // 2, SIDE // 2 + 1, 3)]
    assert picture.image.dtype == np.uint8
    means = image.reshape(blocks).mean(axis=(1, 3))
    np.testing.assert_allclose(picture.image[..., 0], means, atol=0.5)
    np.testing.assert_allclose(picture.density, density.reshape(blocks).sum((1, 3)), rtol=1e-5)
    np.testing.assert_array_equal(picture.points[:2], heads[:2] / 2)
    np.testing.assert_array_equal(pictures.points(0), picture.points)
    assert pictures[0] is picture  # kept as scaled
    even = Pictures.of_splits([split], channels=1, seen=Seen(0.5, detail=9.0)).subset([0])[0]
    np.testing.assert_array_equal(even.image, detail.at(picture.image, 9.0))
    np.testing.assert_array_equal(even.points, picture.points)
