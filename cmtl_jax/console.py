"""What people see of a run: log lines on standard error, without other libraries' commentary."""

import logging
import sys

from absl import logging as absl_logging

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
