"""Pictures kept on the device, and the training crops that are cut there, inside the step.

A GPU eats small crops faster than a few cores can cut them. The host then draws where each crop
lies and what happens to it, by the same random numbers as without this; cutting, resizing, light,
flips and noise are part of the compiled step. The noise alone is another, drawn on the device.
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from cmtl_jax.errors import UserError
from cmtl_jax.input_pipeline.batch import Batch
from cmtl_jax.input_pipeline.count_groups import CountGroups
from cmtl_jax.input_pipeline.crops import (
    DETAIL_KERNEL,
    Augmentation,
    CropRule,
    grey_levels,
    mirrored,
    points_inside,
)
from cmtl_jax.input_pipeline.loader import Shard
from cmtl_jax.input_pipeline.pictures import Pictures
from cmtl_jax.input_pipeline.plan import PlannedBatch

_MOST_PIXELS = 2**31 - 1  # of a store; where a picture begins is an int32
_CUBIC = -0.75  # OpenCV's bicubic kernel


class Store(NamedTuple):
    """Pictures one behind the other, row by row.

    Attributes:
        image: uint8 [P, C], grey levels or colours of all pixels.
        density: float32 [P], people per pixel.
        start: int32 [N], where each picture begins.
        width: int32 [N], pixels of each picture's rows.
    """

    image: jax.Array | np.ndarray
    density: jax.Array | np.ndarray
    start: jax.Array | np.ndarray
    width: jax.Array | np.ndarray


class Cuts(NamedTuple):
    """What makes a batch of crops out of a store; one entry an example.

    Attributes:
        picture: int32 [B], number of the picture in the store.
        box: int32 [B, 4], top, left, height and width of what the crop shows, pixels.
        size: int32 [B, 2], height and width of the crop.
        flip: bool [B].
        contrast: float32 [B], factor of the distances from the crop's mean.
        brightness: float32 [B], grey levels added.
        sharpness: float32 [B], factor of fine detail.
        grey: bool [B], colours are lost.
        noise: float32 [B], noise is uniform within +- this many grey levels; 0: none.
        seed: uint32 [B], of the noise.
        count: float32 [B], number of head points inside.
        group: int32 [B], crowd-count group.
        weight: float32 [B], 1, or 0 for a filler example.
    """

    picture: np.ndarray
    box: np.ndarray
    size: np.ndarray
    flip: np.ndarray
    contrast: np.ndarray
    brightness: np.ndarray
    sharpness: np.ndarray
    grey: np.ndarray
    noise: np.ndarray
    seed: np.ndarray
    count: np.ndarray
    group: np.ndarray
    weight: np.ndarray


def store(pictures: Pictures) -> Store:
    """Decodes all pictures into one store, in host memory.

    Raises:
        UserError: more pixels than a store can hold, or a damaged picture.
    """
    sizes = [entry.height * entry.width for entry in pictures.index]
    total = sum(sizes)
    if total > _MOST_PIXELS:
        raise UserError(
            f"the training pictures have {total / 1e9:.1f} billion pixels, too many for "
            "config.dataset.on_device; set it to false, or shrink them by config.input.scale"
        )
    made = Store(
        image=np.empty((total, pictures.channels), np.uint8),
        density=np.empty(total, np.float32),
        start=np.cumsum([0, *sizes[:-1]]).astype(np.int32),
        width=np.array([entry.width for entry in pictures.index], np.int32),
    )
    bar = tqdm(
        range(len(pictures)), desc="decoding", unit="picture", file=sys.stderr, mininterval=0.5
    )
    for i in bar:
        picture = pictures[i]
        pixels = slice(int(made.start[i]), int(made.start[i]) + sizes[i])
        made.image[pixels] = picture.image.reshape(-1, pictures.channels)
        made.density[pixels] = picture.density.ravel()
    return made


@dataclasses.dataclass(frozen=True)
class CutLoader:
    """What turns a planned batch into cuts; the random numbers are those of TrainingLoader.

    Attributes:
        sizes: (height, width) of the pictures in the store, pixels.
        points: head points float32 [N, 2] of each.
        groups: count -> group.
        batch_size: of the global batch.
        rule: of the crops.
        augmentation: of the crops.
        seed: what is random in example `row` of batch `number` depends on (seed, number, row).
        shard: this process's part.
    """

    sizes: Sequence[tuple[int, int]]
    points: Sequence[np.ndarray]
    groups: CountGroups
    batch_size: int
    rule: CropRule
    augmentation: Augmentation
    seed: int
    shard: Shard = Shard()

    def __call__(self, planned: PlannedBatch) -> Cuts:
        """This process's part of a batch."""
        rows = self.shard.rows(self.batch_size)
        n = len(rows)
        cuts = Cuts(
            picture=np.zeros(n, np.int32),
            box=np.tile(np.int32([0, 0, 1, 1]), (n, 1)),
            size=np.full((n, 2), 4, np.int32),  # of a filler, as in batch.collate
            flip=np.zeros(n, bool),
            contrast=np.ones(n, np.float32),
            brightness=np.zeros(n, np.float32),
            sharpness=np.ones(n, np.float32),
            grey=np.zeros(n, bool),
            noise=np.zeros(n, np.float32),
            seed=np.zeros(n, np.uint32),
            count=np.zeros(n, np.float32),
            group=np.zeros(n, np.int32),
            weight=np.zeros(n, np.float32),
        )
        for i, row in enumerate(rows):
            if row < len(planned.positions):
                self._fill(cuts, i, planned, row)
        return cuts

    def _fill(self, cuts: Cuts, i: int, planned: PlannedBatch, row: int) -> None:
        rng = np.random.default_rng([self.seed, planned.number, row])
        position = planned.positions[row]
        size = self.sizes[position]
        box = self.rule.place(*size, rng)
        drawn = self.augmentation.draw(rng)
        count = len(points_inside(self.points[position], *box))
        cuts.picture[i] = position
        cuts.box[i] = box
        cuts.size[i] = self.rule.size(*size)
        cuts.flip[i] = drawn.flip
        cuts.contrast[i], cuts.brightness[i] = drawn.contrast, drawn.brightness
        cuts.sharpness[i] = drawn.sharpness
        cuts.grey[i] = drawn.grey
        if drawn.noise:
            cuts.noise[i] = self.augmentation.noise_level
            cuts.seed[i] = rng.integers(2**32, dtype=np.uint32)
        cuts.count[i] = count
        cuts.group[i] = self.groups(count)
        cuts.weight[i] = 1


