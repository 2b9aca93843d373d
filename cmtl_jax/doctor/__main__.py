"""The command line: python -m cmtl_jax.doctor [data DIR [--config=...] | run WORKDIR] [--json]."""

import argparse
import pathlib
import re
import sys
from collections.abc import Sequence

from cmtl_jax.doctor import finding, installation


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a line a finding and a summary; returns 1 with an error among them, else 0."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        from cmtl_jax import console
    except ImportError:  # no packages at all: that is what is to be told
        return finding.report(installation.check(), as_json="--json" in arguments)
    return console.main(lambda: _doctor(arguments))


def _doctor(arguments: list[str]) -> int:
    from cmtl_jax.errors import UserError

    of_config, others = _split(arguments)
    parsed = _parser().parse_args(others)
    if of_config and parsed.what != "data":
        raise UserError("--config belongs to: python -m cmtl_jax.doctor data DIR --config=...")
    findings = installation.check()
    if parsed.what == "data":
        from cmtl_jax.doctor import data  # imported here: bad arguments are told at once

        config = _config(of_config) if of_config else None
        findings = data.check(pathlib.Path(parsed.folder).expanduser(), config)
    elif parsed.what == "run":
        from cmtl_jax.doctor import run

        findings = run.check(pathlib.Path(parsed.folder).expanduser())
    return finding.report(findings, as_json=parsed.json)


def _parser():
    from cmtl_jax import console

    parser = console.Parser(
        prog="python -m cmtl_jax.doctor",
        description="Checks this installation, a folder of raw data, or a training run.",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    commands = parser.add_subparsers(dest="what", metavar="data | run")
    for name, folder, text in (
        ("data", "DIR", "a raw folder: ShanghaiTech, UCF_CC_50, or your own pictures with points"),
        ("run", "WORKDIR", "a work folder of a training run"),
    ):
        command = commands.add_parser(
            name, help=text, description=f"Checks {text}.",
            epilog="--config=FILE[:PRESET] and --config.KEY=VALUE as in python -m cmtl_jax.main: "
            "the data set that is meant and its density maps" if name == "data" else None,
        )  # fmt: skip
        command.add_argument("folder", metavar=folder)
        command.add_argument("--json", action="store_true", default=argparse.SUPPRESS)
    return parser


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Arguments of the config, such as --config=FILE, and the others."""
    of_config, others, value_follows = [], [], False
    for argument in arguments:
        option = re.match(r"--?(no)?config(\.[^=]+)?(=|$)", argument)
        if option or value_follows:
            of_config.append(argument)
        else:
            others.append(argument)
        value_follows = bool(option and not option[1] and not option[3])
    return of_config, others


def _config(arguments: list[str]):
    """The config that arguments as of python -m cmtl_jax.main describe.

    Raises:
        UserError: it is not understood.
    """
    from absl import flags
    from ml_collections import config_flags

    from cmtl_jax import config as base_config
    from cmtl_jax import console
    from cmtl_jax.errors import UserError

    base_config.check_arguments(arguments)
    if not any(re.match("--?config(=|$)", argument) for argument in arguments):
        raise UserError("--config is missing; try --config=configs/sha.py")
    values, line = flags.FlagValues(), ["doctor", *arguments]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=line)
    try:
        values(line)
        base_config.validate(values.config)
        return values.config
    except (UserError, flags.Error) as error:
        raise UserError(console.one_line(error)) from error
    except Exception as error:  # whatever a config file may raise
        raise UserError(
            f"config not understood: {type(error).__name__}: {console.one_line(error)}"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
