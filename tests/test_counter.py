"""Counting pictures of any kind and size."""

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest
import small_run
from PIL import Image
from work_folders import STEP, untrained

import cmtl_jax
from cmtl_jax import head_spacing, trained_model
from cmtl_jax.errors import UserError
from cmtl_jax.evaluation import run as evaluation
from cmtl_jax.evaluation.report import read_per_image_csv
from cmtl_jax.input_pipeline import data as data_lib
from cmtl_jax.input_pipeline.batch import normalise
from cmtl_jax.input_pipeline.pictures import Pictures
from cmtl_jax.parallel import Parallel
from cmtl_jax.prediction import close_crowds, overlay
from cmtl_jax.prediction import counter as counter_lib
from cmtl_jax.prediction.tiles import HALO, best_shape, tiles


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def counter(workdir):
    return cmtl_jax.load(workdir)


def grey(height, width, seed=0):
    """Smooth, so that density differs from place to place."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 16 + 2, width // 16 + 2), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def same(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a.density, b.density, rtol=0, atol=tolerance * b.density.max())
    assert a.count == pytest.approx(b.count, rel=tolerance)


def test_is_the_network_on_the_normalised_picture(counter):
    """Against the model itself, called by hand on the picture without any padding."""
    picture = grey(64, 48)
    result = counter(picture)
    image = normalise(picture, 113.0, 64.0)[None, :, :, None]
    trained = counter.trained
    density = jax.jit(lambda x, size: trained.model.apply({"params": trained.params}, x, size))
    expected = density(image, np.array([[64, 48]])).density[0, :, :, 0]
    assert counter.trained.step == STEP
    assert np.asarray(expected).max() > 0
    np.testing.assert_allclose(
        result.density, expected, rtol=0, atol=1e-5 * float(expected.max())
    )


@pytest.mark.parametrize("height, width", [(64, 48), (37, 61), (1, 1), (1, 130), (5, 3)])
def test_density_has_the_size_of_the_picture_and_sums_to_the_count(counter, height, width):
    picture = grey(height, width)
    result = counter(picture)
    assert result.density.shape == (height, width)
    assert result.density.dtype == np.float32
    assert np.isfinite(result.density).all() and (result.density >= 0).all()
    assert result.count == pytest.approx(result.density.sum(dtype=np.float64), rel=1e-12)
    np.testing.assert_array_equal(result.picture, picture)
    assert result.overlay().width >= width


def test_an_overlay_names_the_weights_without_their_place(counter, monkeypatch):
    labels = []
    monkeypatch.setattr(overlay, "overlay", lambda *_, label, **__: labels.append(label))
    result = counter(grey(8, 8))
    for weights in ("runs/a", "runs/a,runs/b"):
        dataclasses.replace(result, weights=weights).overlay()
    assert labels == ["a", "a+b"]


def test_path_image_and_arrays_are_the_same_picture(counter, tmp_path):
    picture = grey(40, 56)
    Image.fromarray(picture).save(tmp_path / "a.png")
    expected = counter(tmp_path / "a.png")
    for form in (
        str(tmp_path / "a.png"),
        Image.open(tmp_path / "a.png"),
        picture,
        picture[:, :, None],
        np.repeat(picture[:, :, None], 3, axis=2),
        np.asfortranarray(picture),
        Image.fromarray(picture).convert("RGBA"),
    ):
        np.testing.assert_array_equal(counter(form).density, expected.density)


def test_batch_is_one_at_a_time(counter, tmp_path):
    sizes = [(40, 56), (56, 40), (37, 61), (64, 64), (1, 1), (40, 56), (3, 200), (90, 20), (33, 9)]
    pictures = [grey(*size, seed=i) for i, size in enumerate(sizes)]
    Image.fromarray(pictures[1]).save(tmp_path / "a.png")
    given = [pictures[0], tmp_path / "a.png", Image.fromarray(pictures[2]), *pictures[3:]]
    results = counter.batch(iter(given), batch_size=2)
    assert [result.density.shape for result in results] == sizes
    for picture, result in zip(pictures, results, strict=True):
        same(result, counter(picture))
        assert result.density.base is None  # holds no batch in memory
    assert counter.batch([]) == []
    with pytest.raises(ValueError, match="at least 1"):
        counter.batch(pictures, batch_size=0)


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """Counts at half the sides, and where people stand close once more at 0.75 of them."""
    seen = {"scale": 0.5, "close": 5.0, "close_scale": 0.75, "contrast": 60.0}
    return cmtl_jax.load(untrained(tmp_path_factory.mktemp("twice"), seen=seen))


def apart(monkeypatch, pixels):
    """Every map says that people stand so many pixels apart."""
    monkeypatch.setattr(head_spacing, "head_spacing", lambda density: pixels)


def looking(counter, **changes):
    """A counter with the same weights that looks otherwise (config.input)."""
    config = counter.trained.config.copy_and_resolve_references()
    config.input.update(changes)
    trained = dataclasses.replace(counter.trained, config=config)
    return counter_lib.Counter(trained, Parallel("jit", jax.devices()[:1]))


def test_looks_at_other_sides_are_averaged(twice, tmp_path):
    picture = grey(61, 83)
    alone = [looking(twice, scale=scale, close=0.0)(picture) for scale in (0.5, 0.35, 0.75)]
    assert np.ptp([one.count for one in alone]) > 0.05 * alone[0].count
    changes = {"close": 0.0, "looks": (0.35, 0.75)}
    found = looking(twice, **changes)(picture)
    assert found.count == pytest.approx(np.mean([one.count for one in alone]), rel=1e-6)
    assert found.density.shape == (61, 83)
    # Weights keep them, and an evaluation looks as often.
    source = untrained(tmp_path / "weights", seen={"scale": 0.5, "contrast": 60.0} | changes)
    config = small_run.config(tmp_path, init_from=str(source), eval__triptychs=0)
    result = evaluation.evaluate_checkpoint(config, tmp_path / "evaluated")
    assert "every one once more at sides times 0.35 and 0.75" in result["protocol"]["pictures"]
    table = tmp_path / "evaluated" / "eval" / "synthetic-test" / "per_image.csv"
    counter, pictures = cmtl_jax.load(source), data_lib.load(config).pictures("test")
    for i, image in enumerate(read_per_image_csv(table)):
        assert image.count_pred == pytest.approx(counter(pictures[i].image).count, rel=1e-5)


def test_where_people_stand_close_a_second_look_is_averaged(twice, monkeypatch):
    picture = grey(61, 83)
    looks = [looking(twice, scale=scale, close=0.0)(picture) for scale in (0.5, 0.75)]
    assert abs(looks[0].count / looks[1].count - 1) > 0.05
    apart(monkeypatch, 4.9)
    found = twice(picture)
    assert found.count == pytest.approx((looks[0].count + looks[1].count) / 2, rel=1e-6)
    assert found.density.shape == (61, 83)
    same(twice.batch([picture, picture])[1], found)
    for pixels in (5.0, None):  # not closer, and too few people to say
        apart(monkeypatch, pixels)
        same(twice(picture), looks[0])


def test_evaluation_looks_twice_as_counting_does(twice, tmp_path, monkeypatch):
    config = small_run.config(tmp_path, init_from=twice.trained.source, eval__triptychs=3)
    data = data_lib.load(config)
    pictures = data.pictures("test")
    counts = {}
    for pixels in (4.0, 6.0):
        apart(monkeypatch, pixels)
        result = evaluation.evaluate_checkpoint(config, tmp_path / str(pixels))
        table = tmp_path / str(pixels) / "eval" / "synthetic-test" / "per_image.csv"
        counts[pixels] = {image.id: image.count_pred for image in read_per_image_csv(table)}
        for i in range(len(pictures)):
            expected = twice(pictures[i].image).count
            assert counts[pixels][pictures[i].id] == pytest.approx(expected, rel=1e-5)
        assert "once more at sides times 0.75" in result["protocol"]["pictures"]
    assert counts[4.0] != counts[6.0]


@pytest.fixture(scope="module")
def close(tmp_path_factory):
    """Other weights, which see pictures at 0.75 of their sides."""
    seen = {"scale": 0.75}
    return cmtl_jax.load(untrained(tmp_path_factory.mktemp("close"), seen=seen, up_maps=(8, 4)))


def shares(monkeypatch, asked, share):
    monkeypatch.setattr(close_crowds, "asked", lambda streets: asked)
    monkeypatch.setattr(close_crowds, "share", lambda streets, close: share)


def test_weights_for_close_crowds_take_over_by_their_share(counter, close, monkeypatch):
    parallel = Parallel("jit", jax.devices()[:1])
    both = counter_lib.Counter(counter.trained, parallel, close)
    picture = grey(61, 83)
    streets, crowd = counter(picture), close(picture)
    assert abs(streets.count / crowd.count - 1) > 0.05
    for share in (0.0, 0.25, 1.0):
        shares(monkeypatch, 1.0, share)
        found = both(picture)
        expected = (1 - share) * streets.count + share * crowd.count
        assert found.count == pytest.approx(expected, rel=1e-5)
        assert found.density.shape == (61, 83)
        same(both.batch([picture, picture])[1], found)
    shares(monkeypatch, 0.0, 1.0)
    same(both(picture), streets)


def test_distances_are_those_in_the_picture_itself(twice, close, monkeypatch):
    """Whatever sides either of the weights wants to see."""
    asked = []
    monkeypatch.setattr(close_crowds, "asked", lambda streets: asked.append(streets) or 1.0)
    monkeypatch.setattr(close_crowds, "share", lambda *both: asked.append(both) or 0.0)
    apart(monkeypatch, 6.0)
    counter_lib.Counter(twice.trained, Parallel("jit", jax.devices()[:1]), close)(grey(80, 120))
    assert asked == [pytest.approx(12.0), (pytest.approx(12.0), pytest.approx(8.0))]


def test_evaluation_counts_with_both_weights_as_counting_does(
    counter, close, tmp_path, monkeypatch
):
    shares(monkeypatch, 1.0, 0.5)
    folders = {"init_from": counter.trained.source, "eval__close_weights": close.trained.source}
    config = small_run.config(tmp_path, **folders)
    pictures = data_lib.load(config).pictures("test")
    result = evaluation.evaluate_checkpoint(config, tmp_path / "run")
    table = tmp_path / "run" / "eval" / "synthetic-test-with-close0" / "per_image.csv"
    counts = {image.id: image.count_pred for image in read_per_image_csv(table)}
    for i in range(len(pictures)):
        image = pictures[i].image
        expected = (counter(image).count + close(image).count) / 2
        assert counts[pictures[i].id] == pytest.approx(expected, rel=1e-5)
    assert result["protocol"]["weights where people stand close"] == close.trained.source


def test_pictures_are_decoded_again_only_where_the_other_weights_are_asked(
    counter, close, tmp_path, monkeypatch
):
    decoded = []
    pixels = Pictures.pixels
    monkeypatch.setattr(Pictures, "pixels", lambda *args: decoded.append(args) or pixels(*args))
    folders = {"init_from": counter.trained.source, "eval__close_weights": close.trained.source}
    config = small_run.config(tmp_path, **folders)
    for asked, times in ((0.0, 0), (1.0, 3)):
        shares(monkeypatch, asked, 0.5)
        evaluation.evaluate_checkpoint(config, tmp_path / "run")
        assert len(decoded) == times


def test_weights_for_streets_may_see_grey_levels_and_the_others_colours(
    counter, tmp_path, monkeypatch
):
    shares(monkeypatch, 1.0, 0.5)
    coloured = cmtl_jax.load(untrained(tmp_path / "colours", seen={"channels": 3}))
    both = counter_lib.Counter(counter.trained, Parallel("jit", jax.devices()[:1]), coloured)
    picture = np.stack([grey(61, 83, seed) for seed in range(3)], axis=2)
    expected = (counter(picture).count + coloured(picture).count) / 2
    found = both(picture)
    assert found.count == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(found.picture, picture)
    as_grey = grey(61, 83)
    expected = (counter(as_grey).count + coloured(np.stack([as_grey] * 3, axis=2)).count) / 2
    assert both(as_grey).count == pytest.approx(expected, rel=1e-5)


def test_weights_that_want_resized_pictures_are_refused(counter, tmp_path):
    resized = untrained(tmp_path / "resized", seen={"resize": "multiple_of_4"})
    config = small_run.config(
        tmp_path, init_from=counter.trained.source, eval__close_weights=str(resized)
    )
    with pytest.raises(UserError, match="eval.close_weights: .* wants pictures resized"):
        evaluation.evaluate_checkpoint(config, tmp_path / "run")


def test_two_sets_of_weights_are_none_to_train_from_or_export():
    with pytest.raises(UserError, match="two sets of weights, shb and sha; name one"):
        trained_model.restore("auto", Parallel("jit", jax.devices()[:1]))


def test_a_work_folder_may_be_called_auto(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "auto").mkdir()  # of pictures of cars, say
    assert cmtl_jax.load().trained.source == "auto"
    untrained(tmp_path / "auto")
    assert cmtl_jax.load("auto").trained.about["data"] == "synthetic"


@pytest.fixture
def cut_small(monkeypatch):
    """Pictures of more than 10,000 pixels are counted in tiles of at most 40,000."""
    monkeypatch.setattr(counter_lib, "TILE_PIXELS", 40_000)
    monkeypatch.setattr(counter_lib, "WHOLE_PIXELS", 10_000)


@pytest.mark.parametrize("height, width", [(300, 400), (141, 467), (30, 1001)])
def test_tiles_are_the_whole_picture(counter, monkeypatch, request, height, width):
    picture = grey(height, width)
    whole = counter(picture)
    request.getfixturevalue("cut_small")
    shapes = []
    run = counter._run
    monkeypatch.setattr(
        counter, "_run", lambda images, shape, *rest: shapes.append(shape) or run(images, shape)
    )
    cut = counter(picture)
    assert len(shapes) > 1 and len(set(shapes)) == 1  # one program
    assert np.prod(shapes[0]) <= 40_000 and min(shapes[0]) >= min(2 * HALO, height)
    same(cut, whole)
    same(counter.batch([picture])[0], whole)


def test_a_thin_picture_is_not_padded_to_one_that_is_too_large(counter, monkeypatch):
    """1x1100 pixels are few, but 64x1152 when padded."""
    picture = grey(1, 1100)
    whole = counter(picture)
    monkeypatch.setattr(counter_lib, "TILE_PIXELS", 64 * 576)
    monkeypatch.setattr(counter_lib, "WHOLE_PIXELS", 64 * 1024)
    shapes = []
    run = counter._run
    monkeypatch.setattr(
        counter, "_run", lambda images, shape, *rest: shapes.append(shape) or run(images, shape)
    )
    same(counter(picture), whole)
    assert len(shapes) > 1 and np.prod(shapes[0]) <= 64 * 576


def test_batches_stay_within_the_memory_of_one_large_picture(counter, monkeypatch):
    monkeypatch.setattr(counter_lib, "WHOLE_PIXELS", 64 * 64 * 3)
    used = []
    run = counter._run

    def spy(images, shape, batch_size=1):
        used.append(shape[0] * shape[1] * batch_size)
        return run(images, shape, batch_size)

    monkeypatch.setattr(counter, "_run", spy)
    pictures = [grey(64, 64, i) for i in range(5)] + [grey(8, 190), grey(190, 8)]
    results = counter.batch(pictures)
    assert max(used) <= 64 * 64 * 3
    for picture, result in zip(pictures, results, strict=True):
        assert result.density.shape == picture.shape


def test_what_is_no_picture_is_refused(counter, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"a\.jpg"):
        counter(tmp_path / "a.jpg")
    with pytest.raises(UserError, match="missing"):
        counter(tmp_path / "missing.jpg")
    for wrong in (3, None, np.zeros((4, 4)), np.zeros((4, 4), np.int64)):
        with pytest.raises(TypeError, match="uint8"):
            counter(wrong)
    for shape in ((4,), (0, 4), (4, 4, 2), (1, 4, 4, 3), (4, 4, 4)):
        with pytest.raises(ValueError, match=r"\[H, W"):
            counter(np.zeros(shape, np.uint8))
    for size in ((0, 4), (4, 0)):
        with pytest.raises(ValueError, match=r"\[H, W"):
            counter(Image.new("RGB", size))


def test_colour_weights_see_colours(tmp_path):
    from cmtl_jax import config as base_config

    def colour(original=base_config.base):
        config = original()
        config.input.channels = 3
        return config

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_config, "base", colour)
        untrained(tmp_path / "w", name="single_stage")
    counter = cmtl_jax.load(str(tmp_path / "w"), STEP)
    picture = np.stack([grey(20, 30, i) for i in range(3)], axis=2)
    result = counter(picture)
    assert result.density.shape == (20, 30) and result.picture.shape == (20, 30, 3)
    assert result.count != pytest.approx(counter(picture[:, :, ::-1]).count, rel=1e-6)


def test_where_the_groups_act_on_the_density_tiles_are_exact_too(film_counter, request):
    """The weights make the density depend on the groups, and these on the whole picture."""
    height, width = 258, 399
    picture = grey(height, width)
    whole = film_counter(picture)
    request.getfixturevalue("cut_small")
    same(film_counter(picture), whole)
    cut = film_counter(picture)
    alone = np.zeros_like(whole.density)
    shape = best_shape(height, width, 40_000, 64)
    for tile in tiles(height, width, shape):
        part = picture[tile.read][..., None]
        alone[tile.core] = film_counter._run([part], shape)[0][tile.inner]
    apart = np.abs(alone - cut.density).max() / whole.density.max()
    assert apart > 1e-3, "the groups of a tile alone would have done"


@pytest.fixture(scope="module")
def film_counter(tmp_path_factory):
    counter = cmtl_jax.load(untrained(tmp_path_factory.mktemp("film"), prior_fusion="film"))
    params = jax.tree.map(np.array, counter.trained.params)
    rng = np.random.default_rng(4)
    kernel = params["modulation"]["dense"]["kernel"]
    params["modulation"]["dense"]["kernel"] = rng.normal(0, 1, kernel.shape).astype(np.float32)
    trained = dataclasses.replace(counter.trained, params=counter._parallel.replicate(params))
    return counter_lib.Counter(trained, counter._parallel)


@pytest.mark.slow
def test_48_million_pixels_are_counted_in_less_than_2_gib(workdir, tmp_path):
    """The peak of a process of its own that decodes and counts a JPEG file of 8000x6000."""
    path = tmp_path / "large.jpg"
    Image.fromarray(grey(6000, 8000)).save(path, quality=90)
    program = (
        "import resource, sys, cmtl_jax\n"
        f"count = cmtl_jax.load({str(workdir)!r})({str(path)!r})\n"
        "assert count.density.shape == (6000, 8000)\n"
        "np = sys.modules['numpy']\n"
        f"np.save({str(tmp_path / 'corner.npy')!r}, count.density[2000:2800, 3000:4000])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 2 * 2**30
    # A part whose every pixel knows its surroundings, counted whole.
    picture = np.asarray(Image.open(path))
    part = cmtl_jax.load(workdir)(picture[1900:2900, 2900:4100]).density[100:900, 100:1100]
    corner = np.load(tmp_path / "corner.npy")
    np.testing.assert_allclose(corner, part, rtol=0, atol=1e-4 * part.max())


@pytest.mark.parametrize(
    "error",
    [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9")],
)
def test_too_little_memory_is_told_in_words(counter, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(counter, "_density", fail)
    with pytest.raises(UserError, match="not enough memory to count 128x64 pixels"):
        counter(grey(60, 70))
