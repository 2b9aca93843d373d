"""The network forward: density and group logits of a batch."""

from collections.abc import Iterator

from cmtl_jax.benchmark import operations
from cmtl_jax.benchmark.bench import Bench
from cmtl_jax.benchmark.row import Row


def measure(bench: Bench) -> Iterator[Row]:
    """A row for each precision, of the largest batch of the training step."""
    s = bench.settings
    height, width = s.crop
    batch = max(s.batches[bench.platform == "gpu"])
    for precision in s.precisions_on(bench.platform):
        yield bench.compare(
            f"model/{batch}/{precision}",
            f"forward, {batch} of {height}x{width}",
            "forward",
            precision=precision,
            spec={
                "weights": bench.weights(precision),
                "batch": batch, "height": height, "width": width,
            },  # fmt: skip
            pixels=batch * height * width,
            operations=operations.forward(batch, height, width),
        )
