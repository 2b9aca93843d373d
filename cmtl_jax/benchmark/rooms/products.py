"""Matrix products: what the machine can do, to hold the other numbers against."""

from cmtl_jax.benchmark.bench import Bench


def measure(bench: Bench) -> dict[str, dict[str, float]]:
    """Operations a second by precision and side."""
    side = bench.settings.product[bench.platform == "gpu"]
    products = {}
    for precision in bench.settings.precisions_on(bench.platform):
        row = bench.compare(
            f"products/{precision}",
            f"product of {side}x{side} matrices",
            "matmul",
            precision=precision,
            spec={"side": side},
            variants={"PyTorch": {}},
        )
        found = {"cmtl_jax": row.ours, "PyTorch": row.torch.get("PyTorch")}
        products[precision] = {
            name: 2 * side**3 / values.least for name, values in found.items() if values
        }
    return products
