"""Counts the people in pictures: python -m cmtl_jax.predict PATH [PATH ...] --weights=WORKDIR."""

import argparse
import csv
import json
import os
import pathlib
import sys
from collections.abc import Iterable

import numpy as np
from tqdm import tqdm

from cmtl_jax import console
from cmtl_jax.datasets.pictures import SUFFIXES
from cmtl_jax.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Prints a line `PATH<TAB>COUNT` a picture; returns the exit status."""
    arguments = _parser().parse_args(argv)
    console.setup(quiet=True)
    try:
        paths = find_pictures(arguments.paths)
        from cmtl_jax.prediction import counter  # noqa: PLC0415  bad paths are told at once

        count = counter.load(arguments.weights, arguments.checkpoint)
        output = None if arguments.out is None else _Output(arguments.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    status = 0
    for path in tqdm(paths, unit="picture", disable=len(paths) < 2):
        try:
            result = count(path)
            if output is not None:
                output.write(path, result)
        except UserError as error:
            tqdm.write(f"error: {error}", file=sys.stderr)
            status = 1
            continue
        with tqdm.external_write_mode():
            if arguments.json:
                print(json.dumps({"path": str(path), "count": round(result.count, 3)}), flush=True)
            else:
                print(f"{path}\t{result.count:.1f}", flush=True)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cmtl_jax.predict", description="Counts the people in pictures."
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="pictures and folders of them")
    parser.add_argument("--weights", required=True, help="work folder of a training run")
    parser.add_argument("--checkpoint", default="best", help="best (default), latest or a step")
    parser.add_argument("--out", metavar="DIR", help="writes density maps, overlays, counts.csv")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return parser


def find_pictures(paths: Iterable[str]) -> list[pathlib.Path]:
    """Pictures named, and those in folders and their sub-folders, sorted within each.

    Raises:
        UserError: nothing is there, or a folder holds no pictures.
    """
    found = []
    for path in map(pathlib.Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise UserError(f"no pictures in {path} (looked for {', '.join(SUFFIXES)})")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"{path} does not exist")
    return found


class _Output:
    """The folder of --out."""

    def __init__(self, folder: str):
        self._folder = pathlib.Path(folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._csv = (self._folder / "counts.csv").open("w", newline="")
        except OSError as error:
            raise UserError(
                f"cannot write in {folder}: {error.strerror}; choose another folder with --out"
            ) from error
        self._rows = csv.writer(self._csv)
        self._rows.writerow(["path", "count"])
        self._stems: set[str] = set()

    def write(self, path: pathlib.Path, result) -> None:
        """Writes <stem>.density.npy and <stem>.overlay.png and a line of counts.csv."""
        stem, number = path.stem, 2
        while stem in self._stems:  # of another folder
            stem, number = f"{path.stem}-{number}", number + 1
        self._stems.add(stem)
        try:
            _atomically(self._folder / f"{stem}.density.npy", lambda f: np.save(f, result.density))
            image = result.overlay()
            _atomically(self._folder / f"{stem}.overlay.png", lambda f: image.save(f, "PNG"))
            self._rows.writerow([path, f"{result.count:.3f}"])
            self._csv.flush()
        except OSError as error:
            raise UserError(
                f"cannot write the results of {path} in {self._folder}: {error.strerror}"
            ) from error


def _atomically(path: pathlib.Path, write) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        write(file)
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main())
