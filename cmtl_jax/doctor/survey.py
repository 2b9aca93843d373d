"""What one raw picture and its annotation are, read as the preparation of a data set reads them."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import io
import math
import os
import pathlib
import sys
import threading
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import scipy.io
from PIL import Image
from tqdm import tqdm

from cmtl_jax import console, pictures
from cmtl_jax.datasets.crowd_builder import Item
from cmtl_jax.datasets.density_map import DensityRule, apply_outside, density_map
from cmtl_jax.doctor import alignment, twins
from cmtl_jax.doctor.finding import Finding
from cmtl_jax.errors import UserError
from cmtl_jax.head_spacing import head_spacing

_ORIENTATION = 0x0112  # EXIF tag
_PNG_DEPTH = 24  # offset in the header of a PNG file
_DEPTHS = {"1": "1 bit", "L": "8 bit", "RGB": "8 bit", "P": "palette", "CMYK": "CMYK"}
_GREY = 4  # levels by which the channels of a grey picture differ after compression as colour
_THREADS = 8
_LARGE = 25_000_000  # pixels; of such pictures one is decoded at a time
_large = threading.Lock()


@dataclasses.dataclass(frozen=True, eq=False)
class Kind:
    """A picture file as it is stored.

    Attributes:
        format: 'JPEG', 'PNG', ...
        depth: '8 bit', '16 bit', 'palette', 'CMYK', 'transparent', ...
        orientation: EXIF, 1 upright to 8.
        suffix_fits: whether the file's name says its format.
    """

    format: str
    depth: str
    orientation: int
    suffix_fits: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture; height and width in pixels, turned as its EXIF orientation says.

    Attributes:
        kind: of the file.
        height: pixels.
        width: pixels.
        colour: whether it has any; false for grey stored in three channels.
        digest: of the grey pixels and the sides; equal for equal pictures.
        thumbnail: see `twins.thumbnail`.
        texture: see `alignment.texture`.
    """

    kind: Kind
    height: int
    width: int
    colour: bool
    digest: bytes
    thumbnail: np.ndarray
    texture: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """One picture of a data set with its annotation; what could not be read is told instead.

    Attributes:
        split: of the data set.
        id: unique in its split.
        files: (picture, annotation), as text.
        picture: None where it cannot be decoded.
        picture_error: why.
        points: float32 [N, 2] (x, y), pixels, 0-based; None where they cannot be read.
        points_error: why.
        declared: number of points that the annotation file states beside them; None without.
        density_error: sum of the density map minus number of points it is made of; NaN where
            picture or points are missing.
        spacing: how far apart people stand, pixels, see `head_spacing`; None for few of them.
    """

    split: str
    id: str
    files: tuple[str, str]
    picture: Picture | None = None
    picture_error: str = ""
    points: np.ndarray | None = None
    points_error: str = ""
    declared: int | None = None
    density_error: float = math.nan
    spacing: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Survey:
    """All pictures of a data set, in order.

    Attributes:
        name: of the data set, see `layout.DataSet`.
        published: likewise.
        folder: that was asked for; files below it are named from there.
        rule: of the density maps.
        entries: all pictures.
    """

    name: str
    published: bool
    folder: pathlib.Path
    rule: DensityRule
    entries: Sequence[Entry]

    @functools.cached_property
    def seen(self) -> list[Entry]:
        """Pictures that can be decoded."""
        return [entry for entry in self.entries if entry.picture is not None]

    @functools.cached_property
    def annotated(self) -> list[Entry]:
        """Pictures whose points can be read."""
        return [entry for entry in self.entries if entry.points is not None]

    @functools.cached_property
    def sound(self) -> list[Entry]:
        """Both."""
        return [entry for entry in self.seen if entry.points is not None]

    @functools.cached_property
    def heads(self) -> int:
        """Points in all."""
        return sum(len(entry.points) for entry in self.annotated)

    def finding(
        self,
        mark: str,
        name: str,
        what: str,
        advice: str = "",
        entries: Sequence[Entry] = (),
        *,
        annotations: bool = False,
    ) -> Finding:
        """A finding that concerns the pictures, or the annotations, of some entries."""
        files = dict.fromkeys(self.shown(entry.files[annotations]) for entry in entries)
        return Finding(mark, name, what, advice, tuple(files), self.name)

    def shown(self, file: str) -> str:
        """A file's path as people need to see it."""
        return file.removeprefix(f"{self.folder}{os.sep}")


