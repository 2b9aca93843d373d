"""The command line: python -m cmtl_jax.annotate [--out=FILE.html] [--no-browser]."""

import argparse
import os
import pathlib
import sys
import webbrowser

from cmtl_jax import annotate, console, work_folder
from cmtl_jax.errors import UserError

_NAME = "click_heads.html"


def main(argv: list[str] | None = None) -> int:
    """Writes the page, prints where, and opens it; returns the exit status."""
    return console.main(lambda: _annotate(_parser().parse_args(argv)), errors="surrogateescape")


def _annotate(arguments: argparse.Namespace) -> int:
    path, data = pathlib.Path(arguments.out), annotate.page()
    if path.is_dir():
        path = path / _NAME
    if path.exists() and path.read_bytes() != data and not arguments.overwrite:
        raise UserError(f"{path} is there already; choose another --out, or add --overwrite")
    work_folder.write(path, data)
    print(path, flush=True)
    if arguments.no_browser:
        return 0
    if not (_has_display() and webbrowser.open(path.resolve().as_uri())):
        print("open this file in a browser; there is none here", file=sys.stderr)
    return 0


def _has_display() -> bool:
    """False where a browser for the terminal would be opened, which shows no pictures."""
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.platform in ("win32", "darwin") or bool(display)


def _parser() -> argparse.ArgumentParser:
    parser = console.Parser(
        prog="python -m cmtl_jax.annotate",
        description="Writes the page for clicking heads in pictures, and opens it in a browser.",
    )
    parser.add_argument("--out", metavar="FILE", default=_NAME, help=f"default: {_NAME}")
    parser.add_argument("--no-browser", action="store_true", help="only write the page")
    parser.add_argument("--overwrite", action="store_true", help="replace another file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