@flax.struct.dataclass
class Cutter:
    """Makes batches out of a store, inside the step.

    Attributes:
        store: of the training pictures.
        shape: (H, W) of the batch, pixels, multiples of 4.
        window: (height, width) of the largest box.
        mean: grey level that becomes 0.
        std: grey levels that become 1.
        zoom: whether boxes are resized at all.
        augmentation: what may happen to crops; the cuts say what does.
    """

    store: Store
    shape: tuple[int, int] = flax.struct.field(pytree_node=False)
    window: tuple[int, int] = flax.struct.field(pytree_node=False)
    mean: float = flax.struct.field(pytree_node=False)
    std: float = flax.struct.field(pytree_node=False)
    zoom: bool = flax.struct.field(pytree_node=False)
    augmentation: Augmentation = flax.struct.field(pytree_node=False)

    def __call__(self, cuts: Cuts) -> Batch:
        """The batch, as batch.collate makes it of the same crops."""
        image, density = jax.vmap(self._crop)(cuts)
        return Batch(image, density[..., None], cuts.size, cuts.count, cuts.group, cuts.weight)

    def _crop(self, cut: Cuts) -> tuple[jax.Array, jax.Array]:
        top, left, h, w = cut.box
        rows = top + jnp.minimum(jnp.arange(self.window[0]), h - 1)
        columns = left + jnp.minimum(jnp.arange(self.window[1]), w - 1)
        pixel = self.store.start[cut.picture] + rows[:, None] * self.store.width[cut.picture]
        pixel = pixel + columns
        image = self.store.image[pixel].astype(jnp.float32)
        density = self.store.density[pixel]
        resized = functools.partial(_resize, self.shape, cut.box[2:], cut.size)
        if self.zoom:
            image, density = resized(image, density)
        else:
            image, density = (self._fit(x) for x in (image, density))
        valid = _inside(self.shape[0], cut.size[0])[:, None] & _inside(self.shape[1], cut.size[1])
        density = jnp.where(valid & (cut.weight > 0), density, 0)
        image = self._augment(image, valid[..., None], cut)
        image = jnp.where(valid[..., None], (image - self.mean) / self.std, 0)
        if_flipped = lambda x: jnp.where(cut.flip, _flip(x, cut.size[1]), x)  # noqa: E731
        image, density = if_flipped(image), if_flipped(density)
        return jnp.where(cut.weight > 0, image, 0), density

    def _fit(self, x: jax.Array) -> jax.Array:
        """Cut or padded at the bottom and the right to the batch's shape."""
        pad = [(0, max(n - m, 0)) for n, m in zip(self.shape, x.shape, strict=False)]
        return jnp.pad(x, [*pad, *[(0, 0)] * (x.ndim - 2)])[: self.shape[0], : self.shape[1]]

    def _augment(self, image: jax.Array, valid: jax.Array, cut: Cuts) -> jax.Array:
        if self.augmentation.grey and image.shape[-1] == 3:
            image = jnp.where(cut.grey, grey_levels(image), image)
        if self.augmentation.sharpness:
            smooth = image
            for axis, side in enumerate((cut.size[0], cut.size[1])):
                taps = zip(DETAIL_KERNEL, mirrored(jnp, self.shape[axis], side), strict=True)
                smooth = sum(weight * jnp.take(smooth, at, axis) for weight, at in taps)
            image = smooth + cut.sharpness * (image - smooth)
        mean = jnp.sum(jnp.where(valid, image, 0)) / (jnp.sum(valid) * image.shape[-1])
        lit = (image - mean) * cut.contrast + (mean + cut.brightness)
        noise = jax.random.uniform(jax.random.key(cut.seed), self.shape, minval=-1, maxval=1)
        changed = lit + cut.noise * noise[..., None]
        return jnp.clip(changed, 0, 255) if self.augmentation.clip else changed


