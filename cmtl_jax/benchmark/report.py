"""The result of a run of the benchmark, and the same as JSON."""

import dataclasses
import json
import os
import pathlib
from typing import Any

from cmtl_jax import work_folder
from cmtl_jax.benchmark.curve import Curve
from cmtl_jax.benchmark.row import Row
from cmtl_jax.errors import UserError

_FORMAT = 1


@dataclasses.dataclass
class Report:
    """What was measured, and where.

    Attributes:
        machine: see machine.describe, with the load after the measurements.
        programs: versions and devices of both sides.
        products: operations a second of a large matrix product, by precision and side.
        settings: what was measured.
        rows: of the rooms.
        curves: of how cost grows.
    """

    machine: dict[str, Any]
    programs: dict[str, dict[str, Any]]
    products: dict[str, dict[str, float]]
    settings: dict[str, Any]
    rows: list[Row] = dataclasses.field(default_factory=list)
    curves: list[Curve] = dataclasses.field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether something of ours could not be measured."""
        return any(row.ours is None for row in self.rows)

    def peak(self, precision: str) -> float | None:
        """The most operations a second that a matrix product of that precision reached."""
        return max(self.products.get(precision, {}).values(), default=None)

    def write(self, path: str | os.PathLike) -> None:
        """Writes all of it as JSON, whole or not at all.

        Raises:
            UserError: it cannot be written.
        """
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["rows"] = [row.to_json() for row in self.rows]
        fields["curves"] = [curve.to_json() for curve in self.curves]
        text = json.dumps({"format": _FORMAT} | fields, indent=2)
        try:
            work_folder.write(path, text.encode())
        except OSError as error:
            raise UserError(
                f"cannot write {path} ({error.strerror or error}); choose another file with --json"
            ) from error

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Report":
        """What `write` wrote.

        Raises:
            UserError: there is nothing of the kind.
        """
        try:
            fields = json.loads(pathlib.Path(path).read_text())
            if fields.pop("format") != _FORMAT:
                raise ValueError("another format")
            fields["rows"] = [Row.from_json(row) for row in fields["rows"]]
            fields["curves"] = [Curve.from_json(curve) for curve in fields["curves"]]
            return cls(**fields)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror or error})") from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} was not written by this program's --json ({type(error).__name__}: "
                f"{error}); measure again"
            ) from error
