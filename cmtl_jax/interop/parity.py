"""Whether an exported file counts as the weights do that it was made of."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from PIL import Image

from cmtl_jax import pictures as picture_files
from cmtl_jax import trained_model, version, work_folder
from cmtl_jax.datasets import scenes
from cmtl_jax.errors import UserError
from cmtl_jax.input_pipeline import resize
from cmtl_jax.input_pipeline.seen import Seen
from cmtl_jax.prediction.counter import Counter

Program = Callable[[np.ndarray], tuple[np.ndarray, float]]  # uint8 [H, W, C] -> density, count

# Sums of float32 in another order differ by some 1e-6 of the largest density.
TOLERANCES = {"float32": 1e-4, "bfloat16": 5e-2}
HALVED = 1e-3  # of a count, for weights kept in float16

# Sides that nothing divides: what a file does at the borders shows.
_DRAWN = ((237, 318), (150, 101))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One picture, counted by the weights and by the file.

    Attributes:
        picture: name of its file, or what was drawn.
        height: pixels.
        width: pixels.
        count_weights: people.
        count_file: people; what the file itself says.
        map_difference: largest difference of the density maps, people per pixel.
        map_relative: that, divided by the largest density of the weights.
        count_relative: difference of the counts, divided by that of the weights, or by 1 person.
    """

    picture: str
    height: int
    width: int
    count_weights: float
    count_file: float
    map_difference: float
    map_relative: float
    count_relative: float


def check(
    path: pathlib.Path,
    program: Program,
    counter: Counter,
    pictures: list[pathlib.Path],
    *,
    halved: bool = False,
) -> pathlib.Path:
    """Compares a file with its weights, and writes <file>.parity.json and .txt beside it.

    Args:
        path: the exported file.
        program: runs it.
        counter: counts with the weights.
        pictures: files to compare on, beside two drawn crowds.
        halved: the file holds the weights in float16: counts may differ by HALVED, maps are shown.

    Returns:
        The text.

    Raises:
        UserError: a picture cannot be read, or the file and the weights do not agree.
    """
    config = counter.trained.config
    each = [
        compare(name, picture, program, counter)
        for name, picture in _pictures(pictures, config.input.channels)
    ]
    tolerance = max(TOLERANCES[config.model.dtype], HALVED if halved else 0.0)
    worst = max(
        one.count_relative if halved else max(one.map_relative, one.count_relative) for one in each
    )
    result = {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "bytes": path.stat().st_size,
        "weights": trained_model.short_name(counter.trained.source),
        "step": counter.trained.step,
        "agrees": worst <= tolerance,
        "tolerance": tolerance,
        "map_difference": max(one.map_difference for one in each),
        "map_relative": max(one.map_relative for one in each),
        "count_relative": max(one.count_relative for one in each),
        "by": version.describe(),
        "pictures": [dataclasses.asdict(one) for one in each],
    }
    written = [path.with_name(f"{path.name}.parity.{kind}") for kind in ("json", "txt")]
    work_folder.write(written[0], json.dumps(result, indent=2).encode())
    work_folder.write(written[1], text(result).encode())
    if not result["agrees"]:
        raise UserError(
            f"{path} does not count as {counter.trained.source} does (they differ by "
            f"{worst:.1e}, more than {tolerance:g}; see {written[1]}); do not use it, and report it"
        )
    return written[1]


def compare(name: str, picture: np.ndarray, program: Program, counter: Counter) -> Comparison:
    """Counts a picture uint8 [H, W, C] both ways; the file sees it as the weights want it."""
    expected = counter(picture)
    found, count = program(Seen.of(counter.trained.config.input).image(picture))
    found = resize.density(found, picture.shape[:2])
    difference = float(np.abs(found - expected.density).max())
    largest = float(expected.density.max())
    return Comparison(
        picture=name,
        height=picture.shape[0],
        width=picture.shape[1],
        count_weights=expected.count,
        count_file=count,
        map_difference=difference,
        # Below this a density is that of less than a person in a million pixels.
        map_relative=difference / max(largest, 1e-6),
        count_relative=abs(count - expected.count) / max(expected.count, 1.0),
    )


def text(result: dict) -> str:
    """A table of the pictures, for people."""
    lines = [
        f"{result['file']} ({result['bytes']} bytes) against the weights {result['weights']}",
        "agrees" if result["agrees"] else "DOES NOT AGREE",
        f"largest differences: {result['map_difference']:.1e} people per pixel, "
        f"{result['map_relative']:.1e} of a map's largest density, "
        f"{result['count_relative']:.1e} of a count (allowed: {result['tolerance']:g})",
        "",
        f"{'count, weights':>14} {'count, file':>12} {'map, abs.':>10} {'map, rel.':>10}  picture",
    ]
    lines += [
        f"{one['count_weights']:14.4f} {one['count_file']:12.4f} {one['map_difference']:10.1e} "
        f"{one['map_relative']:10.1e}  {one['picture']} ({one['width']}x{one['height']})"
        for one in result["pictures"]
    ]
    return "\n".join(lines) + "\n"


def _pictures(
    files: Iterable[pathlib.Path], channels: int
) -> Iterator[tuple[str, np.ndarray]]:
    for seed, (height, width) in enumerate(_DRAWN):
        drawn = Image.fromarray(scenes.render_scene(seed, height, width).picture)
        yield f"drawn crowd {seed}", picture_files.from_pil(drawn, "drawn crowd", channels)
    for path in files:
        yield path.name, picture_files.read(path, channels)
