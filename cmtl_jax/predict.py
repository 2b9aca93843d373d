"""Counts the people in pictures and videos: python -m cmtl_jax.predict PATH ... [--weights=W].

Prints a line `PATH<TAB>COUNT` a picture.
"""

import argparse
import contextlib
import math
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from cmtl_jax import DEFAULT_WEIGHTS, console
from cmtl_jax.errors import UserError
from cmtl_jax.escape import printable
from cmtl_jax.pictures import MAX_PIXELS
from cmtl_jax.prediction import sources
from cmtl_jax.prediction.record import FORMATS, Columns
from cmtl_jax.prediction.zones import Zones


def main(argv: list[str] | None = None, *, keep_programs: bool = False) -> int:
    """Counts what the arguments name; returns the exit status.

    What cannot be counted is told on standard error; the rest is counted all the same, and the
    status is 1.

    Args:
        argv: the arguments; by default those of this process.
        keep_programs: keeps compiled programs on disk for later runs, as the shell's command does.
    """
    # File names are bytes; those that are no text are written as they are.
    return console.main(lambda: _predict(argv, keep_programs), errors="surrogateescape")


def _predict(argv: list[str] | None, keep_programs: bool) -> int:
    try:
        return _count(_parser().parse_args(argv), keep_programs)
    except UserError as error:
        raise UserError(printable(str(error))) from error


def _count(arguments: argparse.Namespace, keep_programs: bool) -> int:
    zones = None if arguments.roi is None else Zones.read(arguments.roi)
    found, status = _find(arguments.paths)
    if not found:
        return status
    # Imported here, as JAX takes a second: bad paths are told at once.
    from cmtl_jax import compilation_cache
    from cmtl_jax.prediction import batches, counter, run
    from cmtl_jax.prediction.output import Output

    if keep_programs:
        compilation_cache.enable()
    count = counter.load(arguments.weights, arguments.checkpoint)
    columns = Columns(
        zones=tuple(zones.points) if zones else (),
        video=any(source.kind != "picture" for source in found),
        smooth=arguments.smooth is not None,
        resize=arguments.scale is not None or arguments.max_side is not None,
    )
    settings = run.Settings(
        columns=columns,
        zones=zones,
        format=arguments.format,
        scaling=batches.Scaling(
            arguments.scale or 1.0, arguments.max_side, arguments.max_pixels
        ),
        batch_size=arguments.batch_size or batches.default_batch_size(),
        every=arguments.every,
        seconds=arguments.seconds,
        smooth=arguments.smooth,
    )
    with contextlib.ExitStack() as stack:
        output = None
        if arguments.out is not None:
            output = stack.enter_context(Output(arguments.out, found, columns))
        return max(status, run.Run(count, found, settings, output).all())


def _find(paths: Sequence[str]) -> tuple[list[sources.Source], int]:
    """What is to be counted, and the status so far."""
    found, status = [], 0
    for path in paths:
        try:
            found += sources.find(path)
        except UserError as error:
            console.complain(printable(str(error)))
            status = 1
    return found, status


def _parser() -> argparse.ArgumentParser:
    parser = console.Parser(
        prog="python -m cmtl_jax.predict",
        description="Counts the people in pictures and videos.",
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH",
        help="pictures, folders of them, patterns ('photos/**/*.jpg'), videos, camera:0, rtsp://...",
    )  # fmt: skip
    parser.add_argument(
        "--weights", default=DEFAULT_WEIGHTS,
        help="work folder of a training run, name of weights that come along (default "
        f"{DEFAULT_WEIGHTS}), or a file of weights",
    )
    parser.add_argument("--checkpoint", default="best", help="best (default), latest or a step")
    parser.add_argument(
        "--format", choices=FORMATS, default="text",
        help="a line PATH<TAB>COUNT, a JSON object or a CSV row a picture",
    )  # fmt: skip
    parser.add_argument(
        "--json", action="store_const", const="jsonl", dest="format", help="--format=jsonl"
    )
    parser.add_argument(
        "--out", metavar="DIR",
        help="writes density maps (.npy, 16-bit .png), overlays, annotated videos, counts.csv and "
        "counts.jsonl",
    )  # fmt: skip
    parser.add_argument(
        "--roi", metavar="FILE", help="JSON file of zones, counted each on their own"
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--max-side", type=_number(int, 1), metavar="PIXELS", help="shrinks larger pictures first"
    )
    sizes.add_argument(
        "--scale", type=_number(float), metavar="FACTOR", help="resizes all pictures first"
    )
    parser.add_argument(
        "--max-pixels", type=_number(int, 1), default=MAX_PIXELS, metavar="N",
        help=f"refuses pictures that declare more (default {MAX_PIXELS:,})",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size", type=_number(int, 1), metavar="N",
        help="pictures of one size counted together (default 8, on a CPU 1)",
    )  # fmt: skip
    parser.add_argument(
        "--every", type=_number(int, 1), default=1, metavar="N",
        help="counts every Nth frame of a video",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=_number(float), metavar="S", help="ends each video or camera after S"
    )
    parser.add_argument(
        "--smooth", type=_number(float), metavar="S",
        help="smooths the counts of a video over about S seconds",
    )  # fmt: skip
    return parser


def _number(kind: type, least: float | None = None) -> Callable[[str], Any]:
    """Reads a number for the parser: at least `least`, or above 0."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or (value <= 0 if least is None else value < least):
            wanted = "a number above 0" if least is None else f"a whole number from {least} on"
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return value

    return read


if __name__ == "__main__":
    # Ends like Ctrl-C, so that what was counted so far is whole.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main(keep_programs=True))
