"""Operations of the cascade, counted from its layers: what a plain convolution needs.

An implementation that needs fewer (Fourier transforms) is credited with these all the same, so that
the operations a second of all implementations compare.
"""

from typing import NamedTuple


class Layer(NamedTuple):
    """A convolution, plain or transposed: side of the kernel, channels, pixels a side of a cell.

    The cells of a transposed convolution are those of its input.
    """

    kernel: int
    inputs: int
    outputs: int
    stride: int

    def count(self, height: int, width: int) -> float:
        """Operations for one picture; a product and its addition are two."""
        cells = (height / self.stride) * (width / self.stride)
        return 2 * self.kernel**2 * self.inputs * self.outputs * cells


LAYERS = (
    Layer(9, 1, 16, 1), Layer(7, 16, 32, 1),  # shared
    Layer(9, 32, 16, 1), Layer(7, 16, 32, 2), Layer(7, 32, 16, 4), Layer(7, 16, 8, 4),  # prior
    Layer(7, 32, 20, 1), Layer(5, 20, 40, 2), Layer(5, 40, 20, 4), Layer(5, 20, 10, 4),  # density
    Layer(3, 18, 24, 4), Layer(3, 24, 32, 4),  # decoder
    Layer(4, 32, 16, 4), Layer(4, 16, 8, 2), Layer(1, 8, 1, 1),
)  # fmt: skip

# The 1x1 convolution of 32x32 cells and the three fully connected layers.
HEAD = 2.0 * (32 * 32 * 8 * 4 + 4096 * 512 + 512 * 256 + 256 * 10)


def forward(batch: int, height: int, width: int, *, head: bool = True) -> float:
    """Operations of density and, with the head, logits of a batch of pictures of one size."""
    convolutions = sum(layer.count(height, width) for layer in LAYERS)
    return batch * (convolutions + (HEAD if head else 0))


def train_step(batch: int, height: int, width: int) -> float:
    """Forward, gradient of the inputs (none of the picture) and gradient of the weights."""
    picture = LAYERS[0].count(height, width)
    return batch * (3 * forward(1, height, width) - picture)
