"""Decoded pictures with head points and density map, out of prepared data sets."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cmtl_jax.datasets import pictures as picture_files
from cmtl_jax.datasets.prepare import IndexEntry, Split


class Picture(NamedTuple):
    """One annotated picture.

    Attributes:
        id: name within its data set.
        image: uint8 [H, W, C].
        points: float32 [N, 2], head points (x, y), all inside.
        density: float32 [H, W], people per pixel.
    """

    id: str
    image: np.ndarray
    points: np.ndarray
    density: np.ndarray

    @property
    def num_bytes(self) -> int:
        return self.image.nbytes + self.points.nbytes + self.density.nbytes


class Pictures:
    """A random-access sequence of pictures, possibly out of several splits.

    Keeps what it decoded up to a limit, since an epoch needs a small crop of each picture. Safe for
    threads; a pickled copy starts with an empty cache.
    """

    def __init__(
        self,
        records: Sequence[tuple[Split, int]],
        *,
        channels: int,
        cache_mib: float = 0,
    ):
        """Records are (split, position in it); channels 1 (grey) or 3 (colour)."""
        self._records = list(records)
        self._channels = channels
        self._limit = int(cache_mib * 2**20)
        self._clear()

    def _clear(self) -> None:
        self._cache: OrderedDict[int, Picture] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @classmethod
    def of_splits(cls, splits: Sequence[Split], **options) -> "Pictures":
        """All pictures of the splits, in order."""
        return cls([(split, i) for split in splits for i in range(len(split))], **options)

    def subset(self, positions: Sequence[int]) -> "Pictures":
        """The pictures at these positions, with a cache of their own."""
        return Pictures(
            [self._records[i] for i in positions],
            channels=self._channels,
            cache_mib=self._limit / 2**20,
        )

    @property
    def index(self) -> list[IndexEntry]:
        """Id, height, width and count of each picture, without reading it."""
        return [split.index[i] for split, i in self._records]

    def points(self, position: int) -> np.ndarray:
        """Head points float32 [N, 2] of a picture, without decoding it."""
        split, i = self._records[position]
        return split.points(i)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, position: int) -> Picture:
        with self._lock:
            if position in self._cache:
                self._cache.move_to_end(position)
                return self._cache[position]
        split, i = self._records[position]
        record = split[i]
        image = picture_files.decode(record.image_bytes, record.id, self._channels)
        picture = Picture(record.id, image, record.points, record.density)
        self._remember(position, picture)
        return picture

    def _remember(self, position: int, picture: Picture) -> None:
        with self._lock:
            if picture.num_bytes > self._limit or position in self._cache:
                return
            self._cache[position] = picture
            self._bytes += picture.num_bytes
            while self._bytes > self._limit:
                self._bytes -= self._cache.popitem(last=False)[1].num_bytes

    def __getstate__(self) -> dict:
        return {key: self.__dict__[key] for key in ("_records", "_channels", "_limit")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._clear()
