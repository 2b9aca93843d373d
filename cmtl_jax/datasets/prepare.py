"""From a raw folder to prepared data with random access, once."""

import contextlib
import copy
import functools
import io
import json
import logging as python_logging
import operator
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import filelock
import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tqdm import tqdm

from cmtl_jax.datasets import manifest
from cmtl_jax.datasets.crowd_builder import FILE_FORMAT, CrowdBuilder, Found
from cmtl_jax.datasets.density_map import DensityRule
from cmtl_jax.datasets.point_folder import PointFolder
from cmtl_jax.datasets.shanghaitech import SPLITS, Shanghaitech
from cmtl_jax.datasets.synthetic import Synthetic
from cmtl_jax.datasets.ucf_cc_50 import UcfCc50
from cmtl_jax.errors import UserError

BUILDERS = {cls.name: cls for cls in (Shanghaitech, UcfCc50, PointFolder, Synthetic)}

_METADATA = "metadata.json"  # written by tfds.core.MetadataDict


class IndexEntry(NamedTuple):
    """What is known of a record without reading it; `count` is the number of points inside."""

    id: str
    height: int
    width: int
    count: int


class Record(NamedTuple):
    """One prepared picture.

    Attributes:
      id: unique in its split.
      image_bytes: the encoded picture, for `pictures.decode`.
      points: float32 [N, 2] (x, y), pixels, 0-based, inside the picture.
      density: float32 [H, W] people per pixel; None where it was not asked for.
    """

    id: str
    image_bytes: bytes
    points: np.ndarray
    density: np.ndarray | None


class Split:
    """A prepared split: a sequence of `Record`, usable from threads and picklable.

    Attributes:
      name: of the split.
      index: one `IndexEntry` per record, in record order.
      annotated: head points in the annotation files.
      outside: those of them outside their picture, before the rule for points outside.
    """

    def __init__(self, directory: pathlib.Path, name: str, about: dict):
        self.name = name
        self._prefix = ""
        self.index = [IndexEntry(*entry) for entry in about["index"]]
        self.annotated: int = about["annotated"]
        self.outside: int = about["outside"]
        self._directory = directory

    def prefixed(self, prefix: str) -> "Split":
        """The same records with longer ids."""
        other = copy.copy(self)
        other._prefix = prefix + self._prefix
        other.index = [entry._replace(id=prefix + entry.id) for entry in self.index]
        return other

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> Record:
        return self.record(i)

    def record(self, i: int, density: bool = True) -> Record:
        """Reads one record; without `density` its map is not turned into an array.

        Raises:
          IndexError: no such record.
        """
        i = operator.index(i)
        if not -len(self) <= i < len(self):
            raise IndexError(f"record {i} of a split of {len(self)}")
        source = self._source if density else self._source_without_density
        example = source[i % len(self)]
        return Record(
            id=self._prefix + example["id"].decode(),
            image_bytes=example["image"],
            points=example["points"],
            density=example["density"][..., 0] if density else None,
        )

    def points(self, i: int) -> np.ndarray:
        """The head points of one record, float32 [N, 2] (x, y), pixels, 0-based."""
        return self.record(i, density=False).points

    def _open(self, *skipped: str):
        builder = tfds.builder_from_directory(self._directory)
        decoders = {name: tfds.decode.SkipDecoding() for name in skipped}
        return builder.as_data_source(self.name, decoders=decoders)

    @functools.cached_property
    def _source(self):
        return self._open("image")

    @functools.cached_property
    def _source_without_density(self):
        return self._open("image", "density")

    def __getstate__(self) -> dict:
        state = self.__dict__.copy()  # open files stay here; the copy opens its own
        state.pop("_source", None)
        state.pop("_source_without_density", None)
        return state


