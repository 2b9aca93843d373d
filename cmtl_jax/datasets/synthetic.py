"""Drawn crowds, and textures without people: no download, exact annotations, any size."""

import dataclasses
import hashlib
import inspect
import pathlib

import cv2
import numpy as np

from cmtl_jax import pictures
from cmtl_jax.datasets import paint, photograph, scenes, textures
from cmtl_jax.datasets.crowd_builder import CrowdBuilder, CrowdConfig, Found, Item
from cmtl_jax.datasets.density_map import DensityRule
from cmtl_jax.errors import UserError

SPLITS = ("train", "test")


@dataclasses.dataclass(eq=False)
class SyntheticConfig(CrowdConfig):
    """Numbers of pictures, ranges of their sides in pixels (ends included), and the seed.

    `people` in each picture; None: as many as are drawn at random. `enlarge` times the sides drawn
    are those of the picture, which then is soft as photos are, not sharp to the pixel. With
    `textures` each is a surface with nobody on it, in place of a scene.
    """

    num_train: int = 64
    num_test: int = 16
    height: tuple[int, int] = (192, 256)
    width: tuple[int, int] = (256, 320)
    seed: int = 0
    people: int | None = None
    enlarge: int = 1
    textures: bool = False

    @property
    def base(self) -> str:
        """The name without the density rule."""
        height, width = ("-".join(map(str, sides)) for sides in (self.height, self.width))
        name = f"train{self.num_train}-test{self.num_test}-h{height}-w{width}-seed{self.seed}"
        if self.people is not None:
            name += f"-people{self.people}"
        if self.enlarge != 1:
            name += f"-enlarge{self.enlarge}"
        return f"{name}-textures" if self.textures else name


def _default() -> SyntheticConfig:
    config = SyntheticConfig(name="")
    config.name = config.base
    return config


def _generator(seed: int, split: str, index: int) -> np.random.Generator:
    return np.random.default_rng([seed, SPLITS.index(split), index])


def _is_whole(value, least: int, most: int | None = None) -> bool:
    """Whether it is a whole number within these limits."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and least <= value and (most is None or value <= most)


class Synthetic(CrowdBuilder):
    """Drawn crowds, splits train and test; the same config always gives the same pictures."""

    name = "synthetic"
    DESCRIPTION = "Drawn crowds with exact head points, for tests and first steps."
    BUILDER_CONFIGS = [_default()]

    @classmethod
    def config(
        cls,
        rule: DensityRule,
        raw_dir=None,
        *,
        num_train: int = SyntheticConfig.num_train,
        num_test: int = SyntheticConfig.num_test,
        height: tuple[int, int] = SyntheticConfig.height,
        width: tuple[int, int] = SyntheticConfig.width,
        seed: int = SyntheticConfig.seed,
        people: int | None = SyntheticConfig.people,
        enlarge: int = SyntheticConfig.enlarge,
        textures: bool = SyntheticConfig.textures,
    ) -> CrowdConfig:
        """The config of a drawn data set.

        Raises:
          UserError: no pictures at all, no range of sides or an empty one, more people than can be
            drawn or fewer than none, people on textures, or no whole number of anything.
        """
        for name, number, least, most in (
            ("num_train", num_train, 0, None),
            ("num_test", num_test, 0, None),
            ("seed", seed, 0, None),
            ("people", 0 if people is None else people, 0, scenes.MOST_PEOPLE),
            ("enlarge", enlarge, 1, None),
        ):
            if not _is_whole(number, least, most):
                limit = f"from {least} on" if most is None else f"from {least} to {most}"
                raise UserError(f"synthetic: {name} is a whole number {limit}, not {number!r}")
        if num_train + num_test < 1:
            raise UserError("synthetic: num_train and num_test are both 0; ask for a picture")
        if textures and people:
            raise UserError("synthetic: there are no people on textures; leave out one of the two")
        for name, sides in (("height", height), ("width", width)):
            is_pair = isinstance(sides, tuple | list) and len(sides) == 2
            whole = is_pair and all(_is_whole(side, scenes.MIN_SIDE) for side in sides)
            if not whole or sides[0] > sides[1]:
                raise UserError(
                    f"synthetic: {name} is a range of sides (least, most), whole numbers from "
                    f"{scenes.MIN_SIDE} on, not {sides!r}"
                )
        height, width = tuple(height), tuple(width)
        fields = dict(
            num_train=num_train, num_test=num_test, height=height, width=width, seed=seed,
            people=people, enlarge=enlarge, textures=bool(textures),
        )  # fmt: skip
        return SyntheticConfig.named(SyntheticConfig(name="", **fields).base, rule, **fields)

    def find(self, raw_dir: pathlib.Path | None = None) -> Found:
        """Lists the pictures to draw; needs no folder."""
        config = self.builder_config
        numbers = {"train": config.num_train, "test": config.num_test}
        return Found(
            {
                split: [self._item(split, index) for index in range(number)]
                for split, number in numbers.items()
                if number
            },
            [],
        )

    def fingerprint(self, items: list[Item]) -> str:
        """Changes with the code that draws; the config's name holds the rest."""
        drawn = textures if self.builder_config.textures else scenes
        sources = "".join(map(inspect.getsource, (paint, photograph, drawn)))
        return hashlib.sha256(sources.encode()).hexdigest()

    def _item(self, split: str, index: int) -> Item:
        config = self.builder_config
        generator = _generator(config.seed, split, index)
        height = int(generator.integers(config.height[0], config.height[1], endpoint=True))
        width = int(generator.integers(config.width[0], config.width[1], endpoint=True))
        seed = int(generator.integers(2**31))

        def read() -> tuple[bytes, np.ndarray]:
            if config.textures:
                picture = textures.render_texture(seed, height, width)
                points = np.zeros((0, 2), np.float32)
            else:
                scene = scenes.render_scene(seed, height, width, people=config.people)
                picture, points = scene.picture, scene.points
            times = config.enlarge
            if times > 1:
                picture = cv2.resize(
                    picture, (width * times, height * times), interpolation=cv2.INTER_CUBIC
                )
            points = (points + np.float32(0.5)) * times - np.float32(0.5)
            return pictures.encode_png(picture), points

        return Item(f"{split}_{index}", (), read, lambda: height * width * config.enlarge**2)
