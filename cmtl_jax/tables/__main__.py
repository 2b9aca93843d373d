"""The command line: python -m cmtl_jax.tables [WORKDIR ...] [--format=markdown] [--out=FILE]."""

import argparse
import pathlib
import sys

from cmtl_jax import console, work_folder
from cmtl_jax.errors import UserError
from cmtl_jax.tables import published, render, results, table


def main(argv: list[str] | None = None) -> int:
    """Prints the tables, or writes them to a file; returns the exit status."""
    return console.main(lambda: _tables(_parser().parse_args(argv)))


def _tables(arguments: argparse.Namespace) -> int:
    folders = {path.resolve(): path for path in map(pathlib.Path, arguments.workdirs)}
    found = [result for path in folders.values() for result in results.read(path)]
    names = list(published.TABLES) if arguments.table == "all" else [arguments.table]
    known = {column for name in published.TABLES for column in published.TABLES[name].columns}
    for result in found:
        if result.data_set not in known:
            print(
                f"{result.workdir}: {result.data_set} is in neither table; left out",
                file=sys.stderr,
            )
    text = "\n".join(
        render.FORMATS[arguments.format](table.build(published.TABLES[name], found))
        for name in names
    )
    if arguments.out is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return 0
    try:
        work_folder.write(arguments.out, text.encode("utf-8", "replace"))
    except OSError as error:
        raise UserError(
            f"cannot write {arguments.out} ({error.strerror or error}); "
            "choose another file with --out"
        ) from error
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = console.Parser(
        prog="python -m cmtl_jax.tables",
        description="The paper's Tables 1 and 2, with the numbers of finished work folders.",
    )
    parser.add_argument("workdirs", nargs="*", metavar="WORKDIR", help="work folders of runs")
    parser.add_argument("--table", choices=[*published.TABLES, "all"], default="all")
    parser.add_argument("--format", choices=list(render.FORMATS), default="text")
    parser.add_argument("--out", metavar="FILE", help="instead of standard output")
    return parser


if __name__ == "__main__":
    sys.exit(main())