def cutter(
    pictures: Pictures,
    rule: CropRule,
    shape: tuple[int, int],
    *,
    mean: float,
    std: float,
    augmentation: Augmentation,
) -> Cutter:
    """The cutter of training pictures; decodes them.

    Args:
        pictures: to be stored.
        rule: of the crops, of mode 'fixed' and without jpeg.
        shape: (H, W) of the batches.
        mean: as in Cutter.
        std: as in Cutter.
        augmentation: as in Cutter.

    Raises:
        UserError: as `store`.
    """
    largest = [0, 0]
    for entry in pictures.index:
        sides = (entry.height, entry.width)
        crop = rule.size(*sides)
        for axis in (0, 1):
            shown = min(math.ceil(crop[axis] * (1 + rule.zoom)), sides[axis])
            largest[axis] = max(largest[axis], shown)
    return Cutter(store(pictures), shape, tuple(largest), mean, std, rule.zoom > 0, augmentation)


def _inside(number: int, limit: jax.Array) -> jax.Array:
    return jnp.arange(number) < limit


def _flip(x: jax.Array, width: jax.Array) -> jax.Array:
    """The first `width` columns in reverse order; the others stay."""
    column = jnp.arange(x.shape[1])
    return x[:, jnp.where(column < width, width - 1 - column, column)]


def _resize(shape, old, new, image, density):
    """What input_pipeline.resize.crop does: image [h, w, C] and density [h, w] to `shape`.

    The first `old` rows and columns become `new` ones; of the rest of the result nothing is said.
    """
    precise = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    areas = [
        _overlaps(n, m, limit, size)
        for n, m, limit, size in zip(shape, image.shape[:2], old, new, strict=True)
    ]
    cubics = [
        _cubic(n, m, limit, size)
        for n, m, limit, size in zip(shape, image.shape[:2], old, new, strict=True)
    ]
    shrinks = new[0] * new[1] < old[0] * old[1]
    down, right = (
        jnp.where(shrinks, area * (size / limit), cubic)
        for area, cubic, limit, size in zip(areas, cubics, old, new, strict=True)
    )
    image = precise("ih,hwc,jw->ijc", down, image, right)
    density = precise("ih,hw,jw->ij", areas[0], density, areas[1])
    return jnp.clip(jnp.round(image), 0, 255), density


def _overlaps(n: int, m: int, old: jax.Array, new: jax.Array) -> jax.Array:
    """[n, m]: the part of old pixel j that lies in new pixel i, where `old` pixels become `new`."""
    step = old / new
    low = (jnp.arange(n) * step)[:, None]
    pixel = jnp.arange(m)
    part = jnp.minimum(low + step, pixel + 1) - jnp.maximum(low, pixel)
    return jnp.where(_inside(m, old), jnp.clip(part, 0, 1), 0)


def _cubic(n: int, m: int, old: jax.Array, new: jax.Array) -> jax.Array:
    """[n, m]: weights of bicubic interpolation; beyond the border its pixel is repeated."""
    at = (jnp.arange(n) + 0.5) * (old / new) - 0.5
    first = jnp.floor(at).astype(jnp.int32)
    weights = jnp.zeros((n, m))
    for tap in range(-1, 3):
        distance = jnp.abs(at - (first + tap))
        near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance**2 + 1
        far = ((distance - 5) * distance + 8) * distance * _CUBIC - 4 * _CUBIC
        weight = jnp.where(distance <= 1, near, jnp.where(distance < 2, far, 0))
        pixel = jnp.clip(first + tap, 0, old - 1)
        weights += weight[:, None] * (jnp.arange(m) == pixel[:, None])
    return weights
