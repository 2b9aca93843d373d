"""Counts the people in pictures: python -m cmtl_jax.predict PATH [PATH ...] --weights=WEIGHTS."""

import argparse
import csv
import io
import json
import pathlib
import sys

import numpy as np
from tqdm import tqdm

from cmtl_jax import console, work_folder
from cmtl_jax.datasets.pictures import SUFFIXES
from cmtl_jax.errors import UserError

_OVERLAY = ".overlay.png"
_DENSITY = ".density.npy"


def main(argv: list[str] | None = None) -> int:
    """Prints a line `PATH<TAB>COUNT` a picture; returns the exit status.

    A picture that cannot be counted is told on standard error; the others are counted all the same,
    and the status is 1.
    """
    # File names are bytes; those that are no text are written as they are.
    return console.main(lambda: _predict(_parser().parse_args(argv)), errors="surrogateescape")


def _predict(arguments: argparse.Namespace) -> int:
    paths, status = [], 0
    for path in arguments.paths:
        try:
            paths += find_pictures(path)
        except UserError as error:
            console.complain(error)
            status = 1
    if not paths:
        return status
    from cmtl_jax.prediction import counter  # imported here: bad paths are told at once

    count = counter.load(arguments.weights, arguments.checkpoint)
    output = None if arguments.out is None else _Output(arguments.out)
    try:
        bar = tqdm(paths, unit="picture", disable=None if len(paths) > 1 else True)
        for path in bar:
            try:
                result = count(path)
                with tqdm.external_write_mode():
                    _print(path, result.count, arguments.json)
                if output is not None:
                    output.write(path, result)
            except UserError as error:
                with tqdm.external_write_mode(file=sys.stderr):
                    console.complain(error)
                status = 1
    finally:
        if output is not None:
            output.close()
    return status


def _print(path: pathlib.Path, count: float, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"path": str(path), "count": round(count, 3)}), flush=True)
    else:
        print(f"{path}\t{count:.1f}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = console.Parser(
        prog="python -m cmtl_jax.predict", description="Counts the people in pictures."
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="pictures and folders of them")
    parser.add_argument(
        "--weights", required=True, help="work folder of a training run, or a released file (.h5)"
    )
    parser.add_argument("--checkpoint", default="best", help="best (default), latest or a step")
    parser.add_argument("--out", metavar="DIR", help="writes density maps, overlays, counts.csv")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return parser


def find_pictures(path: str | pathlib.Path) -> list[pathlib.Path]:
    """The picture named, or those in a folder and its sub-folders, sorted.

    Hidden files and overlays that this program wrote are left out.

    Raises:
        UserError: nothing is there, or a folder holds no pictures.
    """
    folder = pathlib.Path(path)
    try:
        if not folder.is_dir():
            folder.stat()
            return [folder]
        inside = sorted(p for p in folder.rglob("*") if _is_picture(p, folder))
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read ({reason}); check the path") from error
    if not inside:
        raise UserError(f"no pictures in {path}; looked for {', '.join(SUFFIXES)}")
    return inside


def _is_picture(path: pathlib.Path, folder: pathlib.Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return (
        path.suffix.lower() in SUFFIXES
        and not hidden
        and not path.name.endswith(_OVERLAY)
        and path.is_file()
    )


class _Output:
    """The folder of --out. Each file appears whole or not at all."""

    def __init__(self, folder: str):
        self._folder = pathlib.Path(folder)
        self._rows: list[tuple[str, str]] = []
        self._stems: set[str] = set()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write_counts()  # a folder that cannot be written is told before the work
        except OSError as error:
            raise UserError(
                f"cannot write in {folder} ({error.strerror or error}); make room or choose "
                "another folder with --out"
            ) from error

    def write(self, path: pathlib.Path, result) -> None:
        """Writes <stem>.density.npy and <stem>.overlay.png; counts.csv follows in close().

        Raises:
            UserError: no room.
        """
        stem, number = path.stem, 2
        while stem in self._stems:  # of another folder
            stem, number = f"{path.stem}-{number}", number + 1
        self._stems.add(stem)
        self._rows.append((str(path), f"{result.count:.3f}"))
        try:
            with io.BytesIO() as file:
                np.save(file, result.density)
                work_folder.write(self._folder / f"{stem}{_DENSITY}", file.getvalue())
            with io.BytesIO() as file:
                result.overlay().save(file, "PNG")
                work_folder.write(self._folder / f"{stem}{_OVERLAY}", file.getvalue())
        except OSError as error:
            raise UserError(
                f"cannot write the maps of {path} in {self._folder} ({error.strerror or error}); "
                "make room or choose another folder with --out"
            ) from error

    def close(self) -> None:
        """Writes counts.csv: path,count of all pictures counted.

        Raises:
            UserError: no room.
        """
        try:
            self._write_counts()
        except OSError as error:
            raise UserError(
                f"cannot write {self._folder / 'counts.csv'} ({error.strerror or error}); make "
                "room or choose another folder with --out"
            ) from error

    def _write_counts(self) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows([("path", "count"), *self._rows])
        data = text.getvalue().encode("utf-8", "surrogateescape")
        work_folder.write(self._folder / "counts.csv", data)


if __name__ == "__main__":
    sys.exit(main())
