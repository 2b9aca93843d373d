"""What is measured: sizes and numbers, for a run whose results count and for a trial."""

import dataclasses

GROUPS = 10


@dataclasses.dataclass(frozen=True)
class Settings:
    """Sizes are (height, width) in pixels.

    Attributes:
        repeats: rounds of a row, at most.
        seconds: no further round of a row begins after that long; three are always done.
        torch: whether PyTorch is measured, too.
        torch_compile: whether the variants with torch.compile are among it.
        precisions: of products; on a CPU 'tensorfloat32' means nothing and is left out.
        crop: of the training step.
        batches: of the training step, on a CPU and on a GPU.
        picture: of the prediction.
        large: of the picture that is too large to be counted in one piece.
        pictures: number of the evaluation.
        heights: least and most of the pictures drawn for it.
        widths: likewise.
        data: folder of pictures with head points in place of drawn ones; '' draws them.
        weights: of the first count, a work folder or a file; '' makes a file.
        product: side of the matrices whose product is what the machine can do, likewise.
        growth_pictures: numbers of pictures evaluated, at most `pictures`.
        growth_sides: of square pictures.
        growth_batches: of the training step.
        growth_devices: numbers of devices; on a CPU it is cut into as many.
    """

    repeats: int = 7
    seconds: float = 120.0
    torch: bool = True
    torch_compile: bool = True
    precisions: tuple[str, ...] = ("float32", "tensorfloat32", "bfloat16")
    crop: tuple[int, int] = (192, 256)
    batches: tuple[tuple[int, ...], tuple[int, ...]] = ((8, 1), (8, 64, 256))
    picture: tuple[int, int] = (768, 1024)
    large: tuple[int, int] = (6000, 8000)
    pictures: int = 100
    heights: tuple[int, int] = (384, 768)
    widths: tuple[int, int] = (512, 1024)
    data: str = ""
    weights: str = ""
    product: tuple[int, int] = (2048, 8192)
    growth_pictures: tuple[int, ...] = (10, 25, 50, 100)
    growth_sides: tuple[int, ...] = (128, 256, 512, 1024, 2048, 4096)
    growth_batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    growth_devices: tuple[int, ...] = (1, 2, 4)

    def precisions_on(self, platform: str) -> tuple[str, ...]:
        """Those that mean something on 'cpu' or 'gpu'."""
        return tuple(p for p in self.precisions if platform == "gpu" or p != "tensorfloat32")

    @property
    def fresh_repeats(self) -> int:
        """Rounds of rows of which each takes a process of its own."""
        return (self.repeats + 1) // 2

    def for_trial(self) -> "Settings":
        """Everything once and small: shows that the benchmark works, and nothing about speed."""
        return dataclasses.replace(
            self, repeats=1, crop=(32, 48), batches=((2, 1), (2,)), picture=(64, 96),
            large=(1800, 1600), product=(256, 256), pictures=4, heights=(64, 96), widths=(64, 128),
            growth_pictures=(2, 4), growth_sides=(32, 64), growth_batches=(1, 2),
            growth_devices=(1, 2),
        )  # fmt: skip
