"""Counts any number of pictures and frames, few of them in memory at a time."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np

from cmtl_jax import pictures as picture_files
from cmtl_jax.errors import UserError
from cmtl_jax.head_spacing import head_spacing
from cmtl_jax.input_pipeline import resize
from cmtl_jax.prediction.counter import Count, Counter
from cmtl_jax.prediction.video import Frame

_WINDOW = 64  # pictures among which those of one size are looked for
_PIXELS = 2**24  # of the pictures of a batch together
_ON_ACCELERATORS = 8


@dataclasses.dataclass(frozen=True)
class Scaling:
    """How pictures are resized before they are counted.

    Attributes:
        scale: of both sides.
        max_side: pictures that are longer after that are shrunk to it; pixels.
        max_pixels: pictures that have more, before or after, are refused.
    """

    scale: float = 1.0
    max_side: int | None = None
    max_pixels: int = picture_files.MAX_PIXELS

    def of(self, height: int, width: int) -> float:
        """The factor for the sides of a picture."""
        if self.max_side is None:
            return self.scale
        return min(self.scale, self.max_side / max(height, width))

    def apply(self, image: np.ndarray) -> np.ndarray:
        """A picture [H, W, C] as it is to be counted.

        Raises:
            UserError: it would be larger than allowed.
        """
        scale = self.of(*image.shape[:2])
        height, width = resize.scaled_size(*image.shape[:2], scale)
        if height * width > self.max_pixels:
            raise UserError(
                f"scaled by {scale:g} it would have {width} x {height} pixels, more than the limit "
                f"of {self.max_pixels}; choose a smaller --scale or raise the limit (--max-pixels)"
            )
        return resize.scaled_image(image, scale)


@dataclasses.dataclass(frozen=True)
class Counted:
    """A count and how it came about.

    Attributes:
        result: the count; its map and picture have the size of the original. Where that was
            resized, the map's sum is what was counted in the resized picture.
        scale: factor of the sides before counting.
        size: height and width that were counted.
        spacing: `head_spacing` of what was counted.
    """

    result: Count
    scale: float
    size: tuple[int, int]
    spacing: float | None


def default_batch_size() -> int:
    """8 on an accelerator; 1 on a CPU, which gains nothing from batches and compiles longer."""
    return 1 if jax.default_backend() == "cpu" else _ON_ACCELERATORS


def count_arrays(
    counter: Counter, images: Sequence[np.ndarray], scaling: Scaling = Scaling()
) -> list[Counted | UserError]:
    """Counts pictures of one size together.

    Args:
        counter: counts.
        images: uint8 [H, W, 1] or [H, W, 3] (RGB).
        scaling: applied before.

    Returns:
        The count of each, or why there is none: too many pixels, too little memory, weights that
        give no number.
    """
    results = _together(counter, images, scaling) if len(images) > 1 else None
    if results is None:  # alone, some may be small enough
        results = [_alone(counter, image, scaling) for image in images]
    return [_counted(*each, scaling) for each in zip(images, results, strict=True)]


def _together(
    counter: Counter, images: Sequence[np.ndarray], scaling: Scaling
) -> list[Count] | None:
    try:
        return counter.batch([scaling.apply(image) for image in images], len(images))
    except UserError:
        return None


def _alone(counter: Counter, image: np.ndarray, scaling: Scaling) -> Count | UserError:
    try:
        return counter(scaling.apply(image))
    except UserError as error:
        return error


def _counted(
    image: np.ndarray, result: Count | UserError, scaling: Scaling
) -> Counted | UserError:
    if isinstance(result, UserError):
        return result
    if not np.isfinite(result.count):
        return UserError(f"the count is {result.count}; the weights are damaged, take others")
    spacing, size = head_spacing(result.density), result.density.shape
    shown = image[..., 0] if image.shape[2] == 1 else image
    density = resize.density(result.density, image.shape[:2])
    result = dataclasses.replace(result, density=density, picture=shown)
    return Counted(result, scaling.of(*image.shape[:2]), size, spacing)


def count_pictures(
    counter: Counter,
    paths: Sequence[str],
    *,
    scaling: Scaling = Scaling(),
    batch_size: int = 1,
) -> Iterator[tuple[int, Counted | UserError]]:
    """Counts picture files; each is read when its turn comes.

    Files of one size among 64 in a row are counted together; only full batches are, as a batch of
    another size would be another program to compile.

    Args:
        counter: counts.
        paths: of the files.
        scaling: applied before; what declares more pixels than it allows is not even decoded.
        batch_size: pictures counted together, fewer where they are large.

    Yields:
        The position in `paths`, and the count or why there is none. In order if batch_size is 1.
    """
    channels = counter.channels

    def count(positions: Sequence[int]) -> Iterator[tuple[int, Counted | UserError]]:
        read, images = [], []
        for i in positions:
            try:
                images.append(picture_files.read(paths[i], channels, scaling.max_pixels))
                read.append(i)
            except UserError as error:
                yield i, error
        for i, counted in zip(read, count_arrays(counter, images, scaling), strict=True):
            if isinstance(counted, UserError):
                counted = UserError(f"{paths[i]}: {counted}")
            yield i, counted

    for start in range(0, len(paths), _WINDOW):
        for positions in _batches(paths, start, batch_size, scaling):
            yield from count(positions)


def _batches(
    paths: Sequence[str], start: int, batch_size: int, scaling: Scaling
) -> list[list[int]]:
    """Positions of the files from start on that are to be counted together."""
    window = range(start, min(start + _WINDOW, len(paths)))
    if batch_size == 1:
        return [[i] for i in window]
    alike: dict[tuple[int, int], list[int]] = {}
    batches = []
    for i in window:
        try:
            alike.setdefault(picture_files.size(paths[i]), []).append(i)
        except UserError:  # told when it is read; a pipe is read only once
            batches.append([i])
    for (height, width), members in alike.items():
        side = scaling.of(height, width)
        number = int(min(batch_size, max(_PIXELS // max(height * width * side * side, 1), 1)))
        full = len(members) // number * number
        batches += [members[i : i + number] for i in range(0, full, number)]
        batches += [[i] for i in members[full:]]
    return batches


def count_frames(
    counter: Counter,
    frames: Iterable[Frame | UserError],
    *,
    scaling: Scaling = Scaling(),
    batch_size: int = 1,
) -> Iterator[tuple[Frame, Counted] | UserError]:
    """Counts frames, batch_size of them together; errors among them pass through, in order."""
    waiting: list[Frame] = []

    def count(together: int) -> Iterator[tuple[Frame, Counted] | UserError]:
        for i in range(0, len(waiting), together):
            part = waiting[i : i + together]
            counts = count_arrays(counter, [frame.image for frame in part], scaling)
            for frame, counted in zip(part, counts, strict=True):
                if isinstance(counted, UserError):
                    yield UserError(f"frame {frame.number}: {counted}")
                else:
                    yield frame, counted
        waiting.clear()

    for frame in frames:
        if isinstance(frame, UserError):
            yield from count(1)
            yield frame
            continue
        if waiting and frame.image.shape != waiting[0].image.shape:
            yield from count(1)
        waiting.append(frame)
        if len(waiting) == batch_size:
            yield from count(batch_size)
    yield from count(1)
