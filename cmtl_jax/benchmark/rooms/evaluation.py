"""Evaluation of pictures of mixed sizes, from disk to metrics, each time in a fresh process."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from cmtl_jax.benchmark import operations
from cmtl_jax.benchmark.bench import LAYOUTS, Bench, disagreements
from cmtl_jax.benchmark.row import Row


def side(
    bench: Bench, framework: str, number: int, cache: Callable[[], str], found: dict, **options: Any
) -> Callable[[], float]:
    """Measures one evaluation, from the start of the process to its end; seconds.

    Args:
        bench: with the pictures.
        framework: 'ours' or 'torch'.
        number: of pictures, the first ones.
        cache: gives the name of the folder of compiled programs.
        found: what the evaluation found is put here.
        **options: of PyTorch.
    """
    pictures = bench.pictures()
    spec = {"weights": bench.weights(), "number": number}
    if framework == "ours":
        spec |= {"dataset": pictures.dataset}
    else:
        spec |= {"folder": str(pictures.folder), "platform": bench.platform, **options}

    def once() -> float:
        done = bench.once(framework, "evaluate", cache(), **spec)
        found[framework] = done.result
        found[f"{framework}_process"] = {
            "imported_seconds": done.imported_seconds, "peak_bytes": done.peak_bytes,
        }  # fmt: skip
        return done.seconds

    return once


def measure(bench: Bench) -> Iterator[Row]:
    """Rows with compilation, and with programs compiled by a run before."""
    pictures = bench.pictures()
    number = len(pictures.sizes)
    fresh = iter(range(10**9))
    for state, title, cache in (
        ("cold", "compiling", lambda: f"evaluation{next(fresh)}"),
        ("warm", "programs from disk", lambda: "evaluation"),
    ):
        found: dict[str, dict[str, Any]] = {}
        ours = side(bench, "ours", number, cache, found)
        torch = {
            name: side(bench, "torch", number, str, found, **options)
            for name, options in LAYOUTS.items()
        }
        row = bench.compare_fresh(
            f"evaluation/{state}",
            f"{number} pictures of mixed sizes, {title}",
            ours,
            torch,
            warm_up=state == "warm",
            precision="float32",
            pixels=pictures.pixels(number),
            operations=sum(operations.forward(1, *size) for size in pictures.sizes),
            details=found,
        )
        yield dataclasses.replace(row, notes=(*row.notes, *_notes(found)))


def _notes(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """What both sides found, and where they differ."""
    ours, torch = found.get("ours", {}), found.get("torch")
    if ours:
        beside = "" if torch is None else f", PyTorch's {torch['mae']:.6g}"
        yield f"MAE {ours['mae']:.6g}{beside}; {ours['programs']} programs"
    if torch is not None:
        yield from disagreements(ours, {"PyTorch": torch}, "float32")
