"""Tasks of the baseline's side: PyTorch, run in the way that its users run it at its best."""

import pathlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from cmtl_jax import config as base_config
from cmtl_jax import metrics
from cmtl_jax.benchmark import inputs, machine, torch_cascade, torch_training
from cmtl_jax.benchmark.settings import GROUPS
from cmtl_jax.benchmark.task import Task
from cmtl_jax.input_pipeline.crops import Augmentation, CropRule, augment, random_crop
from cmtl_jax.input_pipeline.picture import Picture

_HALF = {"bfloat16": torch.bfloat16}
_STRIDE = 4


def start() -> None:
    """Once in a process, before its tasks."""
    torch.set_num_threads(machine.cores())


def about() -> Task:
    """Versions and devices."""
    cuda = torch.cuda.is_available()
    return Task(
        lambda: None,
        result=lambda: {
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "cuda": torch.cuda.get_device_name() if cuda else None,
        },
    )


def _device(platform: str, precision: str) -> torch.device:
    """The device of a platform, set to products of that precision."""
    if platform == "gpu":
        mode = "tf32" if precision == "tensorfloat32" else "ieee"
        torch.backends.cuda.matmul.fp32_precision = mode
        torch.backends.cudnn.conv.fp32_precision = mode
        torch.backends.cudnn.benchmark = True
    return torch.device("cuda" if platform == "gpu" else "cpu")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _net(
    weights: str, device: torch.device, channels_last: bool
) -> tuple[torch_cascade.TorchCascade, dict[str, float]]:
    net, attributes = torch_cascade.load(weights)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return net.to(device, memory_format=layout), attributes


