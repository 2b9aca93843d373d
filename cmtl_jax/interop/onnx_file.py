"""Trained weights as an ONNX graph, for runtimes in which there is no jax.

The graph takes whole pictures of any size, grey levels or colours 0..255, and gives density and
count: normalisation, padding to whole cells, and the authors' resizing where the weights want it
are nodes of it. The pictures of one batch have one size, so that no masks are needed: beyond the
next multiples of 4, which is where masks begin, there is nothing.

Written node by node from the parameters, rather than by a converter: it stays as small as the
network, and asks for no package that excludes those of the training.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from cmtl_jax.interop import description
from cmtl_jax.models.layers import STRIDE
from cmtl_jax.models.mcnn import COLUMNS
from cmtl_jax.trained_model import TrainedModel

OPSET = 17  # ONNX Runtime 1.12 (2022) and what came after it
IR_VERSION = 8

_LOWEST = np.float32(np.finfo(np.float32).min)
_BINS = 32  # of the adaptive pooling, a side
_IMAGE = (
    "uint8 [batch, {channels}, height, width], sides of any length{least}; the pictures of a batch "
    "have one size, others go one by one"
)
_DENSITY = "float32 [batch, 1, height, width], people per pixel"
_COUNT = "float32 [batch], people: the sum of the density"


def encode(trained: TrainedModel) -> bytes:
    """The content of a checked ONNX file; its metadata_props say how it is to be used."""
    return build(trained).SerializeToString()


def build(trained: TrainedModel) -> onnx.ModelProto:
    """The graph: image uint8 [B, C, H, W] -> density float32 [B, 1, H, W], count float32 [B].

    It computes in float32, whatever the type that was trained with.
    """
    graph = _Graph()
    _whole_picture(graph, trained)
    c = trained.config
    least = " from 4 on" if c.input.resize == "multiple_of_4" else ""
    texts = {
        "image": _IMAGE.format(channels=c.input.channels, least=least),
        "density": _DENSITY,
        "count": _COUNT,
    }
    image = helper.make_tensor_value_info(
        "image", TensorProto.UINT8, ["batch", c.input.channels, "height", "width"], texts["image"]
    )
    density = helper.make_tensor_value_info(
        "density", TensorProto.FLOAT, ["batch", 1, "height", "width"], texts["density"]
    )
    count = helper.make_tensor_value_info("count", TensorProto.FLOAT, ["batch"], texts["count"])
    about = description.describe(trained)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes, c.model.name, [image], [density, count], graph.initializers
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="cmtl_jax",
        producer_version=about["exported_by"],
        doc_string=f"{about['what']}. Input: {about['preprocessing']}. {about['limits']}",
    )
    helper.set_model_props(model, {k: _text(v) for k, v in (about | texts).items()})
    onnx.checker.check_model(model, full_check=True)
    return model


class Program:
    """A file, run on pictures one at a time by ONNX Runtime on the CPU.

    Attributes:
        about: what the file says of itself.
    """

    def __init__(self, path: pathlib.Path):
        """Reads a file of what `encode` gives."""
        self._session = onnxruntime.InferenceSession(
            str(path), providers=["CPUExecutionProvider"]
        )
        self.about: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def __call__(self, picture: np.ndarray) -> tuple[np.ndarray, float]:
        """uint8 [H, W, C] -> density float32 [H, W], count."""
        image = np.ascontiguousarray(picture.transpose(2, 0, 1)[None])
        density, count = self._session.run(["density", "count"], {"image": image})
        return density[0, 0], float(count[0])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


class _Graph:
    """Nodes and constants, named as they come."""

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def node(self, kind: str, *inputs: str, output: str = "", **attributes) -> str:
        """Appends a node with one output; returns the output's name."""
        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, value: Any, kind: type = np.float32) -> str:
        """Holds an array; returns its name."""
        name = f"constant_{len(self.initializers)}"
        array = np.asarray(value, kind, order="C")
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def whole(self, value: Any) -> str:
        """Holds whole numbers."""
        return self.constant(value, np.int64)

    def side(self, x: str, axis: int) -> str:
        """The length of an axis, int64 []."""
        return self.node("Gather", self.node("Shape", x), self.whole(axis))

    def vector(self, *numbers: str) -> str:
        """int64 [] each -> int64 [n]."""
        columns = [self.node("Reshape", number, self.whole([1])) for number in numbers]
        return self.node("Concat", *columns, axis=0)

    def steps(self, length: str, axis: int) -> str:
        """0, 1, ..., length - 1 as int64 [length, 1] (axis 0) or [1, length] (axis 1)."""
        numbers = self.node("Range", self.whole(0), length, self.whole(1))
        return self.node("Unsqueeze", numbers, self.whole([1 - axis]))

    def ratio(self, numerator: str, denominator: str) -> str:
        """Whole numbers -> float32, their quotient."""
        return self.node(
            "Div", *(self.node("Cast", x, to=TensorProto.FLOAT) for x in (numerator, denominator))
        )


