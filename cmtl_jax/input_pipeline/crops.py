"""Random crops of pictures with their density maps, and what augmentation does to them."""

import dataclasses
import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from cmtl_jax.input_pipeline import resize
from cmtl_jax.input_pipeline.batch import Crop
from cmtl_jax.input_pipeline.picture import Picture
from cmtl_jax.pictures import LUMA

# A Gaussian of 1 pixel.
_GAUSSIAN = np.exp(-0.5 * np.arange(-3.0, 4.0) ** 2)
DETAIL_KERNEL = tuple(np.float32(weight) for weight in _GAUSSIAN / _GAUSSIAN.sum())


@dataclasses.dataclass(frozen=True)
class CropRule:
    """How large a crop is, where it may lie, and how it is kept.

    Attributes:
        mode: 'fixed', 'quarter' (paper, 3.5: a quarter of each side of the picture), or 'released'
            (authors' code: 16 * floor(side / 64), about the same and a multiple of 16).
        height: pixels, of mode 'fixed'; a smaller picture is taken whole.
        width: likewise.
        range: 'all' (every position within the picture is equally likely, and so the borders of
            pictures are seldom seen), 'centres' (ours: the centre is any pixel of the picture, and
            the crop is then moved inside: borders are seen as much as the middle), or 'released'
            (authors' code: 'all' without the last two positions, and so the last two rows and
            columns of a picture are never reached).
        zoom: the sides of what a crop shows are between 1 / (1 + zoom) and 1 + zoom times the
            crop's own, evenly in the logarithm, and resized to it: heads of other sizes (ours).
        jpeg: quality of a JPEG that the crop is written to and read from (authors' code: 75, its
            framework's default); 0: not.
    """

    mode: str
    height: int = 0
    width: int = 0
    range: str = "all"
    jpeg: int = 0
    zoom: float = 0.0

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the crops of a picture of height x width.

        A side below 64 pixels, of which the authors' code makes an empty patch, gives one of 16
        pixels in mode 'released', or the whole side if that is less.
        """
        if self.mode == "quarter":
            return max(1, height // 4), max(1, width // 4)
        if self.mode == "released":
            return _released_side(height), _released_side(width)
        return min(height, self.height), min(width, self.width)

    def place(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Top, left, height, width (pixels) of what a random crop shows."""
        h, w = self.size(height, width)
        if self.zoom:
            factor = (1 + self.zoom) ** rng.uniform(-1, 1)
            h, w = (
                min(max(round(side * factor), 1), limit)
                for side, limit in ((h, height), (w, width))
            )
        return self._start(height, h, rng), self._start(width, w, rng), h, w

    def _start(self, side: int, crop: int, rng: np.random.Generator) -> int:
        last = side - crop
        if self.range == "centres":
            return min(max(int(rng.integers(side)) - crop // 2, 0), last)
        if self.range == "all":
            return int(rng.integers(last + 1))
        # Theirs is floor((b - a) * rand + a) for the centre, 1-based, where a = crop / 2 + 1 and
        # b = side - crop / 2: 0-based and for the first pixel, floor((side - crop - 1) * rand).
        return int(max(last - 1, 0) * rng.random())


def _released_side(side: int) -> int:
    return 16 * (side // 64) or min(side, 16)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What happens to a crop.

    Attributes:
        flip: probability of a horizontal flip.
        noise: probability of noise.
        noise_level: the noise is uniform within +- this many grey levels (authors' code: 10).
        contrast: grey levels' distances from the crop's mean are multiplied by a factor within
            1 +- this (ours).
        brightness: within +- this many grey levels are added to all (ours).
        sharpness: detail finer than a Gaussian of 1 pixel is multiplied by a factor within 1 +-
            this (ours): other lenses, other resizing before the picture came here.
        grey: probability that a crop in colours loses them (ours): old and grey photographs.
        clip: keep noisy grey levels within 0..255 (ours); the authors' code does not.
    """

    flip: float = 0.0
    noise: float = 0.0
    noise_level: float = 0.0
    clip: bool = True
    contrast: float = 0.0
    brightness: float = 0.0
    sharpness: float = 0.0
    grey: float = 0.0

    @classmethod
    def of(cls, keys: Mapping[str, Any]) -> "Augmentation":
        """That of keys of these names, such as those of config.augment."""
        return cls(**{field.name: keys[field.name] for field in dataclasses.fields(cls)})

    @property
    def light(self) -> bool:
        """Whether the light changes."""
        return bool(self.contrast or self.brightness)

    def draw(self, rng: np.random.Generator) -> "Drawn":
        """What happens to one crop."""
        flip, noise = rng.random(2) < (self.flip, self.noise)
        factor = added = 0.0
        if self.light:
            factor, added = rng.uniform(-1, 1, 2) * (self.contrast, self.brightness)
        sharpness = 1.0
        if self.sharpness:
            sharpness += rng.uniform(-1, 1) * self.sharpness
        grey = bool(self.grey) and rng.random() < self.grey
        return Drawn(flip, noise, 1 + factor, added, sharpness, grey)


class Drawn(NamedTuple):
    """What happens to one crop.

    Attributes:
        flip: whether it is flipped.
        noise: whether it gets noise.
        contrast: factor of the distances from its mean grey level.
        brightness: grey levels added.
        sharpness: factor of its fine detail.
        grey: whether it loses its colours.
    """

    flip: bool
    noise: bool
    contrast: float
    brightness: float
    sharpness: float
    grey: bool


def points_inside(points: np.ndarray, top: int, left: int, h: int, w: int) -> np.ndarray:
    """Head points [N, 2] whose pixel lies in the crop, in the crop's coordinates."""
    moved = points - np.array([left, top], points.dtype)
    pixel = np.floor(moved)
    inside = (pixel >= 0).all(axis=1) & (pixel[:, 0] < w) & (pixel[:, 1] < h)
    return moved[inside]


def whole(picture: Picture) -> Crop:
    """The whole picture."""
    return Crop(picture.image, picture.density, picture.points)


def random_crop(picture: Picture, rule: CropRule, rng: np.random.Generator) -> Crop:
    """A random crop. Its density is cut out of the picture's: heads at its edge count in part."""
    size = picture.image.shape[:2]
    crop = cut(picture, *rule.place(*size, rng), jpeg=rule.jpeg)
    return resize.crop(crop, rule.size(*size)) if rule.zoom else crop


def cut(picture: Picture, top: int, left: int, h: int, w: int, *, jpeg: int = 0) -> Crop:
    """The crop of h x w pixels whose first pixel is (left, top); jpeg as in CropRule."""
    rows, columns = slice(top, top + h), slice(left, left + w)
    image = picture.image[rows, columns]
    return Crop(
        _reencode(image, jpeg) if jpeg else image,
        picture.density[rows, columns],
        points_inside(picture.points, top, left, h, w),
    )


def _reencode(image: np.ndarray, quality: int) -> np.ndarray:
    grey = image.shape[2] == 1
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if grey else image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer)).reshape(image.shape)


def sharpened(image: np.ndarray, factor: float) -> np.ndarray:
    """Grey levels [h, w, C] with their fine detail times factor: float32, not clipped.

    0 leaves the Gaussian average of 1 pixel, 1 the picture as it is. Beyond its border the picture
    is mirrored.
    """
    image = image.astype(np.float32)
    smooth = image
    for axis in (0, 1):
        n = image.shape[axis]
        taps = zip(DETAIL_KERNEL, mirrored(np, n, n), strict=True)
        smooth = sum(weight * np.take(smooth, at, axis) for weight, at in taps)
    return smooth + np.float32(factor) * (image - smooth)


def mirrored(xp, number: int, side) -> list:
    """For each tap of DETAIL_KERNEL, where `number` pixels of a side find it.

    Args:
        xp: numpy or jax.numpy.
        number: pixels asked for.
        side: pixels there are; it may be traced.
    """
    reach = len(DETAIL_KERNEL) // 2
    period = xp.maximum(2 * (side - 1), 1)  # a picture of one pixel is its own mirror
    found = []
    for tap in range(-reach, reach + 1):
        at = (xp.arange(number) + tap) % period
        found.append(xp.clip(xp.minimum(at, period - at), 0, side - 1))
    return found


def grey_levels(image):
    """Those of colours [h, w, 3], a numpy or jax array: float32 [h, w, 1]."""
    return sum(np.float32(share) * image[..., i : i + 1] for i, share in enumerate(LUMA))


def augment(crop: Crop, augmentation: Augmentation, rng: np.random.Generator) -> Crop:
    """Changes colours, sharpness and light, flips and adds noise: what Augmentation says.

    Flipped head points are given by their pixel; the position within it is lost.
    """
    image, density, points = crop
    flip, noise, contrast, brightness, sharpness, grey = augmentation.draw(rng)
    if grey and image.shape[2] == 3:
        image = np.broadcast_to(grey_levels(image), image.shape)
    if augmentation.sharpness:
        image = sharpened(image, sharpness)
    if augmentation.light:
        mean = image.mean(dtype=np.float32)
        image = (image - mean) * np.float32(contrast) + (mean + np.float32(brightness))
    if flip:
        image, density = image[:, ::-1], density[:, ::-1]
        points = points.copy()
        points[:, 0] = image.shape[1] - 1 - np.floor(points[:, 0])
    if noise:
        level = augmentation.noise_level
        added = rng.uniform(-level, level, image.shape[:2]).astype(np.float32)
        image = image + added[..., None]
    if augmentation.clip and (augmentation.light or augmentation.sharpness or noise):
        image = np.clip(image, 0, 255)
    return Crop(image, density, points)
