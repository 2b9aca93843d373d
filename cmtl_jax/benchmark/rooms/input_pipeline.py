"""The training's input: random crops, augmented, in batches; pictures in memory."""

from collections.abc import Iterator

from cmtl_jax.benchmark import machine
from cmtl_jax.benchmark.bench import Bench
from cmtl_jax.benchmark.row import Row

_BATCH = 8


def measure(bench: Bench) -> Iterator[Row]:
    """One row; PyTorch's DataLoader with no process of its own, and with one a core."""
    height, width = bench.settings.crop
    pictures = bench.pictures()
    spec = {"number": len(pictures.sizes), "batch": _BATCH, "height": height, "width": width}
    yield bench.compare(
        f"input_pipeline/{_BATCH}",
        f"batch of {_BATCH} crops of {height}x{width}",
        "load_batches",
        precision="",
        spec=spec | {"dataset": pictures.dataset},
        torch_spec=spec | {"folder": str(pictures.folder)},
        variants={
            f"DataLoader, {workers} processes": {"workers": workers}
            for workers in (0, machine.cores())
        },
        pixels=_BATCH * height * width,
    )
