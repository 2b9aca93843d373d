"""Counting for several people with few means: one picture at a time, the latest results kept."""

import dataclasses
import io
import time
from collections.abc import Mapping

import numpy as np
from PIL import Image

from cmtl_jax.errors import UserError
from cmtl_jax.prediction import batches, overlay
from cmtl_jax.prediction.batches import Scaling
from cmtl_jax.prediction.counter import Counter
from cmtl_jax.serve import heat, upload
from cmtl_jax.serve.lane import Lane
from cmtl_jax.serve.limits import Limits
from cmtl_jax.serve.results import Result, Results
from cmtl_jax.serve.schemas import Zones


class Service:
    """Counters by the names that people see, and what they counted; used from one event loop."""

    def __init__(self, counters: Mapping[str, Counter], limits: Limits):
        """The first of the counters is the default."""
        self.counters = dict(counters)
        self.limits = limits
        self.counting = Lane(limits.waiting)
        self._drawing = Lane(limits.waiting)  # does not wait for what is counted meanwhile
        self._results = Results()

    async def count(
        self, data: bytes, name: str, weights: str, scale: float, zones: Zones
    ) -> tuple[str, Result, dict[str, float]]:
        """Counts in a picture's file and keeps the result: its key, itself, counts of the zones.

        Raises:
            UserError: no picture that is read here, too large, or zones that are none in it.
        """

        def work() -> tuple[Result, dict[str, float]]:
            start = time.monotonic()
            counter = self.counters[weights]
            channels = counter.channels
            pixels = upload.decode(data, name, channels, self.limits.pixels)
            zones.polygons(*pixels.shape[:2])  # those that are none are told before the work
            scaling = Scaling(scale, max_pixels=self.limits.pixels)
            (counted,) = batches.count_arrays(counter, [pixels], scaling)
            if isinstance(counted, UserError):
                raise UserError(f"{name}: {counted}") from counted
            count = dataclasses.replace(counted.result, weights=weights)
            result = Result(
                count,
                name,
                counted.scale,
                counted.spacing,
                heat.layer(count.density),
                time.monotonic() - start,
            )
            return result, zones.counts(count.density)

        result, counted = await self.counting.run(work)
        return self._results.add(result), result, counted

    def get(self, key: str) -> Result:
        """A result that is still kept.

        Raises:
            GoneError: it is not.
        """
        return self._results.get(key)

    def forget(self, key: str) -> None:
        """Frees a result's memory.

        Raises:
            GoneError: it is not kept.
        """
        self._results.remove(key)

    async def count_zones(self, key: str, zones: Zones) -> dict[str, float]:
        """People in zones of a result.

        Raises:
            GoneError: it is not kept.
            UserError: zones that are none in this picture.
            FullError: too many ask.
        """
        return await self._draw(zones.counts, self.get(key).count.density)

    async def density(self, key: str) -> bytes:
        """The density map as an .npy file; raises as `count_zones`, like the following."""
        return await self._draw(_npy, self.get(key).count.density)

    async def overlay(self, key: str, zones: Zones) -> bytes:
        """The picture with map, zones, count and colour bar as a PNG file."""
        return await self._draw(_overlay, self.get(key), zones)

    async def picture(self, key: str) -> bytes:
        """The picture as a JPEG file, not larger than pages show."""
        return await self._draw(_jpeg, self.get(key).count.picture)

    async def _draw(self, function, *arguments):
        with self._drawing.place():
            return await self._drawing.run(function, *arguments)

    @property
    def busy(self) -> bool:
        """Whether work is running, be it some that nobody waits for any more."""
        return self.counting.busy or self._drawing.busy

    def close(self) -> None:
        """Begins nothing more, and lets nobody wait."""
        self.counting.close()
        self._drawing.close()


def _npy(density: np.ndarray) -> bytes:
    with io.BytesIO() as file:
        np.save(file, density)
        return file.getvalue()


def _overlay(result: Result, zones: Zones) -> bytes:
    count = result.count
    counts = zones.counts(count.density)
    polygons = zones.polygons(*count.density.shape)
    image = overlay.overlay(
        count.picture,
        count.density,
        count=count.count,
        label=f"{result.name} · {count.weights}",
        zones={f"{name}: {counts[name]:.1f}": points for name, points in polygons.items()},
    )
    with io.BytesIO() as file:
        image.save(file, "PNG")
        return file.getvalue()


def _jpeg(picture: np.ndarray) -> bytes:
    image = Image.fromarray(picture)
    image.thumbnail((heat.MAX_SIDE, heat.MAX_SIDE))
    with io.BytesIO() as file:
        image.save(file, "JPEG", quality=90)
        return file.getvalue()
