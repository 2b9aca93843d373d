"""The convolutions of a training step one by one: where its time goes."""

from collections.abc import Iterator

from cmtl_jax.benchmark import operations
from cmtl_jax.benchmark.bench import LAYOUTS, Bench
from cmtl_jax.benchmark.row import Row

# What a part is, and how many products of the layer's size it takes.
PARTS = {"forward": ("forward", 1), "gradients": ("gradients", 2)}
SHARE = 0.04  # of the operations of all layers, that a layer needs to be measured


def measure(bench: Bench) -> Iterator[Row]:
    """A row for each part of the layers that most operations are in, in float32."""
    s = bench.settings
    height, width = s.crop
    batch = max(s.batches[bench.platform == "gpu"])
    whole = sum(layer.count(height, width) for layer in operations.LAYERS)
    for layer in operations.LAYERS:
        count = layer.count(height, width)
        if count < SHARE * whole:
            continue
        size, side = (height // layer.stride, width // layer.stride), layer.kernel
        name = f"{side}x{side}, {layer.inputs} -> {layer.outputs} channels"
        for part, (title, products) in PARTS.items():
            yield bench.compare(
                f"layers/{side}_{layer.inputs}_{layer.outputs}_{layer.stride}/{part}",
                f"{name}, {batch} of {size[0]}x{size[1]}: {title}",
                "convolution",
                precision="float32",
                spec={
                    "batch": batch, "height": size[0], "width": size[1],
                    "kernel": side, "channels": (layer.inputs, layer.outputs), "part": part,
                },  # fmt: skip
                variants=LAYOUTS,
                operations=batch * count * products,
            )