class Prepared(NamedTuple):
    """A prepared data set.

    Attributes:
      name: of the data set.
      config: name of the TFDS config, which tells the variant and the density rule.
      directory: holds the prepared files; `tfds.builder_from_directory` reads it.
      splits: by name.
      reports: lines for people, such as the comparison with the published numbers.
    """

    name: str
    config: str
    directory: pathlib.Path
    splits: dict[str, Split]
    reports: list[str]


def _is_for_people(record: python_logging.LogRecord) -> bool:
    """False for TFDS's running commentary; its errors are kept."""
    return record.levelno >= python_logging.ERROR or "tensorflow_datasets" not in record.pathname


logging.get_absl_logger().addFilter(_is_for_people)


def _builder(cls: type[CrowdBuilder], config, tfds_dir) -> CrowdBuilder:
    named = {one.name: one for one in cls.BUILDER_CONFIGS}
    return cls(config=named.get(config.name, config), data_dir=tfds_dir, file_format=FILE_FORMAT)


def _read_metadata(directory: pathlib.Path) -> dict | None:
    """What preparation stored; None if nothing is prepared. The folder appears in one step."""
    try:
        return json.loads((directory / _METADATA).read_text())["splits"]
    except (FileNotFoundError, NotADirectoryError):  # the latter is told when it is written
        return None


def _is_current(builder: CrowdBuilder, stored: dict, found: Found) -> bool:
    """Whether all that the raw folder holds is prepared, from the same files."""
    return all(
        split in stored and stored[split]["fingerprint"] == builder.fingerprint(items)
        for split, items in found.splits.items()
    )


def _write(builder: CrowdBuilder, found: Found, raw_dir) -> None:
    directory = pathlib.Path(builder.data_dir)
    for leftover in directory.parent.glob(f"incomplete.*_{directory.name}"):
        shutil.rmtree(leftover, ignore_errors=True)
    config = tfds.download.DownloadConfig(manual_dir=raw_dir, try_download_gcs=False)
    total = sum(map(len, found.splits.values()))
    label = f"preparing {builder.name}/{builder.builder_config.name}"
    bar = tqdm(total=total, desc=label, unit="picture", file=sys.stderr, mininterval=0.5)
    # TFDS prints "Downloading and preparing" on standard output, which belongs to results.
    with bar, contextlib.redirect_stdout(io.StringIO()):
        builder.found = found
        builder.on_picture = bar.update
        builder.download_and_prepare(download_config=config)


def _reports(name: str, config: str, splits: dict[str, Split]) -> list[manifest.Report]:
    """Compares what is prepared with the published numbers."""
    dataset = f"{name}/{config}" if name == "shanghaitech" else name
    totals = {split: (len(one), one.annotated) for split, one in splits.items()}
    if name == "ucf_cc_50":
        totals = {"all folds": tuple(map(sum, zip(*totals.values(), strict=True)))}
    reports = [manifest.check(dataset, split, *total) for split, total in totals.items()]
    return [report for report in reports if report is not None]


def _configured(name: str, rule: DensityRule, raw_dir, options: dict | None):
    """The builder's class of a data set, and its config."""
    if name not in BUILDERS:
        raise UserError(f"unknown data set {name!r}; there are {', '.join(BUILDERS)}")
    cls = BUILDERS[name]
    raw_dir = pathlib.Path(raw_dir).expanduser() if raw_dir else None
    try:
        return cls, cls.config(rule, raw_dir, **(options or {}))
    except TypeError as error:
        raise UserError(f"{name}: options not understood ({error})") from error


def find(name: str, raw_dir: str | pathlib.Path | None, options: dict | None = None) -> Found:
    """Lists what a raw folder holds, without reading or preparing it; arguments as `prepare`.

    Raises:
      UserError: data missing, unknown name or option.
    """
    cls, config = _configured(name, DensityRule(), raw_dir, options)
    raw_dir = pathlib.Path(raw_dir).expanduser() if raw_dir else None
    with tempfile.TemporaryDirectory() as unused:  # TFDS wants a folder; nothing is written
        return _builder(cls, config, pathlib.Path(unused)).find(raw_dir)


