"""Counts people in pictures of any size."""

import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np
from PIL import Image

from cmtl_jax import head_spacing
from cmtl_jax import pictures as picture_files
from cmtl_jax.errors import UserError
from cmtl_jax.input_pipeline import buckets, resize
from cmtl_jax.input_pipeline.batch import normalise
from cmtl_jax.input_pipeline.seen import Seen, at
from cmtl_jax.parallel import Parallel
from cmtl_jax.prediction import close_crowds, group_passes
from cmtl_jax.prediction.tiles import GRID, Tile, best_shape, tiles
from cmtl_jax.trained_model import (
    AUTO,
    CLOSE,
    STREETS,
    TrainedModel,
    is_work_folder,
    restore,
    short_name,
    together,
)

Picture = str | os.PathLike | Image.Image | np.ndarray

# Measured on a CPU: the network holds 330 to 440 bytes a pixel; its time a pixel hardly differs
# between tiles of 256x256 and 2048x2048. So pictures are counted whole while the process stays
# below 2 GiB, and in tiles that leave room for a picture of 48 million pixels and its density map.
WHOLE_PIXELS = 3_500_000  # larger pictures are counted in tiles
TILE_PIXELS = 2_000_000  # of a tile; halos repeat a fifth of the picture, half with 400,000
_STEP = 64  # single pictures are padded to multiples of this: few programs, little padding


@dataclasses.dataclass(frozen=True)
class Count:
    """What was counted in a picture.

    Attributes:
        count: people.
        density: float32 [H, W], people per pixel, at the picture's size.
        picture: uint8 [H, W] or [H, W, 3], in the colours that the network saw.
        weights: folder, file or name of the weights.
    """

    count: float
    density: np.ndarray
    picture: np.ndarray
    weights: str

    def overlay(self, max_side: int | None = None) -> Image.Image:
        """The picture with the density map over it, the count and a colour bar."""
        from cmtl_jax.prediction import overlay  # a count alone needs no matplotlib

        return overlay.overlay(
            self.picture,
            self.density,
            count=self.count,
            label=short_name(self.weights),
            max_side=max_side,
        )


