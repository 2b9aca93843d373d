"""What all data sets have in common: features, record order, index, density rule."""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from cmtl_jax import pictures
from cmtl_jax.datasets import annotations
from cmtl_jax.datasets.density_map import DensityRule, apply_outside, density_map
from cmtl_jax.errors import UserError

FILE_FORMAT = "array_record"  # the format TFDS writes and reads at random without TensorFlow

# TFDS keeps the examples of a shard in memory until it is written; a density map takes 4 bytes
# per pixel.
_SHARD_PICTURES = 64
_SHARD_PIXELS = 50_000_000


@dataclasses.dataclass(eq=False)
class CrowdConfig(tfds.core.BuilderConfig):
    """A data set's variant, with the rule of its density maps; the name tells all of it."""

    rule: DensityRule = DensityRule()

    @classmethod
    def named(cls, base: str, rule: DensityRule, **fields) -> "CrowdConfig":
        """A config called `base` with the default rule, `base-<slug>` with another."""
        name = base if rule == DensityRule() else f"{base}-{rule.slug}"
        return cls(name=name, rule=rule, **fields)


@dataclasses.dataclass(frozen=True)
class Item:
    """A picture with its annotation, not read yet.

    Attributes:
      id: unique in its split.
      files: picture and annotation; empty where they are computed.
      read: gives (encoded picture, float32 [N, 2] points, pixels, 0-based).
      pixels: gives the number of pixels without decoding the picture.
    """

    id: str
    files: tuple[pathlib.Path, ...]
    read: Callable[[], tuple[bytes, np.ndarray]]
    pixels: Callable[[], int]

    @classmethod
    def of_files(
        cls,
        id: str,
        picture: pathlib.Path,
        annotation: pathlib.Path,
        reader: Callable[[pathlib.Path], np.ndarray],
    ) -> "Item":
        """A picture file and the annotation file that belongs to it."""
        return cls(
            id=id,
            files=(picture, annotation),
            read=lambda: (pictures.read_bytes(picture), reader(annotation)),
            pixels=lambda: int(np.prod(pictures.size(picture))),
        )


class Found(NamedTuple):
    """The contents of a raw folder.

    Attributes:
      splits: name to items, in record order; splits that are missing are absent.
      warnings: one line each, for people.
    """

    splits: dict[str, list[Item]]
    warnings: list[str]


class Encoded(NamedTuple):
    """One record as `encode` makes it, with what the index keeps of it."""

    example: dict
    height: int
    width: int
    count: int
    annotated: int
    outside: int


def encode(item: Item, rule: DensityRule) -> Encoded:
    """Reads a picture and its points and makes the record.

    The picture is decoded once, so that a damaged file is found now and not in training.

    Raises:
      UserError: damaged picture or annotation, or x and y swapped.
    """
    data, points = item.read()
    name = str(item.files[0]) if item.files else item.id
    is_plain = pictures.plain(data)
    pixels = pictures.decode(data, name, channels=1 if is_plain else 3)
    height, width = pixels.shape[:2]
    annotation = str(item.files[-1]) if item.files else item.id
    outside = annotations.check_points(points, height, width, annotation)
    inside = apply_outside(points, height, width, rule.outside)
    example = {
        "image": data if is_plain else pictures.encode_png(pixels),
        "density": density_map(inside, height, width, rule)[..., None],
        "points": inside,
        "count": len(inside),
        "id": item.id,
    }
    return Encoded(example, height, width, len(inside), len(points), outside)


def fingerprint(items: list[Item]) -> str:
    """Changes with the ids, file names and file sizes of a split."""
    digest = hashlib.sha256()
    for item in items:
        files = [(file.name, file.stat().st_size) for file in item.files]
        digest.update(repr((item.id, files)).encode())
    return digest.hexdigest()


def _shards(items: list[Item]) -> list[list[Item]]:
    shards, pixels = [[]], 0
    for item in items:
        size = item.pixels()
        if shards[-1] and (len(shards[-1]) >= _SHARD_PICTURES or pixels + size > _SHARD_PIXELS):
            shards.append([])
            pixels = 0
        shards[-1].append(item)
        pixels += size
    return shards