def survey(
    name: str,
    published: bool,
    folder: pathlib.Path,
    splits: Mapping[str, Sequence[Item]],
    rule: DensityRule,
) -> Survey:
    """Reads all pictures and annotations of a data set in several threads.

    A terminal is shown a progress bar on standard error. Arguments as the attributes of Survey.
    """
    items = [(split, item) for split, inside in splits.items() for item in inside]
    threads = min(_THREADS, os.cpu_count() or 1)
    bar = tqdm(
        total=len(items), desc=f"reading {name}", unit="picture", file=sys.stderr, disable=None,
        leave=False,
    )  # fmt: skip
    with bar, concurrent.futures.ThreadPoolExecutor(threads) as pool:
        entries = []
        for entry in pool.map(lambda pair: read(pair[1], pair[0], rule), items):
            entries.append(entry)
            bar.update()
    return Survey(name, published, folder, rule, entries)


def read(item: Item, split: str, rule: DensityRule) -> Entry:
    """Reads one picture with its points; never raises because of them."""
    fields: dict = {}
    try:
        data = pictures.read_bytes(item.files[0])
        try:
            fields["points"] = points = item.read()[1]
        except Exception as error:  # noqa: BLE001  whatever a file does, the others are checked
            fields["points_error"] = _told(error, item.files[-1])
        pixels = math.prod(pictures.size(data, str(item.files[0])))
        with _large if pixels > _LARGE else contextlib.nullcontext():
            fields["picture"] = picture = _picture(data, item.files[0])
            if "points" in fields:
                fields |= _density(points, picture, rule)
    except Exception as error:  # noqa: BLE001
        fields["picture_error"] = _told(error, item.files[0])
    files = (str(item.files[0]), str(item.files[-1]))
    return Entry(split, item.id, files, declared=_declared(item.files[-1]), **fields)


def _told(error: Exception, path: pathlib.Path) -> str:
    if isinstance(error, UserError):
        return str(error)
    return f"{path} cannot be read ({type(error).__name__}: {console.one_line(error)})"


def _picture(data: bytes, path: pathlib.Path) -> Picture:
    kind, channels = _kind(data, path)
    pixels = pictures.decode(data, str(path), channels)
    colour = False
    if channels == 3:
        sample = pixels[::4, ::4].astype(np.int16)
        colour = bool((np.ptp(sample, axis=2) > _GREY).mean() > 0.01)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if channels == 3 else pixels[..., 0]
    height, width = grey.shape
    digest = hashlib.sha256(f"{height}x{width} ".encode() + grey.tobytes()).digest()
    thumbnail, texture = twins.thumbnail(grey), alignment.texture(grey)
    return Picture(kind, height, width, colour, digest, thumbnail, texture)


def _kind(data: bytes, path: pathlib.Path) -> tuple[Kind, int]:
    """The kind of a file, and how many channels it has to be decoded to."""
    pictures.size(data, str(path))  # its errors are for people
    try:
        with Image.open(io.BytesIO(data), formats=pictures.FORMATS) as picture:
            mode, format_ = picture.mode, picture.format or "?"
            orientation = _orientation(picture)
            transparent = "A" in picture.getbands() or "transparency" in picture.info
    except Image.DecompressionBombError:  # Pillow's limit is lower than ours
        return Kind("?", "8 bit", 1, True), 3
    depth = _DEPTHS.get(mode, mode)
    if mode.startswith("I") or (format_ == "PNG" and data[_PNG_DEPTH] == 16):
        depth = "16 bit"
    elif transparent:
        depth = "transparent"
    said = Image.registered_extensions().get(path.suffix.lower())
    fits = said == format_ or {said, format_} == {"JPEG", "MPO"}  # MPO: a phone's JPEG
    channels = 1 if mode in ("1", "L") or mode.startswith("I") else 3
    return Kind(format_, depth, orientation, fits), channels


def _orientation(picture: Image.Image) -> int:
    """EXIF orientation; 1, upright, where it is missing or damaged, as `pictures` takes it."""
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001  Pillow raises many kinds for a damaged block
        return 1
    return value if value in range(1, 9) else 1


def _density(points: np.ndarray, picture: Picture, rule: DensityRule) -> dict:
    """What the density map tells, as fields of an Entry."""
    kept = apply_outside(points, picture.height, picture.width, rule.outside)
    density = density_map(kept, picture.height, picture.width, rule)
    error = float(density.sum(dtype=np.float64)) - len(kept)
    return {"density_error": error, "spacing": head_spacing(density)}


def _declared(path: pathlib.Path) -> int | None:
    """The `number` beside the points of a ShanghaiTech .mat file; None where there is none."""
    if path.suffix.lower() != ".mat":
        return None
    try:
        return int(np.squeeze(scipy.io.loadmat(path)["image_info"][0, 0][0, 0][1]))
    except Exception:  # noqa: BLE001  another kind of file; what is damaged has been told
        return None
