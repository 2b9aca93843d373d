"""The training step: losses, gradients and Adam."""

from collections.abc import Iterator

from cmtl_jax.benchmark import operations
from cmtl_jax.benchmark.bench import Bench
from cmtl_jax.benchmark.row import Row


def measure(bench: Bench) -> Iterator[Row]:
    """A row for each precision and batch; on a CPU the lower ones of the first batch alone."""
    s = bench.settings
    height, width = s.crop
    batches = s.batches[bench.platform == "gpu"]
    for precision in s.precisions_on(bench.platform):
        alone = bench.platform == "cpu" and precision != "float32"
        for batch in batches[:1] if alone else batches:
            yield bench.compare(
                f"train_step/{batch}/{precision}",
                f"training step, {batch} of {height}x{width}",
                "train_step",
                precision=precision,
                spec={
                    "weights": bench.weights(precision),
                    "batch": batch, "height": height, "width": width,
                },  # fmt: skip
                pixels=batch * height * width,
                operations=operations.train_step(batch, height, width),
            )