def prepare(
    name: str,
    *,
    rule: DensityRule = DensityRule(),
    raw_dir: str | pathlib.Path | None = None,
    tfds_dir: str | pathlib.Path | None = None,
    options: dict | None = None,
) -> Prepared:
    """Prepares a data set, or finds it prepared.

    Preparation is repeated when the raw files have changed since, or when a split has appeared
    that was missing. A run that is killed leaves nothing that looks prepared; several processes
    may call this at once, one prepares and the others wait. Without the raw folder, prepared
    data is used as it is.

    Args:
      name: `shanghaitech`, `ucf_cc_50`, `point_folder` or `synthetic`.
      rule: of the density maps; prepared data of another rule is never used.
      raw_dir: the raw folder, see the builders; none for `synthetic`.
      tfds_dir: where prepared data goes; TFDS's own default if None.
      options: `part` (`part_a`, `part_b`) for shanghaitech; `folds` (`sequential`,
        `random_<seed>`) for ucf_cc_50; `num_train`, `num_test`, `height`, `width` (ranges),
        `seed`, `people` and `enlarge` for synthetic.

    Returns:
      The prepared data set; a split that is missing in the raw folder is absent.

    Raises:
      UserError: data missing or damaged, unknown name or option.
    """
    cls, config = _configured(name, rule, raw_dir, options)
    raw_dir = pathlib.Path(raw_dir).expanduser() if raw_dir else None
    tfds_dir = pathlib.Path(tfds_dir).expanduser() if tfds_dir else None
    builder = _builder(cls, config, tfds_dir)
    directory = pathlib.Path(builder.data_dir)
    stored = _read_metadata(directory)
    try:
        found = builder.find(raw_dir)
    except UserError as error:
        if stored is None:
            raise
        logging.warning("%s; using what is prepared in %s", error, directory)
        found = Found({}, [])
    if stored is None or not _is_current(builder, stored, found):
        stored = _prepare_locked(cls, config, tfds_dir, directory, found, raw_dir)

    splits = {split: Split(directory, split, about) for split, about in stored.items()}
    warnings = list(found.warnings)
    if name == "shanghaitech":
        warnings += [
            f"{name}/{config.part}: no {split} split in {raw_dir or directory}; going on without it"
            for split in SPLITS
            if split not in splits
        ]
    reports = _reports(name, getattr(config, "part", config.name), splits)
    for report in reports:
        (logging.info if report.good else logging.warning)("%s", report.line)
    for warning in warnings:
        logging.warning("%s", warning)
    for split, one in splits.items():
        if one.outside:
            logging.info(
                "%s/%s %s: %d of %d head points lie outside their picture (rule: %s)",
                name, config.name, split, one.outside, one.annotated, rule.outside,
            )  # fmt: skip
    lines = [report.line for report in reports] + warnings
    return Prepared(name, config.name, directory, splits, lines)


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    """Holds a lock between processes; the system frees it when its holder dies."""
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=1)
    except filelock.Timeout:
        logging.info("waiting for another process that prepares the same data (%s)", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _prepare_locked(cls, config, tfds_dir, directory: pathlib.Path, found: Found, raw_dir) -> dict:
    """Prepares under a lock, unless another process has done so meanwhile."""
    folder = directory.parent.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f".{config.name}.lock"):
            builder = _builder(cls, config, tfds_dir)
            stored = _read_metadata(directory)
            if stored is None or not _is_current(builder, stored, found):
                if directory.exists():
                    logging.info("%s: the raw files have changed, preparing again", directory)
                    shutil.rmtree(directory)
                    builder = _builder(cls, config, tfds_dir)
                _write(builder, found, raw_dir)
                stored = _read_metadata(directory)
    except OSError as error:
        raise UserError(
            f"{directory} cannot be written ({error}); free some space or choose another folder "
            "with --config.dataset.tfds_dir=DIR"
        ) from error
    return stored
