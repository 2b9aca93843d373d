"""Random crops of pictures with their density maps, flips and noise."""

import dataclasses

import numpy as np

from cmtl_jax.input_pipeline.batch import Crop
from cmtl_jax.input_pipeline.pictures import Picture


@dataclasses.dataclass(frozen=True)
class CropRule:
    """How large a crop is.

    Attributes:
        mode: 'quarter' (paper, 4: a quarter of each side of the picture), or 'fixed'.
        height: pixels, of mode 'fixed'; a smaller picture is taken whole.
        width: likewise.
    """

    mode: str
    height: int
    width: int

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the crops of a picture of height x width."""
        if self.mode == "quarter":
            return max(1, height // 4), max(1, width // 4)
        return min(height, self.height), min(width, self.width)

    def place(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Top, left, height, width (pixels) of a random crop; all positions equally likely."""
        h, w = self.size(height, width)
        return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What happens to a crop.

    Attributes:
        flip: probability of a horizontal flip.
        noise: probability of noise.
        noise_level: the noise is uniform within +- this many grey levels (authors' code: 10).
    """

    flip: float = 0.0
    noise: float = 0.0
    noise_level: float = 0.0


def points_inside(points: np.ndarray, top: int, left: int, h: int, w: int) -> np.ndarray:
    """Head points [N, 2] whose pixel lies in the crop, in the crop's coordinates."""
    moved = points - np.array([left, top], points.dtype)
    pixel = np.floor(moved)
    inside = (pixel >= 0).all(axis=1) & (pixel[:, 0] < w) & (pixel[:, 1] < h)
    return moved[inside]


def random_crop(picture: Picture, rule: CropRule, rng: np.random.Generator) -> Crop:
    """A random crop. Its density is cut out of the picture's: heads at its edge count in part."""
    top, left, h, w = rule.place(*picture.image.shape[:2], rng)
    rows, columns = slice(top, top + h), slice(left, left + w)
    return Crop(
        picture.image[rows, columns],
        picture.density[rows, columns],
        points_inside(picture.points, top, left, h, w),
    )


def augment(crop: Crop, augmentation: Augmentation, rng: np.random.Generator) -> Crop:
    """Flips and adds noise, each with its probability. Grey levels stay within 0..255.

    Flipped head points are given by their pixel; the position within it is lost.
    """
    image, density, points = crop
    flip, noise = rng.random(2) < (augmentation.flip, augmentation.noise)
    if flip:
        image, density = image[:, ::-1], density[:, ::-1]
        points = points.copy()
        points[:, 0] = image.shape[1] - 1 - np.floor(points[:, 0])
    if noise:
        level = augmentation.noise_level
        grey = rng.uniform(-level, level, image.shape[:2]).astype(np.float32)
        image = np.clip(image + grey[..., None], 0, 255)
    return Crop(image, density, points)
