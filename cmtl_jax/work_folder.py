"""The work folder of a run."""

import json
import os
import pathlib
import tempfile

from cmtl_jax.errors import UserError


def make(workdir: pathlib.Path) -> None:
    """Makes the work folder.

    Raises:
        UserError: it cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=workdir, prefix=".write_test_") as probe:
            probe.write(b"0" * 65536)
            probe.flush()
    except OSError as error:
        raise UserError(
            f"cannot write in the work folder {workdir}: {error.strerror or error}; "
            "choose another with --workdir or make room"
        ) from error


def write(path: str | os.PathLike, data: bytes) -> None:
    """Writes a file that appears whole, or not at all; makes its folder."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_jsonl(path: pathlib.Path) -> list[dict]:
    """The lines of a metrics.jsonl; a last line cut short by a crash is left out."""
    lines = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines
