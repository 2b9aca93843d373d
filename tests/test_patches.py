"""Stored patches: sizes as the authors', fixed positions, copies, counts."""

import pickle

import numpy as np
import PIL.Image
import pytest

from cmtl_jax.datasets.density_map import density_map
from cmtl_jax.datasets.prepare import IndexEntry
from cmtl_jax.input_pipeline import count_groups
from cmtl_jax.input_pipeline.crops import CropRule
from cmtl_jax.input_pipeline.patches import Patches
from cmtl_jax.input_pipeline.picture import Picture

RELEASED = CropRule("released", range="released")
SIZES = [(130, 200), (64, 64), (200, 140), (70, 129)]


class Drawn:
    """Pictures whose pixels tell where they are, with random heads."""

    channels = 1

    def __init__(self, sizes=tuple(SIZES), ids=None):
        self.index = [
            IndexEntry(id_, height, width, 40)
            for id_, (height, width) in zip(ids or "abcdefgh", sizes, strict=False)
        ]

    def points(self, position):
        entry = self.index[position]
        rng = np.random.default_rng(list(entry.id.encode()))
        return (rng.random((40, 2)) * (entry.width, entry.height) * 0.999).astype(np.float32)

    def __len__(self):
        return len(self.index)

    def __getitem__(self, position):
        entry = self.index[position]
        rows, columns = np.mgrid[: entry.height, : entry.width]
        image = ((rows * 7 + columns * 31) % 251).astype(np.uint8)[..., None]
        points = self.points(position)
        return Picture(entry.id, image, points, density_map(points, entry.height, entry.width))


def same(a: Picture, b: Picture) -> bool:
    return a.id == b.id and all(map(np.array_equal, a[1:], b[1:]))


def test_the_authors_shapes_of_part_a(shared):
    truth = np.load(shared / "fixtures/authors_labels_part_A.npz")
    names = [name.split("_") for name in truth["names"].tolist()]
    numbers = sorted({int(number) for number, _ in names})
    folder = shared / "data/ShanghaiTech/part_A_final/train_data/images"
    sizes = []
    for number in numbers:
        with PIL.Image.open(folder / f"IMG_{number}.jpg") as image:  # reads the header alone
            sizes.append(image.size[::-1])
    patches = Patches(Drawn(sizes, [f"IMG_{number}" for number in numbers]), RELEASED, 9, seed=0)
    assert len(patches) == len(names) == 2439
    ours = [
        patches.sizes[numbers.index(int(number)) * 9 + int(k) - 1] for number, k in names
    ]  # fmt: skip
    assert np.array_equal(ours, truth["shapes"])


def test_patches_are_parts_of_their_picture():
    pictures = Drawn()
    patches = Patches(pictures, RELEASED, 9, seed=0)
    assert len(patches) == len(patches.sizes) == len(patches.index) == 36
    seen = set()
    for i, patch in enumerate(patches):
        picture = pictures[i // 9]
        h, w = RELEASED.size(*SIZES[i // 9])
        assert patch.id == f"{'abcd'[i // 9]}_{i % 9 + 1}"
        assert patch.image.shape == (h, w, 1)
        windows = np.lib.stride_tricks.sliding_window_view(picture.image[..., 0], (h, w))
        found = (windows == patch.image[..., 0]).all(axis=(2, 3))
        assert found.any()
        densities = np.lib.stride_tricks.sliding_window_view(picture.density, (h, w))[found]
        assert any(np.array_equal(patch.density, density) for density in densities)
        assert patches.sizes[i] == (h, w)
        assert patches.index[i] == IndexEntry(patch.id, h, w, len(patch.points))
        seen.add(patch.image.tobytes())
    assert len(seen) > 30  # nine new ones of each, as good as always
    assert sum(entry.count for entry in patches.index) > 9
    with pytest.raises(IndexError):
        patches[36]


def test_positions_depend_on_seed_and_picture_alone():
    patches = Patches(Drawn(), RELEASED, 9, seed=3)
    again = pickle.loads(pickle.dumps(Patches(Drawn(), RELEASED, 9, seed=3)))
    assert all(map(same, patches, again))
    alone = Patches(Drawn(SIZES[2:3], "c"), RELEASED, 9, seed=3)
    assert all(same(alone[k], patches[18 + k]) for k in range(9))
    other = Patches(Drawn(), RELEASED, 9, seed=4)
    assert sum(map(same, patches, other)) < 5
    namesake = Patches(Drawn(SIZES[2:3], "d"), RELEASED, 9, seed=3)
    assert not all(np.array_equal(namesake[k].image, alone[k].image) for k in range(9))


def test_two_thirds_are_flipped_and_noisy_copies():
    pictures = Drawn()
    crops = Patches(pictures, CropRule("quarter"), 4, seed=0)
    patches = Patches(pictures, CropRule("quarter"), 12, seed=0, noise_level=10.0)
    again = Patches(pictures, CropRule("quarter"), 12, seed=0, noise_level=10.0)
    assert len(patches) == 48
    noise = []
    for i, crop in enumerate(crops):
        plain, flipped, noisy = (patches[i // 4 * 12 + j * 4 + i % 4] for j in range(3))
        assert all(map(np.array_equal, plain[1:], crop[1:]))
        assert np.array_equal(flipped.image, crop.image[:, ::-1])
        assert np.array_equal(flipped.density, crop.density[:, ::-1])
        assert np.array_equal(
            np.floor(flipped.points[:, 0]), crop.image.shape[1] - 1 - np.floor(crop.points[:, 0])
        )
        assert np.array_equal(noisy.density, crop.density)
        assert np.array_equal(noisy.points, crop.points)
        assert noisy.image.dtype == np.uint8
        difference = noisy.image.astype(int) - crop.image
        noise.append(difference[(crop.image >= 10) & (crop.image <= 245)])
    assert all(map(same, patches, again))  # the noise is fixed, too
    assert len({n.tobytes() for n in noise}) == len(noise)
    noise = np.concatenate(noise)
    assert set(np.unique(noise)) == set(range(-10, 11))
    assert noise.std() == pytest.approx(10 / np.sqrt(3), rel=0.03)
    with pytest.raises(ValueError, match="10 patches"):
        Patches(pictures, CropRule("quarter"), 10, seed=0, noise_level=10.0)


@pytest.mark.parametrize("noise_level", [None, 10.0])
def test_counts_are_those_of_the_very_patches(noise_level):
    patches = Patches(Drawn(), CropRule("quarter"), 6, seed=0, noise_level=noise_level)
    points = count_groups.stored_counts(patches, "points")
    assert points.tolist() == [len(patch.points) for patch in patches]
    density = count_groups.stored_counts(patches, "density")
    np.testing.assert_allclose(density, [patch.density.sum() for patch in patches], rtol=1e-5)
    assert np.abs(density - points).max() > 0.2  # heads at the edge of a crop count in part


def test_a_lone_head_counts_one():
    """The authors' script writes 255 into the map of a picture with one head."""

    class Lone(Drawn):
        def points(self, position):
            return np.array([[60, 70]], np.float32)

    patches = Patches(Lone([(130, 200)], "a"), CropRule("fixed", 999, 999), 2, seed=0)
    assert count_groups.stored_counts(patches, "density") == pytest.approx([1, 1], abs=1e-6)