# TFDS's GeneratorBasedBuilder collects a split in memory and, from 1 GB on, needs TensorFlow to
# spill it to disk; ShardBasedBuilder writes shard by shard, in the order given.
class CrowdBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """An ordinary TFDS builder of pictures with head points and density maps.

    Features: `image`, encoded as in the file where that is plain (else PNG) and decoded by TFDS
    as uint8 [H, W, 3]; `density` float32 [H, W, 1], people per pixel; `points` float32 [N, 2]
    (x, y), pixels, 0-based, all inside the picture; `count` int32, N; `id`. Records stand in
    natural order of their ids. `info.metadata["splits"]` holds, per split, `index` (id, height,
    width and count of each record), `annotated` (head points in the files), `outside` (those
    of them outside their picture) and `fingerprint` of the raw files.

    Prepare with `file_format="array_record"`: TFDS needs TensorFlow for its own default.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    DESCRIPTION = "Pictures of crowds with head points and density maps."
    CITATION = ""
    HOMEPAGE = ""

    # Nothing is downloaded; TFDS's search for checksums needs a package it does not ask for.
    url_infos: dict = {}

    found: Found | None = None  # set by those who have searched the raw folder already
    on_picture: Callable[[], None] | None = None  # called after each picture

    @property
    def rule(self) -> DensityRule:
        """The rule of the density maps."""
        return self.builder_config.rule if self.builder_config else DensityRule()

    def find(self, raw_dir: pathlib.Path | None) -> Found:
        """Lists what a raw folder holds, without reading it.

        Raises:
          UserError: the data set is not there.
        """
        raise NotImplementedError

    def fingerprint(self, items: list[Item]) -> str:
        """Changes whenever the split has to be prepared again."""
        return fingerprint(items)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    # Three channels serve grey files too: TFDS repeats their one channel.
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "density": tfds.features.Tensor(
                        shape=(None, None, 1),
                        dtype=np.float32,
                        encoding=tfds.features.Encoding.BYTES,
                    ),
                    "points": tfds.features.Tensor(shape=(None, 2), dtype=np.float32),
                    "count": np.int32,
                    "id": tfds.features.Text(),
                }
            ),
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
            homepage=self.HOMEPAGE,
            citation=self.CITATION,
        )

    def _shard_iterators_per_split(self, dl_manager) -> dict[str, list[Callable]]:
        raw_dir = dl_manager.manual_dir if self.MANUAL_DOWNLOAD_INSTRUCTIONS else None
        found = self.found or self.find(raw_dir and pathlib.Path(raw_dir))
        self.info.metadata["splits"] = {
            split: {
                "fingerprint": self.fingerprint(items),
                "annotated": 0,
                "outside": 0,
                "index": [],
            }
            for split, items in found.splits.items()
        }
        return {
            split: [
                functools.partial(self._generate_examples, split, shard) for shard in _shards(items)
            ]
            for split, items in found.splits.items()
        }

    def _generate_examples(self, split: str, items: list[Item]) -> Iterator[tuple[str, dict]]:
        about = self.info.metadata["splits"][split]
        for item in items:
            record = encode(item, self.rule)
            about["index"].append([item.id, record.height, record.width, record.count])
            about["annotated"] += record.annotated
            about["outside"] += record.outside
            if self.on_picture:
                self.on_picture()
            yield item.id, record.example


def missing(looked_for: pathlib.Path | None, layout: str, source: str) -> UserError:
    """The error of a data set that is not there; None where no folder was given."""
    where = f"in {looked_for}" if looked_for else "as no folder was given"
    return UserError(
        f"data set not found {where}; expected {layout}. Get it from {source}, unpack it "
        "and pass the folder with --config.dataset.raw_dir=DIR"
    )


def natural(text: str) -> list:
    """Sort key that puts IMG_2 before IMG_10."""
    digits = "".join(c if c.isdigit() and c.isascii() else " " for c in text).split()
    parts = []
    for number in digits:
        before, _, text = text.partition(number)
        parts += [before, int(number)]
    return parts + [text]