def _whole_picture(g: _Graph, trained: TrainedModel) -> None:
    """Network and all around it."""
    c = trained.config
    params = jax.tree.map(np.asarray, trained.params)
    sides = [g.side("image", axis) for axis in (2, 3)]
    x, seen = g.node("Cast", "image", to=TensorProto.FLOAT), sides
    if c.input.resize == "multiple_of_4":
        seen = [_whole_cells(g, side) for side in sides]
        x = _along_both_sides(g, _bilinear, x, sides, seen)
    if c.input.mean != 0:
        x = g.node("Sub", x, g.constant(c.input.mean))
    if c.input.std != 1:
        x = g.node("Div", x, g.constant(c.input.std))
    x = _pad(g, x, seen)
    if c.model.name == "mcnn":
        people = _activated(g, trained, _mcnn(g, params, x))
        density = _spread_over_cells(g, people, seen)
    else:
        density = _activated(g, trained, _cascade(g, trained, params, x))
    density = g.node(
        "Slice", density, g.whole([0, 0]), g.vector(*seen), g.whole([2, 3]),
        output="density" if seen is sides else "",
    )  # fmt: skip
    if seen is not sides:
        density = _along_both_sides(g, _spread, density, seen, sides, output="density")
    rows = g.node("ReduceSum", density, g.whole([1, 3]), keepdims=0)  # short sums round less
    g.node("ReduceSum", rows, g.whole([1]), keepdims=0, output="count")


def _activated(g: _Graph, trained: TrainedModel, raw: str) -> str:
    c = trained.config
    kind = {"relu": "Relu", "softplus": "Softplus"}[c.model.output_activation]
    return g.node("Div", g.node(kind, raw), g.constant(c.loss.density_scale))


# ---------------------------------------------------------------------------- networks


