"""The latest counts, kept in memory for their maps and zones."""

import collections
import dataclasses
import secrets

from cmtl_jax.prediction.counter import Count
from cmtl_jax.serve.heat import Heat

MOST_BYTES = 512 * 2**20


class GoneError(Exception):
    """A result is not kept, or not any more."""

    def __init__(self):
        super().__init__("this count is not kept any more; send the picture again")


@dataclasses.dataclass(frozen=True)
class Result:
    """A count and what it is of.

    Attributes:
        count: its `weights` are the name that people see, never a path.
        name: of the picture's file, for people.
        scale: of the sides before counting.
        spacing: `head_spacing` of what was counted.
        heat: its map as a layer.
        seconds: spent on counting.
    """

    count: Count
    name: str
    scale: float
    spacing: float | None
    heat: Heat
    seconds: float

    @property
    def num_bytes(self) -> int:
        return self.count.density.nbytes + self.count.picture.nbytes + len(self.heat.png)


class Results:
    """Results by keys that cannot be guessed; those asked for longest ago go first."""

    def __init__(self, most_bytes: int = MOST_BYTES):
        self._most_bytes = most_bytes
        self._results: collections.OrderedDict[str, Result] = collections.OrderedDict()

    def add(self, result: Result) -> str:
        """Keeps a result, the newest always; returns its key."""
        key = secrets.token_urlsafe(16)
        self._results[key] = result
        while len(self._results) > 1 and self._num_bytes() > self._most_bytes:
            self._results.popitem(last=False)
        return key

    def _num_bytes(self) -> int:
        return sum(result.num_bytes for result in self._results.values())

    def get(self, key: str) -> Result:
        """The result.

        Raises:
            GoneError: it is not kept.
        """
        if key not in self._results:
            raise GoneError
        self._results.move_to_end(key)
        return self._results[key]

    def remove(self, key: str) -> None:
        """Forgets a result.

        Raises:
            GoneError: it is not kept.
        """
        if self._results.pop(key, None) is None:
            raise GoneError
