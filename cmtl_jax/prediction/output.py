"""The folder of --out: tables of counts, maps and overlays of pictures, annotated videos."""

import io
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from cmtl_jax import work_folder
from cmtl_jax.errors import UserError
from cmtl_jax.prediction import density_png
from cmtl_jax.prediction.annotated_video import AnnotatedVideo
from cmtl_jax.prediction.record import Columns, Record
from cmtl_jax.prediction.sources import Source

_LONGEST_STEM = 200  # bytes; file systems take names of 255


class Output:
    """Writes what was counted.

    `counts.csv` and `counts.jsonl` grow line by line, so that an interrupted run leaves what it
    had; every other file appears whole or not at all.
    """

    def __init__(self, folder: str | os.PathLike, sources: Sequence[Source], columns: Columns):
        """Makes the folder and begins the tables anew.

        Args:
            folder: made where it is missing.
            sources: all that will be counted; files are named after them.
            columns: of counts.csv.

        Raises:
            UserError: the folder cannot be written.
        """
        self._folder = pathlib.Path(folder)
        self._columns = columns
        self._stems = list(_stems(source.stem for source in sources))
        self._tables: list[io.TextIOWrapper] = []
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for name in ("counts.csv", "counts.jsonl"):
                path = self._folder / name
                self._tables.append(
                    path.open("w", newline="", encoding="utf-8", errors="surrogateescape")
                )
            self._row(columns.header())
        except OSError as error:
            self._close()
            raise self._unwritable(f"in {folder}", error) from error

    def __enter__(self) -> "Output":
        return self

    def __exit__(self, *_) -> None:
        self._close()

    def add(self, record: Record, **more: Any) -> None:
        """Adds a line to both tables.

        Args:
            record: what was counted.
            **more: further keys for counts.jsonl.

        Raises:
            UserError: no room.
        """
        try:
            self._row(self._columns.row(record))
            print(record.json(**more), file=self._tables[1], flush=True)
        except OSError as error:
            raise self._unwritable(f"the counts in {self._folder}", error) from error

    def write_maps(
        self, position: int, name: str, density: np.ndarray, overlay: Image.Image
    ) -> dict[str, Any]:
        """Writes <stem>.density.npy, <stem>.density.png and <stem>.overlay.png of a picture.

        Args:
            position: of the picture among the sources.
            name: of the picture, for messages.
            density: [H, W] people per pixel.
            overlay: picture of it.

        Returns:
            The names of the files, and the scale of the .png, for `add`.

        Raises:
            UserError: no room.
        """
        array, picture = io.BytesIO(), io.BytesIO()
        try:
            np.save(array, density)
            overlay.save(picture, "PNG")
            files = {
                "density_npy": (".density.npy", array.getvalue()),
                "density_png": (".density.png", density_png.encode(density)),
                "overlay": (".overlay.png", picture.getvalue()),
            }
            stem = self._stems[position]
            for end, data in files.values():
                work_folder.write(self._folder / f"{stem}{end}", data)
        except OSError as error:
            raise self._unwritable(f"the maps of {name} in {self._folder}", error) from error
        names = {key: f"{stem}{end}" for key, (end, _) in files.items()}
        return names | {"people_per_level": density_png.people_per_level(density)}

    def video(self, position: int, rate: float) -> AnnotatedVideo:
        """The annotated video <stem>.overlay.mp4 of the video at this position.

        Args:
            position: of the video among the sources.
            rate: pictures per second.
        """
        return AnnotatedVideo(self._folder / f"{self._stems[position]}.overlay.mp4", rate)

    def _row(self, line: str) -> None:
        print(line, end="\r\n", file=self._tables[0], flush=True)

    def _close(self) -> None:
        for table in self._tables:
            table.close()

    def _unwritable(self, what: str, error: OSError) -> UserError:
        return UserError(
            f"cannot write {what} ({error.strerror or error}); make room or choose another folder "
            "with --out"
        )


def _stems(stems: Iterable[str]) -> Iterator[str]:
    """Short enough for file names, and all different, on every file system."""
    taken: set[str] = set()
    for stem in stems:
        if len(name := os.fsencode(stem)) > _LONGEST_STEM:
            stem = name[:_LONGEST_STEM].decode("utf-8", "ignore")
        different, number = stem, 2
        while different.casefold() in taken:
            different, number = f"{stem}-{number}", number + 1
        taken.add(different.casefold())
        yield different
