"""Overlays: odd sizes, clear empty regions, exact reduction of maps."""

import numpy as np
import pytest
from PIL import Image

from cmtl_jax.prediction import overlay as ov


@pytest.mark.parametrize("shape", [(1, 1), (10, 8000), (8000, 10), (3, 500), (200, 300)])
@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_any_size_and_number_of_channels(shape, channels):
    picture = np.full(shape if channels is None else (*shape, channels), 90, np.uint8)
    density = np.random.default_rng(0).uniform(0, 0.01, shape)
    image = ov.overlay(picture, density, count=12.3, label="a name\nof two lines " * 9)
    assert image.mode == "RGB"
    assert image.width >= shape[1] and image.height > shape[0]
    assert image.width <= max(shape[1], 1000) and image.height <= max(shape[0], 600) + 600


def test_zero_density_leaves_a_grey_picture_untouched():
    picture = np.random.default_rng(1).integers(0, 256, (400, 600), dtype=np.uint8)
    image = np.asarray(ov.overlay(picture, np.zeros((400, 600)), count=0.0))
    np.testing.assert_array_equal(image[:400, :600], np.repeat(picture[:, :, None], 3, axis=2))


def test_heat_only_where_there_are_people():
    picture = np.full((400, 600, 3), 120, np.uint8)
    density = np.zeros((400, 600))
    density[100:140, 200:260] = 0.01
    image = np.asarray(ov.overlay(picture, density, count=24.0)).astype(int)[:400, :600]
    changed = np.abs(image - 120).max(axis=2) > 0
    np.testing.assert_array_equal(changed, density > 0)


def test_more_people_more_opaque():
    picture = np.zeros((320, 400), np.uint8)
    density = np.repeat(np.linspace(0, 0.02, 400)[None], 320, axis=0)
    row = np.asarray(ov.overlay(picture, density, count=None))[0].astype(int).sum(axis=1)
    assert row[0] == 0
    assert (np.diff(row[::40]) > 0).all()


def test_caption_depends_on_count_and_label():
    picture, density = np.zeros((400, 600), np.uint8), np.zeros((400, 600))
    images = [
        ov.overlay(picture, density, count=count, label=label).tobytes()
        for count, label in ((1.0, ""), (2.0, ""), (1.0, "a"), (None, ""), (float("nan"), ""))
    ]
    assert len(set(images)) == 5


def test_text_grows_with_the_picture():
    heights = []
    for side in (900, 3600):
        image = ov.overlay(
            np.zeros((side, side), np.uint8), np.zeros((side, side)), count=5.0, label="x"
        )
        heights.append(image.height - side)
    assert heights[1] > 3 * heights[0]


def test_max_side_limits_the_picture():
    picture, density = np.zeros((1000, 2000), np.uint8), np.zeros((1000, 2000))
    image = ov.overlay(picture, density, count=1.0, max_side=500)
    assert image.width == 500 and 250 < image.height < 500


def test_bad_numbers_in_the_map_do_not_stop_the_picture():
    density = np.full((50, 60), 0.01)
    density[0, 0], density[1, 1], density[2, 2] = np.nan, np.inf, -1
    ov.overlay(np.zeros((50, 60), np.uint8), density, count=float("inf"))


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="density map is 5x6"):
        ov.overlay(np.zeros((6, 5), np.uint8), np.zeros((5, 6)), count=1.0)
    with pytest.raises(ValueError, match="uint8"):
        ov.overlay(np.zeros((5, 6)), np.zeros((5, 6)), count=1.0)
    with pytest.raises(ValueError, match="channels"):
        ov.overlay(np.zeros((5, 6, 7), np.uint8), np.zeros((5, 6)), count=1.0)


def test_density_picture_shares_a_scale():
    density = np.zeros((20, 30))
    density[5, 5] = 0.01
    full = np.asarray(ov.density_picture(density, 0.01 * 1024).convert("RGB"))
    half = np.asarray(ov.density_picture(density, 0.02 * 1024).convert("RGB"))
    assert full.shape == (20, 30, 3)
    assert isinstance(ov.density_picture(density), Image.Image)
    assert full[5, 5].astype(int).sum() > half[5, 5].astype(int).sum() > full[0, 0].sum()
    assert np.unique(np.asarray(ov.density_picture(np.zeros((4, 4))))).tolist() == [0]