def _conv(g: _Graph, params: dict[str, np.ndarray], x: str) -> str:
    kernel = params["kernel"]
    half = [side // 2 for side in kernel.shape[:2]]
    return g.node(
        "Conv", x, g.constant(kernel.transpose(3, 2, 0, 1)), g.constant(params["bias"]),
        pads=[*half, *half],
    )  # fmt: skip


def _prelu(g: _Graph, params: dict[str, np.ndarray], x: str) -> str:
    return g.node("PRelu", x, g.constant(params["slope"].reshape(1)))


def _layers(g: _Graph, params: dict, x: str, number: int, pools: Sequence[int] = ()) -> str:
    """Convolutions conv1 ... with their PReLUs; a pooling behind those numbered in pools."""
    for i in range(1, number + 1):
        layer = params[f"conv{i}"]
        x = _prelu(g, layer["prelu"], _conv(g, layer["conv"], x))
        if i in pools:
            x = g.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    return x


def _cascade(g: _Graph, trained: TrainedModel, params: dict, x: str) -> str:
    """Normalised pictures of whole cells -> raw density; see models.cmtl."""
    shared = _layers(g, params["shared"], x, 2)
    features = _layers(g, params["density"], shared, 4, (1, 2))
    if "prior" in params:
        prior = _layers(g, params["prior"], shared, 4, (1, 2))
        features = g.node("Concat", prior, features, axis=1)
        if trained.config.model.prior_fusion == "film":
            features = _modulated(g, trained, params, prior, features)
    decoder = params["decoder"]
    x = _layers(g, decoder, features, 2)
    for i in (1, 2):
        layer = decoder[f"up{i}"]["conv"]
        # ONNX scatters with the kernel, Flax gathers: flipped, input channels first.
        kernel = layer["kernel"][::-1, ::-1].transpose(2, 3, 0, 1)
        x = g.node(
            "ConvTranspose", x, g.constant(kernel), g.constant(layer["bias"]),
            strides=[2, 2], pads=[1, 1, 1, 1],
        )  # fmt: skip
        x = _prelu(g, decoder[f"prelu{i}"], x)
    return _conv(g, decoder["output"], x)


def _mcnn(g: _Graph, params: dict, x: str) -> str:
    """Normalised pictures of whole cells -> raw people a cell; see models.mcnn."""
    columns = []
    for name in COLUMNS:
        y = x
        for i in range(1, 5):
            y = g.node("Relu", _conv(g, params[name][f"conv{i}"], y))
            if i <= 2:
                y = g.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
        columns.append(y)
    return _conv(g, params["output"], g.node("Concat", *columns, axis=1))


def _spread_over_cells(g: _Graph, people: str, seen: list[str]) -> str:
    """People a cell -> people a pixel of the picture."""
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    inside = g.node("ConstantOfShape", g.vector(g.whole(1), g.whole(1), *seen), value=one)
    cell = {"kernel_shape": [STRIDE, STRIDE], "strides": [STRIDE, STRIDE]}
    share = g.node("AveragePool", _pad(g, inside, seen), **cell)
    pixels = g.node("Mul", share, g.constant(STRIDE**2))
    return g.node(
        "Resize", g.node("Div", people, pixels), "", g.constant([1, 1, STRIDE, STRIDE]),
        mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip


def _modulated(g: _Graph, trained: TrainedModel, params: dict, prior: str, features: str) -> str:
    """What the group probabilities make of the features; see cmtl.GroupModulation."""
    c, head = trained.config, params["head"]
    flat = g.whole([0, -1])  # per picture, in the order rows, columns, channels
    if c.model.prior_pool == "spp":
        pooled = [_adaptive_max(g, prior, bins) for bins in c.model.spp_levels]
    else:
        x = _adaptive_max(g, prior, _BINS)
        pooled = [_prelu(g, head["reduce"]["prelu"], _conv(g, head["reduce"]["conv"], x))]
    pooled = [g.node("Transpose", x, perm=[0, 2, 3, 1]) for x in pooled]
    x = g.node("Concat", *(g.node("Reshape", x, flat) for x in pooled), axis=1)
    for i in (1, 2, 3):
        layer = head[f"fc{i}"]
        x = g.node("Gemm", x, g.constant(layer["kernel"]), g.constant(layer["bias"]))
        if f"prelu{i}" in head:
            x = _prelu(g, head[f"prelu{i}"], x)
    kernel = params["modulation"]["dense"]["kernel"]
    x = g.node("MatMul", g.node("Softmax", x, axis=1), g.constant(kernel))
    x = g.node("Unsqueeze", x, g.whole([2, 3]))
    half = kernel.shape[1] // 2
    scale = g.node("Slice", x, g.whole([0]), g.whole([half]), g.whole([1]))
    shift = g.node("Slice", x, g.whole([half]), g.whole([2 * half]), g.whole([1]))
    scaled = g.node("Mul", features, g.node("Add", scale, g.constant(1)))
    return g.node("Add", scaled, shift)


def _adaptive_max(g: _Graph, x: str, bins: int) -> str:
    """Maximum of each cell of a grid of bins x bins; see layers.adaptive_max_pool."""
    for axis in (2, 3):
        length = g.side(x, axis)
        number, place = g.whole(np.arange(bins)[:, None]), g.steps(length, 1)
        start = g.node("Div", g.node("Mul", number, length), g.whole(bins))
        end = g.node("Mul", g.node("Add", number, g.whole(1)), length)
        stop = g.node("Div", g.node("Add", end, g.whole(bins - 1)), g.whole(bins))
        inside = g.node(
            "And", g.node("GreaterOrEqual", place, start), g.node("Less", place, stop)
        )  # [bins, length]
        if axis == 2:
            inside = g.node("Unsqueeze", inside, g.whole([2]))
        each = g.node("Unsqueeze", x, g.whole([axis]))
        each = g.node("Where", inside, each, g.constant(_LOWEST))
        x = g.node("ReduceMax", each, axes=[axis + 1], keepdims=0)
    return x


# ------------------------------------------------------------------ sizes of pictures


def _pad(g: _Graph, x: str, seen: list[str]) -> str:
    """Zeros below and on the right, up to multiples of 4."""
    more = [g.node("Mod", g.node("Neg", side), g.whole(STRIDE)) for side in seen]
    zero = g.whole(0)
    return g.node("Pad", x, g.vector(zero, zero, zero, zero, zero, zero, *more))


def _whole_cells(g: _Graph, side: str) -> str:
    """The next lower multiple of 4."""
    return g.node("Mul", g.node("Div", side, g.whole(STRIDE)), g.whole(STRIDE))


def _along_both_sides(
    g: _Graph, weights, x: str, old: list[str], new: list[str], output: str = ""
) -> str:
    """x [B, C, *old] on the grid of [B, C, *new]."""
    x = g.node("MatMul", weights(g, old[0], new[0]), x)
    columns = g.node("Transpose", weights(g, old[1], new[1]), perm=[1, 0])
    return g.node("MatMul", x, columns, output=output)


def _bilinear(g: _Graph, old: str, new: str) -> str:
    """Weights [new, old] of old pixels for each new one; see stablehlo._bilinear."""
    one, two = g.whole(1), g.whole(2)
    i, j = g.steps(new, 0), g.steps(old, 1)
    middle = g.node("Mul", g.node("Add", g.node("Mul", i, two), one), old)
    twice = g.node("Mul", new, two)
    last = g.node("Mul", twice, g.node("Sub", old, one))
    place = g.node("Min", g.node("Max", g.node("Sub", middle, new), g.whole(0)), last)
    away = g.node("Abs", g.node("Sub", place, g.node("Mul", twice, j)))
    return g.ratio(g.node("Max", g.node("Sub", twice, away), g.whole(0)), twice)


def _spread(g: _Graph, old: str, new: str) -> str:
    """Shares [new, old] of each old pixel in each new one; see stablehlo._spread."""
    one = g.whole(1)
    i, j = g.steps(new, 0), g.steps(old, 1)

    def ends(number: str, length: str) -> tuple[str, str]:
        return g.node("Mul", number, length), g.node("Mul", g.node("Add", number, one), length)

    (start, stop), (old_start, old_stop) = ends(i, old), ends(j, new)
    both = g.node("Sub", g.node("Min", stop, old_stop), g.node("Max", start, old_start))
    return g.ratio(g.node("Max", both, g.whole(0)), new)
