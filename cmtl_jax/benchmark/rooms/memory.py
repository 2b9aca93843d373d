"""Memory of the training step: the most its process holds, less what it held after importing."""

from collections.abc import Callable, Iterator

from cmtl_jax.benchmark.bench import Bench
from cmtl_jax.benchmark.row import Row

_STEPS = 3


def measure(bench: Bench) -> Iterator[Row]:
    """Rows with compilation in the process, and with programs compiled before. CPU alone."""
    if bench.platform != "cpu":  # there the memory that matters is not the process's
        return
    s = bench.settings
    height, width = s.crop
    batch = s.batches[0][0]
    spec = {
        "weights": bench.weights(), "precision": "float32",
        "batch": batch, "height": height, "width": width,
    }  # fmt: skip
    imported: dict[str, int] = {}

    def of(framework: str, cache: Callable[[], str], **more) -> Callable[[], float]:
        def once() -> float:
            done = bench.once(framework, "train_step", cache(), times=_STEPS, **spec, **more)
            imported[framework] = done.imported_bytes
            return done.peak_bytes - done.imported_bytes

        return once

    number = iter(range(10**9))
    torch = {
        name: of("torch", str, platform="cpu", **more) for name, more in bench.variants.items()
    }
    for state, title, cache in (
        ("cold", "compiling", lambda: f"memory{next(number)}"),
        ("warm", "programs from disk", lambda: "memory"),
    ):
        yield bench.compare_fresh(
            f"memory/{state}",
            f"training step, {batch} of {height}x{width}, {title}",
            of("ours", cache),
            torch,
            warm_up=state == "warm",
            precision="float32",
            unit="bytes",
            details={"imported_bytes": imported},
        )
