"""Prediction: one picture, one that is too large for memory, and the first one of a process."""

import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
from PIL import Image

from cmtl_jax.benchmark import inputs, machine, operations
from cmtl_jax.benchmark.bench import LAYOUTS, OURS, Bench
from cmtl_jax.benchmark.measure import Values
from cmtl_jax.benchmark.process import SideError, variables
from cmtl_jax.benchmark.row import Row
from cmtl_jax.benchmark.targets import GIB

LARGEST_DIFFERENCE = 1e-4  # of a map in tiles from the whole, relative to its largest value


def measure(bench: Bench) -> Iterator[Row]:
    """Rows of one picture in each precision, the large picture, and the first count."""
    height, width = bench.settings.picture
    for precision in bench.settings.precisions_on(bench.platform):
        yield bench.compare(
            f"prediction/picture/{precision}",
            f"density of one picture of {height}x{width}",
            "predict",
            precision=precision,
            spec={"weights": bench.weights(precision), "height": height, "width": width},
            pixels=height * width,
            operations=operations.forward(1, height, width, head=False),
        )
    yield _large(bench)
    yield _first_count(bench)


def _large(bench: Bench) -> Row:
    """The most that a process holds which counts the large picture, and whether it is exact."""
    height, width = bench.settings.large
    fields = {
        "key": "prediction/large", "title": f"one picture of {height}x{width}, whole process",
        "precision": "float32", "platform": bench.platform, "unit": "bytes",
    }  # fmt: skip
    path, density = (str(bench.scratch / name) for name in ("large.png", "large.npy"))
    Image.fromarray(inputs.picture(height, width)).save(path, compress_level=1)
    try:
        counted = bench.once(
            "ours", "predict", weights=bench.weights(), precision="float32", path=path,
            save=density,
        )  # fmt: skip
        available = machine.memory_bytes("MemAvailable") or 4 * GIB
        # Not all of it: a process holds a third more than its program says.
        compared = bench.once(
            "ours", "whole", weights=bench.weights(), path=path, density=density,
            memory_bytes=int(0.65 * available),
        )  # fmt: skip
    except SideError as error:
        return bench.finish(Row(ours=None, notes=(str(error),), **fields))
    whole = compared.result
    part = "" if whole["rows"] == whole["of_rows"] else f" on its upper {whole['rows']} rows"
    equal = "equal" if whole["difference"] <= LARGEST_DIFFERENCE else "NOT equal"
    return bench.finish(
        Row(
            ours=Values((counted.peak_bytes,)),
            pixels=height * width,
            notes=(
                f"{counted.run_seconds:.1f} s; {equal} to the whole{part}: largest difference "
                f"{whole['difference']:.1e} of the largest value, of the count "
                f"{whole['count_difference']:.1e}",
            ),
            details=whole
            | {
                "seconds": counted.run_seconds, "count": counted.result["count"],
                "whole_peak_bytes": compared.peak_bytes,
            },
            **fields,
        )
    )


def _first_count(bench: Bench) -> Row:
    """From the shell to the count of one picture: import, weights, program from disk, network."""
    height, width = bench.settings.picture
    path = str(bench.scratch / "first.jpg")
    smooth = np.kron(inputs.picture(-(-height // 8), -(-width // 8)), np.ones((8, 8), np.uint8))
    Image.fromarray(smooth[:height, :width]).save(path)
    weights = bench.settings.weights or bench.weights()
    command = [sys.executable, "-m", "cmtl_jax.predict", path, f"--weights={weights}"]
    environment = variables(bench.environment())

    def ours() -> float:
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise SideError(" ".join(done.stderr.split())[-300:])
        return time.perf_counter() - began

    def torch(**options) -> float:
        return bench.once(
            "torch", "predict", weights=bench.weights(), precision="float32", path=path,
            platform=bench.platform, **options,
        ).seconds  # fmt: skip

    key, title = "prediction/first_count", f"first count, {height}x{width}, programs from disk"
    try:
        first = ours()
        parts = bench.once(OURS, "predict", weights=weights, precision="float32", path=path)
    except SideError as error:
        fields = {"precision": "float32", "platform": bench.platform, "unit": "seconds"}
        return bench.finish(Row(key, title, ours=None, notes=(str(error),), **fields))
    return bench.compare_fresh(
        key,
        title,
        ours,
        {name: lambda options=options: torch(**options) for name, options in LAYOUTS.items()},
        precision="float32",
        notes=(
            f"imports {parts.imported_seconds:.2f} s (the benchmark's own included), weights "
            f"{parts.prepared_seconds:.2f} s, first picture {parts.run_seconds:.2f} s; "
            f"{first:.2f} s before its program was on disk",
        ),
        details={"uncached_seconds": first},
    )
