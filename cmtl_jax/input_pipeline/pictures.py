"""Decoded pictures with head points and density map, out of prepared data sets."""

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from cmtl_jax import pictures as picture_files
from cmtl_jax.datasets.prepare import IndexEntry, Split
from cmtl_jax.input_pipeline import resize
from cmtl_jax.input_pipeline.picture import Picture
from cmtl_jax.input_pipeline.seen import Seen


class _Cache:
    """The pictures used last, up to a limit of bytes; safe for threads, empty after pickling."""

    def __init__(self, limit: int):
        self.limit = limit
        self.num_bytes = 0
        self._pictures: OrderedDict[int, Picture] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: int) -> Picture | None:
        with self._lock:
            if key not in self._pictures:
                return None
            self._pictures.move_to_end(key)
            return self._pictures[key]

    def put(self, key: int, picture: Picture) -> None:
        with self._lock:
            if picture.num_bytes > self.limit or key in self._pictures:
                return
            self._pictures[key] = picture
            self.num_bytes += picture.num_bytes
            while self.num_bytes > self.limit:
                self.num_bytes -= self._pictures.popitem(last=False)[1].num_bytes

    def __len__(self) -> int:
        return len(self._pictures)

    def __reduce__(self):
        return _Cache, (self.limit,)


class Pictures:
    """A random-access sequence of pictures, possibly out of several splits.

    Keeps what it decoded up to a limit, since an epoch needs a small crop of each picture. Safe for
    threads; a pickled copy starts with an empty cache. What it returns must not be changed.
    """

    def __init__(
        self,
        records: Sequence[tuple[Split, int]],
        *,
        channels: int,
        seen: Seen = Seen(),
        cache_mib: float = 0,
    ):
        """Sets the sequence up; nothing is read.

        Args:
            records: (split, position in it) of each picture.
            channels: 1 (grey) or 3 (colour).
            seen: what is done to pictures as they are decoded; points and maps move along.
            cache_mib: memory for decoded pictures, MiB, shared with all subsets.
        """
        self.channels = channels
        self._seen = seen
        self._records = list(records)
        self._keys = list(range(len(self._records)))  # in the cache
        self._cache = _Cache(int(cache_mib * 2**20))
        self._points: dict[int, np.ndarray] = {}  # a record is read whole, map included, for them

    @classmethod
    def of_splits(
        cls, splits: Sequence[Split], more: Sequence[tuple[Split, int]] = (), **options
    ) -> "Pictures":
        """All pictures of the splits, in order, and after them these records."""
        records = [(split, i) for split in splits for i in range(len(split))]
        return cls([*records, *more], **options)

    def subset(self, positions: Sequence[int]) -> "Pictures":
        """The pictures at these positions; they share the memory for decoded pictures."""
        subset = Pictures(
            [self._records[i] for i in positions], channels=self.channels, seen=self._seen
        )
        subset._keys = [self._keys[i] for i in positions]
        subset._cache, subset._points = self._cache, self._points
        return subset

    @property
    def index(self) -> list[IndexEntry]:
        """Id, height and width as scaled, and count of each picture, without reading it."""
        entries = [split.index[i] for split, i in self._records]
        sizes = [self._seen.size(entry.height, entry.width) for entry in entries]
        return [e._replace(height=h, width=w) for e, (h, w) in zip(entries, sizes, strict=True)]

    def points(self, position: int) -> np.ndarray:
        """Head points float32 [N, 2] of a picture as scaled, without decoding it."""
        key = self._keys[position]
        if key not in self._points:
            split, i = self._records[position]
            old = split.index[i].height, split.index[i].width
            self._points[key] = resize.points(split.points(i), old, self._seen.size(*old))
        return self._points[key]

    def original(self, position: int) -> Picture:
        """The picture before it is resized for evaluation: itself."""
        return self[position]

    def pixels_size(self, position: int) -> tuple[int, int]:
        """Height and width of the picture itself, before anything is done to it; not read."""
        split, i = self._records[position]
        return split.index[i].height, split.index[i].width

    def pixels(self, position: int, channels: int | None = None) -> np.ndarray:
        """The picture itself, uint8 [H, W, C], before anything is done to it; not kept.

        With these channels, or those of the sequence.
        """
        split, i = self._records[position]
        record = split[i]
        return picture_files.decode(record.image_bytes, record.id, channels or self.channels)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, position: int) -> Picture:
        """Decodes a picture, or takes it from memory.

        Raises:
            UserError: the picture is damaged.
            IndexError: there is no such position.
        """
        key = self._keys[position]
        picture = self._cache.get(key)
        if picture is None:
            split, i = self._records[position]
            record = split[i]
            image = picture_files.decode(record.image_bytes, record.id, self.channels)
            picture = Picture(record.id, image, record.points, record.density)
            picture = resize.annotated(picture, self._seen.image(image))
            self._cache.put(key, picture)
        return picture
