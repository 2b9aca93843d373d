"""The cascade in PyTorch: the baseline, our own, with the names of the released format.

Its state dict has the keys of the authors' HDF5 files, so that both sides of a comparison load the
same weights. Pictures are alone in their batch or all of one size: nothing is masked.
"""

import pathlib

import h5py
import torch
from torch import nn
from torch.nn import functional

_PREFIX = "CCN."


class Conv(nn.Module):
    """A convolution that keeps the size, and its PReLU (one slope) or ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, prelu: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.relu = nn.PReLU() if prelu else nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.conv(x))


class Dense(nn.Module):
    """A fully connected layer and its PReLU (one slope)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.fc = nn.Linear(inputs, outputs)
        self.relu = nn.PReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.fc(x))


class TorchCascade(nn.Module):
    """The released configuration of the cascade (paper, Figure 2)."""

    def __init__(self, groups: int = 10, dropout: float = 0.5):
        super().__init__()
        self.base_layer = nn.Sequential(Conv(1, 16, 9), Conv(16, 32, 7))
        self.hl_prior_1 = nn.Sequential(
            Conv(32, 16, 9), nn.MaxPool2d(2), Conv(16, 32, 7), nn.MaxPool2d(2),
            Conv(32, 16, 7), Conv(16, 8, 7),
        )  # fmt: skip
        self.hl_prior_2 = nn.Sequential(nn.AdaptiveMaxPool2d((32, 32)), Conv(8, 4, 1))
        self.hl_prior_fc1 = Dense(4 * 32 * 32, 512)
        self.hl_prior_fc2 = Dense(512, 256)
        self.hl_prior_fc3 = Dense(256, groups)
        self.de_stage_1 = nn.Sequential(
            Conv(32, 20, 7), nn.MaxPool2d(2), Conv(20, 40, 5), nn.MaxPool2d(2),
            Conv(40, 20, 5), Conv(20, 10, 5),
        )  # fmt: skip
        self.de_stage_2 = nn.Sequential(
            Conv(18, 24, 3), Conv(24, 32, 3),
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1), nn.PReLU(),
            nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1), nn.PReLU(),
            Conv(8, 1, 1, prelu=False),
        )  # fmt: skip
        self.dropout = dropout

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, 1, H, W], normalised, H and W multiples of 4 -> density [B, 1, H, W], logits [B, G].

        The density is in people per pixel.
        """
        density, prior = self._maps(image)
        x = self.hl_prior_2(prior).flatten(1)
        x = functional.dropout(self.hl_prior_fc1(x), self.dropout, self.training)
        x = functional.dropout(self.hl_prior_fc2(x), self.dropout, self.training)
        return density, self.hl_prior_fc3(x)

    def density(self, image: torch.Tensor) -> torch.Tensor:
        """The density alone: the fully connected head is not computed."""
        return self._maps(image)[0]

    def _maps(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shared = self.base_layer(image)
        prior = self.hl_prior_1(shared)
        features = torch.cat([prior, self.de_stage_1(shared)], 1)
        return self.de_stage_2(features), prior


def load(path: str | pathlib.Path) -> tuple[TorchCascade, dict[str, float]]:
    """The cascade with the weights of a released file, and the attributes of the file.

    Raises:
        OSError: no such file.
        RuntimeError: it holds something else.
    """
    net = TorchCascade()
    with h5py.File(path) as file:
        weights = {key.removeprefix(_PREFIX): torch.from_numpy(file[key][()]) for key in file}
        attributes = dict(file.attrs)
    net.load_state_dict(weights)
    return net, attributes