def _crops(
    batch: int, height: int, width: int, device: torch.device, channels_last: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    made = inputs.crops(batch, height, width)
    image, density = (torch.from_numpy(x[:, None]) for x in (made.image, made.density))
    if channels_last:
        image = image.contiguous(memory_format=torch.channels_last)
    if device.type == "cuda":
        image, density = image.pin_memory(), density.pin_memory()
    return image, density, torch.from_numpy(made.group).long()


def train_step(
    weights: str,
    precision: str,
    batch: int,
    height: int,
    width: int,
    platform: str,
    channels_last: bool = False,
    compiled: bool = False,
) -> Task:
    """A step of training with the fused Adam; bfloat16 by autocast, with float32 weights."""
    device = _device(platform, precision)
    net, _ = _net(weights, device, channels_last)
    net.train()
    step = torch_training.make_step(
        net,
        torch.optim.Adam(net.parameters(), lr=inputs.LEARNING_RATE, fused=True),
        torch.from_numpy(inputs.CLASS_WEIGHTS).to(device),
        group_weight=inputs.GROUP_WEIGHT,
        density_scale=inputs.DENSITY_SCALE,
        autocast=torch.autocast(device.type, torch.bfloat16, enabled=precision in _HALF),
        compiled=compiled,
    )
    crops = _crops(batch, height, width, device, channels_last)
    loss: Any = None

    def run() -> None:
        nonlocal loss
        loss = step(*(x.to(device, non_blocking=True) for x in crops))

    return Task(run, lambda: _wait(device), lambda: {"density_loss": float(loss)})


def forward(
    weights: str,
    precision: str,
    batch: int,
    height: int,
    width: int,
    platform: str,
    channels_last: bool = False,
    compiled: bool = False,
) -> Task:
    """Density and logits of a batch; bfloat16 with weights of that type."""
    device = _device(platform, precision)
    net, _ = _net(weights, device, channels_last)
    dtype = _HALF.get(precision, torch.float32)
    net = net.eval().to(dtype)
    compute = torch.compile(net) if compiled else net
    image, _, _ = _crops(batch, height, width, device, channels_last)
    output: Any = None

    def run() -> None:
        nonlocal output
        with torch.inference_mode():
            output = compute(image.to(device, dtype, non_blocking=True))

    def result() -> dict[str, float]:
        return {"count": float(output[0].double().sum())}

    return Task(run, lambda: _wait(device), result)


class _Counter:
    """The density of pictures one at a time, of grey levels uint8 [H, W]."""

    def __init__(
        self, weights: str, precision: str, platform: str, channels_last: bool, compiled: bool
    ):
        self._device = _device(platform, precision)
        net, attributes = _net(weights, self._device, channels_last)
        self._dtype = _HALF.get(precision, torch.float32)
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        net = net.eval().to(self._dtype)
        self._density = torch.compile(net.density) if compiled else net.density
        self._both = net
        self._mean, self._std = attributes["input_mean"], attributes["input_std"]

    def _input(self, image: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(image)[None, None].to(self._device)
        x = x.to(self._dtype).sub_(self._mean).div_(self._std)
        rest = [-side % _STRIDE for side in image.shape]
        if any(rest):
            x = torch.nn.functional.pad(x, (0, rest[1], 0, rest[0]))
        return x.contiguous(memory_format=self._layout)

    def density(self, image: np.ndarray) -> np.ndarray:
        """float32 [H, W]."""
        with torch.inference_mode():
            return self._map(self._density(self._input(image)), image)

    def density_and_group(self, image: np.ndarray) -> tuple[np.ndarray, int]:
        """float32 [H, W], and the crowd-count group."""
        with torch.inference_mode():
            density, logits = self._both(self._input(image))
            return self._map(density, image), int(logits.argmax())

    def _map(self, density: torch.Tensor, image: np.ndarray) -> np.ndarray:
        height, width = image.shape
        return density[0, 0, :height, :width].float().cpu().numpy()


def _read(path: str | pathlib.Path) -> np.ndarray:
    """Grey levels uint8 [H, W] of a picture file; of a JPEG, the luma it stores."""
    with Image.open(path) as picture:
        picture.draft("L", None)
        return np.array(picture.convert("L"))


def predict(
    weights: str,
    precision: str,
    platform: str,
    height: int = 0,
    width: int = 0,
    path: str = "",
    channels_last: bool = False,
    compiled: bool = False,
) -> Task:
    """The density of one picture: of a file, or of an array of that size."""
    counter = _Counter(weights, precision, platform, channels_last, compiled)
    picture = None if path else inputs.picture(height, width)
    found: dict[str, float] = {}

    def run() -> None:
        density = counter.density(_read(path) if picture is None else picture)
        found["count"] = float(density.sum(dtype=np.float64))

    return Task(run, result=lambda: found)


def evaluate(
    weights: str, folder: str, number: int, platform: str, channels_last: bool = False
) -> Task:
    """Pictures of a folder from disk to metrics, one at a time at their own sizes.

    Threads of its own read ahead and measure behind the network.
    """
    found: dict[str, Any] = {}

    def run() -> None:
        counter = _Counter(weights, "float32", platform, channels_last, compiled=False)
        base = pathlib.Path(folder)

        def read(i: int):
            files = (base / f"{i}.density.npy", base / f"{i}.points.npy")
            return _read(base / f"{i}.picture"), *(np.load(file) for file in files)

        total = metrics.CountMetrics.empty()
        with ThreadPoolExecutor(2) as pool:
            ahead = [pool.submit(read, i) for i in range(min(4, number))]
            measured = []
            for i in range(number):
                image, density, points = ahead.pop(0).result()
                if i + 4 < number:
                    ahead.append(pool.submit(read, i + 4))
                predicted, group = counter.density_and_group(image)
                measured.append(
                    pool.submit(
                        metrics.measure, str(i), predicted, points, density, group_pred=group
                    )
                )
            for one in measured:
                total = total.add(one.result())
        result = total.result()
        found.update({name: result[name] for name in ("mae", "rmse", "game_3", "num_images")})

    return Task(run, result=lambda: found)


class _Crops(Dataset):
    """Random crops of a folder's pictures as the recommended training wants them.

    Decoded pictures are kept.
    """

    def __init__(self, folder: str, number: int, height: int, width: int):
        self._folder, self._number = pathlib.Path(folder), number
        config = base_config.base()
        self._rule = CropRule("fixed", height, width, config.crop.range, zoom=config.augment.zoom)
        self._augmentation = Augmentation.of(config.augment)
        self._kept: dict[int, Any] = {}

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, i: int):
        rng = np.random.default_rng(i)
        at = int(rng.integers(self._number))
        if at not in self._kept:
            base = self._folder
            density, points = (np.load(base / f"{at}.{x}.npy") for x in ("density", "points"))
            image = _read(base / f"{at}.picture")[..., None]
            self._kept[at] = Picture(str(at), image, points, density)
        crop = augment(random_crop(self._kept[at], self._rule, rng), self._augmentation, rng)
        image = (crop.image.astype(np.float32) - np.float32(113)) / np.float32(64)
        group = min(len(crop.points) // 10, GROUPS - 1)
        return image.transpose(2, 0, 1), crop.density[None].astype(np.float32), group


def load_batches(
    folder: str, number: int, batch: int, height: int, width: int, workers: int
) -> Task:
    """A batch of the training's input from a DataLoader with so many processes."""
    loader = DataLoader(_Crops(folder, number, height, width), batch, num_workers=workers)
    stream = iter(loader)
    last: Any = None

    def run() -> None:
        nonlocal last
        last = next(stream)

    return Task(run, result=lambda: {"shape": list(last[0].shape)})


def convolution(
    precision: str,
    batch: int,
    height: int,
    width: int,
    kernel: int,
    channels: tuple[int, int],
    part: str,
    platform: str,
    channels_last: bool = False,
) -> Task:
    """A convolution of the cascade, or its gradients: see ours."""
    device = _device(platform, precision)
    made = inputs.convolution(batch, height, width, kernel, channels)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x, gradient = (
        torch.from_numpy(a).permute(0, 3, 1, 2).to(device).contiguous(memory_format=layout)
        for a in (made.x, made.gradient)
    )
    weights = torch.from_numpy(made.kernel).permute(3, 2, 0, 1).to(device)
    weights = weights.contiguous(memory_format=layout)
    padding = [kernel // 2] * 2
    output: tuple[Any, ...] = ()

    def run() -> None:
        nonlocal output
        with torch.inference_mode():
            if part == "forward":
                output = (torch.nn.functional.conv2d(x, weights, padding=padding),)
            else:
                wanted = [True, True, False]
                output = torch.ops.aten.convolution_backward(
                    gradient, x, weights, None, [1, 1], padding, [1, 1], False, [0, 0], 1, wanted
                )[:2]

    return Task(
        run, lambda: _wait(device), lambda: {"sum": sum(float(a.double().sum()) for a in output)}
    )


def matmul(precision: str, side: int, platform: str) -> Task:
    """A product of two square matrices: what the machine can do."""
    device = _device(platform, precision)
    x = torch.ones(side, side, dtype=_HALF.get(precision, torch.float32), device=device)
    with torch.inference_mode():
        out = x @ x

    def run() -> None:
        with torch.inference_mode():
            torch.mm(x, x, out=out)

    return Task(run, lambda: _wait(device))


TASKS = {
    task.__name__: task
    for task in (
        about, train_step, forward, predict, evaluate, load_batches, convolution, matmul,
    )
}