@pytest.mark.parametrize("shape", [(12, 10), (7, 5), (1, 1), (24, 9)])
def test_mean_density_keeps_the_count(shape):
    density = np.random.default_rng(2).uniform(0, 1, (24, 30)).astype(np.float32)
    small = ov.mean_density(density, shape)
    assert small.shape == shape
    assert small.mean(dtype=np.float64) == pytest.approx(density.mean(dtype=np.float64), rel=1e-6)


def test_mean_density_over_whole_blocks_is_the_block_mean():
    density = np.random.default_rng(3).uniform(0, 1, (24, 30)).astype(np.float32)
    expected = density.reshape(12, 2, 10, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(ov.mean_density(density, (12, 10)), expected, rtol=1e-5)


def test_mean_density_splits_pixels_by_area():
    row = np.array([[3.0, 6.0, 9.0]])
    np.testing.assert_allclose(ov.mean_density(row, (1, 2)), [[4.0, 8.0]])


def test_scale_top():
    assert ov.scale_top(np.zeros((3, 3))) == 1.0
    assert ov.scale_top(np.zeros((0,))) == 1.0
    for value in (1e-6, 0.3, 7.2, 10.0, 999.0):
        top = ov.scale_top(np.full((3, 3), value))
        assert value * (1 - 1e-5) <= top <= 1.6 * value
    # One peak among many does not set the scale.
    many = np.ones(10_000)
    many[0] = 1e4 / 101
    assert ov.scale_top(many) < 2


def test_zones_are_outlined_and_named():
    picture, density = np.full((400, 600), 120, np.uint8), np.zeros((400, 600))
    square = np.array([[100, 50], [300, 50], [300, 350], [100, 350]], float)
    plain = np.asarray(ov.overlay(picture, density, count=1.0))
    drawn = np.asarray(ov.overlay(picture, density, count=1.0, zones={"": square}))
    rows, columns = np.nonzero((drawn != plain).any(axis=2))
    assert (rows.min(), rows.max()) == pytest.approx((50, 350), abs=4)
    assert (columns.min(), columns.max()) == pytest.approx((100, 300), abs=4)
    inside = (abs(rows - 200) < 140) & (abs(columns - 200) < 90)
    assert not inside.any()  # an outline alone
    named = np.asarray(ov.overlay(picture, density, count=1.0, zones={"north: 3.5": square}))
    rows, columns = np.nonzero((named != drawn).any(axis=2))
    assert (rows.mean(), columns.mean()) == pytest.approx((200, 200), abs=10)


def test_zones_follow_a_picture_that_is_resized():
    square = np.array([[0, 0], [1000, 0], [1000, 1000], [0, 1000]], float)
    large = ov.overlay(
        np.full((1000, 2000), 120, np.uint8), np.zeros((1000, 2000)), count=None, max_side=500,
        zones={"": square},
    )  # fmt: skip
    edge = np.asarray(large)[125, 240:260].astype(int).sum(axis=1)
    assert edge.max() - edge.min() > 300  # the border is at a quarter of 1000
    small = ov.overlay(
        np.full((10, 20), 120, np.uint8), np.zeros((10, 20)), count=None, zones={"": square / 100}
    )
    edge = np.asarray(small)[80, 150:170].astype(int).sum(axis=1)
    assert edge.max() - edge.min() > 300  # 16 times as large


@pytest.mark.parametrize("name", ["", "x" * 500, "北 \u202e\x1b[2J", "a\nb"])
@pytest.mark.parametrize("shape", [(1, 1), (10, 3000), (300, 400)])
def test_zones_of_any_name_in_pictures_of_any_size(name, shape):
    height, width = shape
    corners = np.array([[0, 0], [width, 0], [width, height]], float)
    image = ov.overlay(np.zeros(shape, np.uint8), np.zeros(shape), count=1.0, zones={name: corners})
    assert image.width >= width


def test_frames_share_a_scale():
    picture, density = np.zeros((400, 600), np.uint8), np.full((400, 600), 0.01)
    top = 0.01 * ov.PATCH_SIDE**2
    same = ov.overlay(picture, density, count=1.0, top=top)
    weaker = ov.overlay(picture, density, count=1.0, top=4 * top)
    assert np.asarray(same)[0, 0].astype(int).sum() > np.asarray(weaker)[0, 0].astype(int).sum()
    by_itself = ov.overlay(picture, density, count=1.0)
    assert by_itself.size == weaker.size
