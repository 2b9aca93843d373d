"""The command line: python -m cmtl_jax.benchmark [--rooms=ROOM,...] [--json=FILE]."""

import argparse
import dataclasses
import importlib.util
import os
import pathlib
import signal
import sys
import tempfile

from cmtl_jax import console, work_folder
from cmtl_jax.benchmark import machine, plot, render
from cmtl_jax.benchmark.bench import Bench
from cmtl_jax.benchmark.process import SideError
from cmtl_jax.benchmark.report import Report
from cmtl_jax.benchmark.rooms import GROWTH, NAMES, ROOMS
from cmtl_jax.benchmark.rooms.products import measure as measure_products
from cmtl_jax.benchmark.settings import Settings
from cmtl_jax.errors import UserError

_NOTHING_TO_DRAW = "--plot draws how cost grows; measure that, too: --rooms=growth"


def main(argv: list[str] | None = None) -> int:
    """Prints the table; returns the exit status, 1 where something of ours failed."""
    return console.main(lambda: _benchmark(_parser().parse_args(argv)))


def _benchmark(arguments: argparse.Namespace) -> int:
    if arguments.read:
        report = Report.read(arguments.read)
    else:
        with tempfile.TemporaryDirectory(prefix="cmtl_benchmark_") as scratch:
            try:
                report = _measure(arguments, pathlib.Path(scratch))
            except SideError as error:
                raise UserError(str(error)) from error
    sys.stdout.write(render.text(report))
    sys.stdout.flush()
    if arguments.plot:
        if not report.curves:
            raise UserError(_NOTHING_TO_DRAW)
        _write(arguments.plot, plot.growth(report.curves, _note(report)), "plot")
    return int(report.failed)


def _measure(arguments: argparse.Namespace, scratch: pathlib.Path) -> Report:
    rooms = _rooms(arguments.rooms)
    settings = _settings(arguments)
    about = machine.describe()
    if about["load_before"] is not None and about["load_before"] > machine.BUSY_LOAD:
        print(
            f"warning: the machine is busy (load {about['load_before']:.2f}); wait until nothing "
            "else runs, or the times say little",
            file=sys.stderr,
        )
    for option in ("json", "plot"):  # what cannot be written is told before the work
        if path := getattr(arguments, option):
            _check_folder(path, option)
    if arguments.plot and not set(GROWTH) & set(rooms):
        raise UserError(_NOTHING_TO_DRAW)
    bench = Bench(settings, scratch, arguments.tfds_dir)
    told = dataclasses.asdict(settings) | {"trial": arguments.trial, "rooms": rooms}
    report = Report(about, bench.about, measure_products(bench), told)
    for name in rooms:
        bench.say(f"-- {name}")
        if name in GROWTH:
            report.curves += GROWTH[name](bench)
        else:
            report.rows += ROOMS[name](bench)
        about["load_after"] = machine.load()
        if arguments.json:  # after each room, should a later one fail
            report.write(arguments.json)
    return report


def _rooms(names: str) -> list[str]:
    wanted = [name for name in names.split(",") if name]
    for name in wanted:
        if name not in NAMES:
            raise UserError(f"--rooms: no room {name!r}; there are {', '.join(NAMES)}")
    return wanted or list(NAMES)


def _settings(arguments: argparse.Namespace) -> Settings:
    settings = Settings()
    torch = arguments.torch != "no" and importlib.util.find_spec("torch") is not None
    if arguments.torch != "no" and not torch:
        print(
            "PyTorch is not installed (requirements-benchmark.txt); measuring without it",
            file=sys.stderr,
        )
    unknown = set(arguments.precisions.split(",")) - set(settings.precisions)
    if unknown:
        raise UserError(
            f"--precisions: no {', '.join(sorted(unknown))}; there are "
            f"{', '.join(settings.precisions)}"
        )
    for name in ("repeats", "pictures"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name} must be at least 1")
    for name in ("data", "weights"):
        path = getattr(arguments, name)
        if path and not os.path.exists(path):
            raise UserError(f"--{name}: {path} does not exist")
    settings = dataclasses.replace(
        settings,
        repeats=arguments.repeats,
        seconds=arguments.seconds,
        torch=torch,
        torch_compile=arguments.torch != "eager",
        precisions=tuple(p for p in settings.precisions if p in arguments.precisions.split(",")),
        pictures=arguments.pictures,
        data=arguments.data,
        weights=arguments.weights,
    )
    return settings.for_trial() if arguments.trial else settings


def _check_folder(path: str, option: str) -> None:
    """Makes the folder of a file that is written later."""
    folder = pathlib.Path(path).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _cannot_write(path, error, option) from error


def _write(path: str, data: bytes, option: str) -> None:
    try:
        work_folder.write(path, data)
    except OSError as error:
        raise _cannot_write(path, error, option) from error


def _cannot_write(path: str, error: OSError, option: str) -> UserError:
    return UserError(
        f"cannot write {path} ({error.strerror or error}); choose another file with --{option}"
    )


def _note(report: Report) -> str:
    m, ours = report.machine, report.programs["ours"]
    torch = report.programs.get("torch")
    beside = "" if torch is None else f", PyTorch {torch['torch']}"
    return f"{m['processor']}, {m['cores']} cores; JAX {ours['jax']}{beside}; float32"


def _parser() -> argparse.ArgumentParser:
    parser = console.Parser(
        prog="python -m cmtl_jax.benchmark",
        description="Measures this project beside PyTorch, where that is installed.",
    )
    defaults = Settings()
    add = parser.add_argument
    add("--rooms", default="", metavar="ROOM,...", help=f"all, or some of {', '.join(NAMES)}")
    add(
        "--repeats", type=int, default=defaults.repeats,
        help="rounds of a row (default: %(default)s)",
    )  # fmt: skip
    add(
        "--seconds", type=float, default=defaults.seconds,
        help="no further round of a row after that long; three are done (default: %(default)g)",
    )  # fmt: skip
    add(
        "--torch", choices=["auto", "eager", "no"], default="auto",
        help="auto: where it is installed; eager: without torch.compile, which takes minutes",
    )  # fmt: skip
    add("--precisions", default=",".join(defaults.precisions), metavar="P,...")
    add(
        "--pictures", type=int, default=defaults.pictures,
        help="pictures of the evaluation (default: %(default)s)",
    )  # fmt: skip
    add("--data", default="", metavar="DIR", help="pictures with head points, not drawn ones")
    add("--tfds_dir", default="", metavar="DIR", help="keeps the prepared pictures")
    add("--weights", default="", metavar="W", help="of the first count (default: made)")
    add("--json", default="", metavar="FILE", help="writes all that was measured")
    add("--plot", default="", metavar="FILE.png", help="draws how cost grows")
    add("--read", default="", metavar="FILE", help="a file of --json; nothing is measured")
    add("--trial", action="store_true", help="small and once: whether the benchmark works")
    return parser


if __name__ == "__main__":
    # Ends like Ctrl-C, so that the sides end, too, and the scratch folder goes.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
