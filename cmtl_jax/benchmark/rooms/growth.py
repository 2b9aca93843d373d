"""How cost grows with pictures, pixels, batch and devices."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cmtl_jax.benchmark.bench import OURS, Bench
from cmtl_jax.benchmark.curve import Curve
from cmtl_jax.benchmark.rooms import evaluation

_VARIANT = "channels_last"
_OPTIONS = {"channels_last": True}


def measure(bench: Bench) -> Iterator[Curve]:
    """A curve for each quantity, all in float32."""
    s = bench.settings
    height, width = s.crop

    yield _pictures(bench)
    yield _curve(
        bench, "pixels", "one picture predicted, over its pixels", "predict", s.growth_sides,
        lambda side: {"height": side, "width": side}, x=lambda side: side * side,
    )  # fmt: skip
    yield _curve(
        bench, "batch", f"training step, over its batch of {height}x{width}", "train_step",
        s.growth_batches, lambda batch: {"batch": batch, "height": height, "width": width},
    )  # fmt: skip
    yield _devices(bench)


def _curve(
    bench: Bench,
    name: str,
    title: str,
    task: str,
    points: Sequence[int],
    spec: Callable[[int], Mapping[str, Any]],
    x: Callable[[int], float] = float,
) -> Curve:
    """A curve whose points are rows of one task; it ends where a point cannot be measured."""
    rows = []
    for point in points:
        row = bench.compare(
            f"growth/{name}/{point}", f"{title}: {point}", task, precision="float32",
            spec={"weights": bench.weights(), **spec(point)}, variants={_VARIANT: _OPTIONS},
        )  # fmt: skip
        if row.ours is None:
            break
        rows.append(row)
    torch = tuple(row.torch[_VARIANT] for row in rows if row.torch)
    return Curve(
        name, title, tuple(map(x, points[: len(rows)])), tuple(row.ours for row in rows),
        torch if len(torch) == len(rows) else (), _VARIANT,
    )  # fmt: skip


def _pictures(bench: Bench) -> Curve:
    """Evaluations in fresh processes, compilation included."""
    fresh = iter(range(10**9))
    x, rows = [], []
    for number in bench.settings.growth_pictures:
        if number > len(bench.pictures().sizes):
            break
        row = bench.compare_fresh(
            f"growth/pictures/{number}",
            f"{number} pictures evaluated, compiling",
            evaluation.side(bench, "ours", number, lambda: f"growth{next(fresh)}", {}),
            {_VARIANT: evaluation.side(bench, "torch", number, str, {}, **_OPTIONS)},
        )
        if row.ours is None:
            break
        x.append(float(number))
        rows.append(row)
    return Curve(
        "pictures", "evaluation in a fresh process, over its pictures", tuple(x),
        tuple(row.ours for row in rows),
        tuple(row.torch[_VARIANT] for row in rows if row.torch), _VARIANT,
    )  # fmt: skip


def _devices(bench: Bench) -> Curve:
    """The training step of the largest usual batch over more and more devices."""
    s = bench.settings
    height, width = s.crop
    gpu = bench.platform == "gpu"
    batch = max(s.batches[gpu])
    there = len(bench.about[OURS]["devices"])
    numbers = [n for n in s.growth_devices if not gpu or n <= there]
    title = f"training step of batch {batch}, over devices"
    x, values = [], []
    for number in numbers:
        # The processor is cut into devices; a GPU is one.
        flags = {} if gpu else {"XLA_FLAGS": f"--xla_force_host_platform_device_count={number}"}
        row = bench.compare(
            f"growth/devices/{number}", f"{title}: {number}", "train_step", precision="float32",
            spec={
                "weights": bench.weights(), "batch": batch, "height": height, "width": width,
                "devices": number,
            },
            variants={}, environment=flags,
        )  # fmt: skip
        if row.ours is None:
            break
        x.append(float(number))
        values.append(row.ours)
    cut = "" if gpu else " that one processor is cut into"
    return Curve(
        "devices", title + cut, tuple(x), tuple(values), power=-1 if gpu else 0
    )  # fmt: skip
