"""What people see of a run on standard error: log lines and errors of this project alone."""

import argparse
import ast
import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from absl import logging as absl_logging

from cmtl_jax import escape
from cmtl_jax.errors import UserError

_CHATTY = ("orbax", "tensorflow_datasets", "jax/_src", "grain")


def _for_people(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR or not any(
        f"/{name}/" in record.pathname.replace("\\", "/") for name in _CHATTY
    )


def setup(*, quiet: bool = False) -> None:
    """Logs lines of this project to standard error; quiet keeps warnings and errors only."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr, force=True)
    absl_logging.set_verbosity(absl_logging.INFO)
    level = logging.WARNING if quiet else logging.INFO
    for handler in logging.getLogger().handlers:
        handler.setLevel(level)
        handler.addFilter(_for_people)
    logging.getLogger().setLevel(level)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)


class Parser(argparse.ArgumentParser):
    """Complains in one line like everything else; `prog` is the command."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def main(command: Callable[[], int], *, errors: str = "replace") -> int:
    """`run` for a command whose results are the lines of standard output; without log lines.

    Args:
        command: gives the exit status.
        errors: what becomes of characters the terminal lacks, as in `open`.
    """
    setup(quiet=True)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=errors)
    try:
        return run(command)
    except BrokenPipeError:  # such as `| head`; Python would complain once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def one_line(error: BaseException | str) -> str:
    """What an error says, on one line."""
    text = str(error)
    if isinstance(error, KeyError | AttributeError):
        # A KeyError's text is quoted, and ConfigDict quotes it once more.
        with contextlib.suppress(SyntaxError, ValueError):
            text = str(ast.literal_eval(text))
    # ml_collections puts the traceback of a config file into the text of its error.
    text = re.sub(r"\bTraceback \(most recent call last\):.*\n(?=\S)", "", text, flags=re.DOTALL)
    text = " ".join(line.strip() for line in text.splitlines() if line.strip())
    return escape.printable(text) or type(error).__name__


def complain(error: BaseException | str) -> None:
    """Prints `error: ...` on one line of standard error."""
    print(f"error: {one_line(error)}", file=sys.stderr, flush=True)


def run(command: Callable[[], int]) -> int:
    """The exit status of a command; bad input and files that fail become one line and status 1.

    An interruption from the keyboard gives 130, as in shells. Other exceptions are bugs and pass.
    """
    try:
        return command()
    except UserError as error:
        complain(error)
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        complain(f"{where}{error.strerror or one_line(error)}; make room or choose another folder")
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    return 1
