"""The command line: python -m cmtl_jax.importers SOURCE [SOURCE ...] --out=DIR [--pictures=DIR]."""

import argparse
import pathlib
import shlex
import sys

from cmtl_jax import console
from cmtl_jax.escape import printable
from cmtl_jax.importers import heads, importing, registry


def main(argv: list[str] | None = None) -> int:
    """Imports annotations; returns the exit status, 1 if something wrong was left out."""
    return console.main(lambda: _import(_parser().parse_args(argv)), errors="surrogateescape")


def _import(arguments: argparse.Namespace) -> int:
    out = pathlib.Path(arguments.out)
    report = importing.import_points(
        [pathlib.Path(source) for source in arguments.sources],
        out,
        folder=None if arguments.pictures is None else pathlib.Path(arguments.pictures),
        format=arguments.format,
        labels=arguments.label,
        box_point=arguments.boxes,
        listed_are_empty=arguments.empty,
        overwrite=arguments.overwrite,
    )
    for line in report.recognised:
        print(f"recognised {line}")
    sys.stdout.flush()
    for line in report.notes:
        print(printable(line), file=sys.stderr)
    for line in report.problems:
        console.complain(printable(line))
    for split, (pictures, points) in report.splits.items():
        print(f"{printable(str(out / split))}\t{pictures} pictures\t{points} heads")
    folder = shlex.quote(str(out))
    print(f"\ncheck: python -m cmtl_jax.doctor data {folder}", file=sys.stderr)
    print(
        "train: python -m cmtl_jax.main --config=configs/finetune.py "
        f"--config.dataset.raw_dir={folder} --config.init_from=WEIGHTS",
        file=sys.stderr,
    )
    return 1 if report.problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = console.Parser(
        prog="python -m cmtl_jax.importers",
        description="Head points of annotation programs, to a folder of training data.",
    )
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="annotation files, and folders of them"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--pictures", metavar="DIR", help="default: the folder of SOURCE")
    parser.add_argument("--format", choices=["auto", *registry.NAMES], default="auto")
    parser.add_argument(
        "--label", action="append", default=[], help="class of the marks to take; repeatable; all"
    )
    parser.add_argument(
        "--boxes", choices=heads.BOX_POINTS, default="top",
        help="the point that a box becomes: the middle of its upper edge, or of all of it",
    )  # fmt: skip
    parser.add_argument(
        "--empty", action="store_true", help="pictures listed without marks hold no people"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace pictures and points in --out"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