class Counter:
    """Counts people with trained weights; several threads may share one.

        counter = cmtl_jax.load("runs/sha-recommended")
        result = counter("photo.jpg")
        result.count, result.density, result.overlay()
    """

    def __init__(
        self, trained: TrainedModel, parallel: Parallel, close: "Counter | None" = None
    ):
        """Sets it up.

        Args:
            trained: the weights.
            parallel: devices.
            close: counts with weights for close crowds; it takes over where people stand close
                (see `close_crowds`).
        """
        self.trained = trained
        self._parallel = parallel
        self._close = close
        self._input = trained.config.input
        # Of the pictures that it wants to be given.
        self.channels = max(self._input.channels, 0 if close is None else close.channels)

        def density(params, batch: dict[str, jax.Array]) -> jax.Array:
            # Without the logits, the fully connected head is not computed at all.
            return trained.model.apply({"params": params}, batch["image"], batch["size"]).density

        self._density = parallel.eval_step(density)
        self._prior_features, self._group_logits, self._modulated_density = (
            parallel.eval_step(functools.partial(function, trained.model))
            for function in (
                group_passes.prior_features, group_passes.group_logits, group_passes.density
            )
        )  # fmt: skip

    def __call__(self, picture: Picture) -> Count:
        """Counts one picture.

        Args:
            picture: path, PIL image, or uint8 array [H, W], [H, W, 1] or [H, W, 3] (RGB).

        Raises:
            UserError: the file is missing or no picture.
            TypeError, ValueError: an array of another type or shape, or a picture without pixels.
        """
        image = self._read(picture)
        return self._result(image, self._alone(self._seen(image)))

    def batch(self, pictures: Iterable[Picture], batch_size: int = 8) -> list[Count]:
        """Counts many pictures, those of like size together; all are held in memory.

        The results are those of one at a time, in the same order.

        Args:
            pictures: as of a single call.
            batch_size: pictures counted together, fewer where they are large.

        Raises:
            UserError, TypeError, ValueError: as of a single call.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        originals = [self._read(picture) for picture in pictures]
        images = [self._seen(image) for image in originals]
        densities: dict[int, np.ndarray] = {}
        small = [i for i, image in enumerate(images) if _fits(_padded(image))]
        chosen = buckets.choose([images[i].shape[:2] for i in small], 4) if small else None
        members: dict[tuple[int, int], list[int]] = {}
        for i in small:
            shape = chosen.shapes[chosen.of(images[i].shape[:2])]
            members.setdefault(shape, []).append(i)
        for shape, positions in members.items():
            size = min(batch_size, len(positions), WHOLE_PIXELS // (shape[0] * shape[1]))
            if size < 2:  # one at a time, pictures need less padding
                continue
            for start in range(0, len(positions), size):
                part = positions[start : start + size]
                counted = self._run([images[i] for i in part], shape, size)
                densities.update(zip(part, counted, strict=True))
        return [
            self._result(original, densities[i] if i in densities else self._alone(images[i]))
            for i, original in enumerate(originals)
        ]

    def density_of_seen(
        self, seen: np.ndarray, size: tuple[int, int], picture: Callable[[int], np.ndarray]
    ) -> np.ndarray:
        """Density map float32 [h, w] of a picture [h, w, C] as the weights want to see it.

        Args:
            seen: grey levels or colours 0..255.
            size: as of `second_look`.
            picture: likewise.
        """
        return self.second_look(self._alone(seen), size, picture)

    def second_look(
        self, density: np.ndarray, size: tuple[int, int], picture: Callable[[int], np.ndarray]
    ) -> np.ndarray:
        """Looks again: at other sides (config.input.looks and close), and with weights for crowds.

        Args:
            density: [h, w], people per pixel, of the picture as the network saw it.
            size: H and W of the picture itself.
            picture: gives it with so many channels, uint8 [H, W, C]; called if it is needed.

        Returns:
            float32 [h, w]: a new map, or the one given.
        """
        density = self._at_other_sides(density, picture)
        return density if self._close is None else self._with_close(density, size, picture)

    def _at_other_sides(
        self, density: np.ndarray, picture: Callable[[int], np.ndarray]
    ) -> np.ndarray:
        """Averages a map with those of the picture at other sides, if the weights want that."""
        scales = self._input.looks
        if self._input.close:
            apart = head_spacing.head_spacing(density)
            if apart is not None and apart < self._input.close:
                scales = (self._input.close_scale,)
        if not scales:
            return density
        image = picture(self._input.channels)
        maps = [self._alone(at(self._input, scale).image(image)) for scale in scales]
        return sum((resize.density(one, density.shape) for one in maps), density) / (1 + len(maps))

    def _with_close(
        self, density: np.ndarray, size: tuple[int, int], picture: Callable[[int], np.ndarray]
    ) -> np.ndarray:
        """Averages a map with that of the weights for close crowds, by the share they have."""
        streets = _spacing(density, size)
        if not close_crowds.asked(streets):
            return density
        image = picture(self._close.channels)
        with_channels = functools.partial(picture_files.with_channels, image)
        close = self._close.density_of_seen(self._close._seen(image), size, with_channels)
        share = np.float32(close_crowds.share(streets, _spacing(close, size)))
        if not share:
            return density
        return (1 - share) * density + share * resize.density(close, density.shape)

    def _read(self, picture: Picture) -> np.ndarray:
        channels = self.channels
        if isinstance(picture, str | os.PathLike):
            return picture_files.read(picture, channels)
        if isinstance(picture, Image.Image):
            _require_pixels(picture.size[::-1])
            return picture_files.from_pil(picture, "the picture", channels)
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
            kind = getattr(picture, "dtype", type(picture).__name__)
            raise TypeError(f"a picture is a path, a PIL image or a uint8 array, not {kind}")
        if picture.ndim == 3 and picture.shape[2] == 1:
            picture = picture[..., 0]
        _require_pixels(picture.shape)
        return picture_files.from_pil(Image.fromarray(picture), "the array", channels)

    def _seen(self, image: np.ndarray) -> np.ndarray:
        """As the weights want to see pictures; densities are those of what is seen."""
        image = picture_files.with_channels(image, self._input.channels)
        image = Seen.of(self._input).image(image)
        return resize.image(image) if self._input.resize == "multiple_of_4" else image

    def _batch(
        self, images: Sequence[np.ndarray], shape: tuple[int, int], batch_size: int
    ) -> dict[str, np.ndarray]:
        """What the network takes, images normalised and padded; fillers have a size of 4x4."""
        number = self._parallel.round_up(batch_size)
        image = np.zeros((number, *shape, self._input.channels), np.float32)
        size = np.full((number, 2), GRID, np.int32)
        for i, pixels in enumerate(images):
            h, w = size[i] = pixels.shape[:2]
            image[i, :h, :w] = normalise(pixels, self._input.mean, self._input.std)
        return {"image": image, "size": size}

    def _compute(self, step: Callable, batch: dict[str, np.ndarray]) -> np.ndarray:
        try:
            return self._parallel.local(step(self.trained.params, batch))
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                height, width = next(iter(batch.values())).shape[1:3]
                raise UserError(
                    f"not enough memory to count {width}x{height} pixels at once; close other "
                    "programs, or shrink the picture"
                ) from error
            raise

    def _run(
        self, images: Sequence[np.ndarray], shape: tuple[int, int], batch_size: int = 1
    ) -> list[np.ndarray]:
        """Density maps float32 [h, w] of at most batch_size images that fit into shape."""
        density = self._compute(self._density, self._batch(images, shape, batch_size))
        return [  # copies, so that a small map does not keep the whole batch in memory
            density[i, : image.shape[0], : image.shape[1], 0].copy()
            for i, image in enumerate(images)
        ]

    def _alone(self, image: np.ndarray) -> np.ndarray:
        """Density map of one image, in tiles where it is large."""
        if _fits(_padded(image)):
            return self._run([image], _padded(image))[0]
        height, width = image.shape[:2]
        shape = best_shape(height, width, TILE_PIXELS, _STEP)
        cut = list(tiles(height, width, shape))
        if self.trained.config.model.prior_fusion == "film":
            return self._in_two_passes(image, shape, cut)
        density = np.empty((height, width), np.float32)
        for tile in cut:
            density[tile.core] = self._run([image[tile.read]], shape)[0][tile.inner]
        return density

    def _in_two_passes(
        self, image: np.ndarray, shape: tuple[int, int], cut: Sequence[Tile]
    ) -> np.ndarray:
        """Density map of one image in tiles, where the groups of the whole picture act on it."""
        cells = [-(-side // GRID) for side in image.shape[:2]]
        number = self._parallel.round_up(1)
        features, density = None, np.empty(image.shape[:2], np.float32)
        for tile in cut:
            batch = self._batch([image[tile.read]], shape, 1)
            part = self._compute(self._prior_features, batch)[0]
            if features is None:
                features = np.empty((*cells, part.shape[-1]), np.float32)
            features[_cells(tile.core)] = part[_cells(tile.inner)]
        whole = {"features": features[None], "size": np.array([cells], np.int32)}
        whole = {name: np.repeat(x, number, axis=0) for name, x in whole.items()}
        logits = self._compute(self._group_logits, whole)
        for tile in cut:
            batch = self._batch([image[tile.read]], shape, 1)
            part = features[_cells(tile.read)]
            batch["features"] = np.zeros(
                (number, shape[0] // GRID, shape[1] // GRID, part.shape[-1]), np.float32
            )
            batch["features"][0, : part.shape[0], : part.shape[1]] = part
            batch["logits"] = logits
            counted = self._compute(self._modulated_density, batch)
            density[tile.core] = counted[0, ..., 0][tile.inner]
        return density

    def _result(self, image: np.ndarray, density: np.ndarray) -> Count:
        size, with_channels = image.shape[:2], functools.partial(picture_files.with_channels, image)
        density = resize.density(self.second_look(density, size, with_channels), size)
        shown = image if image.shape[2] == 3 else image[..., 0]
        count = float(density.sum(dtype=np.float64))
        return Count(count, density, shown, self.trained.source)


def _require_pixels(shape: tuple[int, ...]) -> None:
    """
    Raises:
        ValueError: no picture has this shape.
    """
    if 0 in shape or len(shape) not in (2, 3) or shape[2:] not in ((), (3,)):
        raise ValueError(f"a picture is [H, W], [H, W, 1] or [H, W, 3], not {shape}")


def _spacing(density: np.ndarray, size: tuple[int, int]) -> float | None:
    """`head_spacing` of the map of a picture of this size, in pixels of the picture."""
    spacing = head_spacing.head_spacing(density)
    return None if spacing is None else spacing * math.sqrt(math.prod(size) / density.size)


def _padded(image: np.ndarray) -> tuple[int, int]:
    """The shape in which an image is counted whole."""
    height, width = (-(-side // _STEP) * _STEP for side in image.shape[:2])
    return height, width


def _cells(region: tuple[slice, slice]) -> tuple[slice, slice]:
    """Slices of pixels that begin on the grid -> the cells of the coarsest features in them."""
    rows, columns = (slice(x.start // GRID, -(-x.stop // GRID)) for x in region)
    return rows, columns


def _fits(shape: tuple[int, int]) -> bool:
    return shape[0] * shape[1] <= WHOLE_PIXELS


def load(weights: str | os.PathLike, checkpoint: str | int = "best") -> Counter:
    """A counter with the weights of a work folder or a file, or those shipped under a name.

    Args:
        weights: work folder of a training run; a name such as 'sha' of weights that come with the
            package; a .safetensors file of ours; or an HDF5 file of the authors' PyTorch code of
            CMTL or MCNN. Each brings its own preprocessing. 'auto': `shb`, and `sha` where people
            stand close, unless a file or work folder of that name is there.
        checkpoint: 'best' (lowest validation MAE), 'latest' or a step.

    Raises:
        UserError: there are no weights.
    """
    parallel = Parallel("jit", jax.local_devices()[:1])
    path = pathlib.Path(weights)
    if str(weights) != AUTO or path.is_file() or is_work_folder(path):
        return Counter(restore(weights, parallel, checkpoint), parallel)
    streets, close = (restore(name, parallel) for name in (STREETS, CLOSE))
    return Counter(_together(streets, close), parallel, Counter(close, parallel))


def _together(streets: TrainedModel, close: TrainedModel) -> TrainedModel:
    """The weights for streets, saying of themselves what holds for both."""
    about = dict(streets.about)
    about["data"] = together([one.about["data"] for one in (streets, close)], ", ")
    spacings = [one.about["head_spacing"] for one in (streets, close)]
    about["head_spacing"] = head_spacing.together(spacings)
    return dataclasses.replace(streets, about=about, source=AUTO)
