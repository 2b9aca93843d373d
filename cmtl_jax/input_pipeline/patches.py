"""Stored patches: a fixed set of crops of every picture, as the paper and the authors' code take.

Nothing is written to disk. A patch is cut out of its picture when it is wanted, at a position that
depends on the seed and the picture's id alone: the training set is the same as if it were stored.
"""

import functools
import hashlib

import numpy as np

from cmtl_jax.datasets.prepare import IndexEntry
from cmtl_jax.input_pipeline.batch import Crop
from cmtl_jax.input_pipeline.crops import Augmentation, CropRule, augment, cut, points_inside
from cmtl_jax.input_pipeline.picture import Picture
from cmtl_jax.input_pipeline.pictures import Pictures

COPIES = 3  # a crop, its flipped and its noisy copy


class Patches:
    """A random-access sequence of patches, to be used as Pictures are.

    Patch k of picture p is at position p * number + k; its id is `<id of the picture>_<k + 1>`, as
    the authors call their files. Safe for threads.
    """

    def __init__(
        self,
        pictures: Pictures,
        rule: CropRule,
        number: int,
        seed: int,
        *,
        noise_level: float | None = None,
    ):
        """Draws the positions; no picture is read.

        Args:
            pictures: to cut the patches out of.
            rule: of their sizes and positions.
            number: of patches a picture.
            seed: of positions and noise.
            noise_level: None: all patches are crops (authors' code: 9, flipped and made noisy as
                they are read). Otherwise the last two thirds are copies of the first: flipped,
                then with uniform noise of +- this many grey levels, in whole levels from 0 to 255
                like all stored pictures (paper, 3.5: 100 crops, and "flipping and noise addition
                are used to create another 200"; that it is 100 of either is our reading).

        Raises:
            ValueError: copies are wanted, and number is no multiple of 3.
        """
        if noise_level is not None and number % COPIES:
            raise ValueError(f"{number} patches are no crops with a flipped and a noisy copy each")
        self.channels = pictures.channels
        self.number = number
        self._pictures = pictures
        self._seed = seed
        self._noise_level = noise_level
        self._jpeg = rule.jpeg
        self._crops = number if noise_level is None else number // COPIES  # of a picture
        self._boxes = []
        for entry in pictures.index:
            rng = np.random.default_rng([seed, _key(entry.id)])
            boxes = [rule.place(entry.height, entry.width, rng) for _ in range(self._crops)]
            self._boxes.append(boxes)

    def __len__(self) -> int:
        return self.number * len(self._boxes)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of each patch, without reading anything."""
        crops = range(self.number)
        return [boxes[k % self._crops][2:] for boxes in self._boxes for k in crops]

    @functools.cached_property
    def index(self) -> list[IndexEntry]:
        """Id, height, width and number of head points of each patch; reads the head points."""
        entries = []
        for position, entry in enumerate(self._pictures.index):
            points = self._pictures.points(position)
            boxes = self._boxes[position]
            counts = [len(points_inside(points, *box)) for box in boxes]
            for k in range(self.number):
                crop = k % self._crops
                entries.append(IndexEntry(f"{entry.id}_{k + 1}", *boxes[crop][2:], counts[crop]))
        return entries

    def truth(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Head points [N, 2] and density [h, w] of the crop that a patch is or is a copy of."""
        _, crop, _ = self._crop(position)
        return crop.points, crop.density

    def original(self, position: int) -> Picture:
        """The patch: patches are not resized for evaluation."""
        return self[position]

    def __getitem__(self, position: int) -> Picture:
        """A patch.

        Raises:
            UserError: its picture is damaged.
            IndexError: there is no such position.
        """
        picture, crop, k = self._crop(position)
        copy = k // self._crops
        if copy == 1:
            crop = augment(crop, Augmentation(flip=1.0), np.random.default_rng(0))
        elif copy == 2:
            rng = np.random.default_rng([self._seed, _key(picture.id), k])
            noise = Augmentation(noise=1.0, noise_level=self._noise_level)
            noisy = augment(crop, noise, rng)
            crop = noisy._replace(image=np.rint(noisy.image).astype(np.uint8))
        return Picture(f"{picture.id}_{k + 1}", crop.image, crop.points, crop.density)

    def _crop(self, position: int) -> tuple[Picture, Crop, int]:
        """A patch's picture, the crop it is made of, and its number within the picture."""
        if not 0 <= position < len(self):
            raise IndexError(f"patch {position} of {len(self)}")
        i, k = divmod(int(position), self.number)
        picture = self._pictures[i]
        return picture, cut(picture, *self._boxes[i][k % self._crops], jpeg=self._jpeg), k


def _key(id_: str) -> int:
    return int.from_bytes(hashlib.sha256(id_.encode()).digest()[:16])
