"""The cascade: its size, its outputs, and that neither padding nor neighbours change a picture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmtl_jax import losses
from cmtl_jax.models import registry

RELEASED = {"logit_activation": "prelu"}
SIZES = [(37, 50), (1, 1), (61, 30)]


def random_params(model, channels=1, seed=0):
    """Parameters that keep the signal's variance, without compiling the model's own initialiser."""
    rng = np.random.default_rng(seed)
    image, size = jnp.zeros((1, 32, 32, channels)), jnp.full((1, 2), 32)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image, size))["params"]

    def draw(x):
        scale = 1.4 / np.sqrt(np.prod(x.shape[:-1])) if len(x.shape) > 1 else 0.25
        return jnp.asarray(rng.normal(size=x.shape) * scale, x.dtype)

    return jax.tree.map(draw, shapes)


def number_of_parameters(model, channels=1):
    image, size = jnp.zeros((1, 32, 32, channels)), jnp.full((1, 2), 32)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image, size))
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes))


@pytest.mark.parametrize(
    ("name", "channels", "expected"),
    [("cmtl", 1, 2_453_619), ("cmtl", 3, 2_456_211), ("single_stage", 1, 122_293)],
)
def test_released_configuration_has_the_published_number_of_parameters(name, channels, expected):
    options = RELEASED if name == "cmtl" else {}
    assert number_of_parameters(registry.build(name, **options), channels) == expected


def test_unknown_model_and_unknown_choice_are_refused():
    with pytest.raises(KeyError, match="no model 'vgg'"):
        registry.build("vgg")
    with pytest.raises(TypeError):
        registry.build("cmtl", layers=3)


def test_sides_that_are_no_multiples_of_4_are_refused():
    model = registry.build("single_stage")
    with pytest.raises(ValueError, match="multiples of 4"):
        model.init(jax.random.key(0), jnp.zeros((1, 30, 32, 1)), jnp.full((1, 2), 30))


def test_pyramid_pooling_and_the_papers_maps():
    model = registry.build("cmtl", prior_pool="spp", spp_levels=[4, 2, 1], up_maps=[16, 18])
    image, size = jnp.ones((2, 32, 48, 1)), jnp.array([[32, 48], [9, 13]])
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), image, size))["params"]
    assert params["head"]["fc1"]["kernel"].shape == (8 * (16 + 4 + 1), 512)
    assert params["decoder"]["up2"]["conv"]["kernel"].shape == (4, 4, 16, 18)
    logits = jax.eval_shape(model.apply, {"params": params}, image, size).group_logits
    assert logits.shape == (2, 10)


def pictures(sizes, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(h, w, 1)).astype(dtype) for h, w in sizes]


def batch_of(images, densities, shape, garbage):
    """Pads into one shape; what lies outside the pictures is garbage, which must not matter."""
    image = np.full((len(images), *shape, 1), garbage, images[0].dtype)
    density = np.zeros((len(images), *shape, 1), images[0].dtype)
    for i, (a, b) in enumerate(zip(images, densities, strict=True)):
        image[i, : a.shape[0], : a.shape[1]] = a
        density[i, : a.shape[0], : a.shape[1]] = b
    return jnp.asarray(image), jnp.asarray(density), jnp.array([a.shape[:2] for a in images])


def loss_and_gradient(model):
    def loss(params, image, density, size, weight, keys):
        output = model.apply({"params": params}, image, size, keys)
        parts = [
            losses.density_loss(output.density, density, size, weight, scale=100.0),
            losses.group_loss(output.group_logits, size[:, 0] % 10, weight, jnp.ones(10)),
        ]
        return parts[0].sum / parts[0].count + 0.02 * parts[1].sum / parts[1].count, output

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def relative(a, b):
    """Distance of a from b, relative to b's length."""
    return float(jnp.linalg.norm(jnp.ravel(a - b)) / jnp.maximum(jnp.linalg.norm(b), 1e-30))


@pytest.mark.parametrize(
    ("pool", "fusion", "dtype", "tolerance", "gradient_tolerance"),
    [
        ("adaptive_max", "features", "float64", 1e-10, 1e-10),
        ("adaptive_max", "features", "float32", 1e-5, 5e-5),
        pytest.param("spp", "film", "float64", 1e-10, 1e-10, marks=pytest.mark.slow),
        pytest.param("spp", "features", "float32", 1e-5, 5e-5, marks=pytest.mark.slow),
    ],
)
def test_a_picture_alone_equals_it_padded_into_a_mixed_batch(
    pool, fusion, dtype, tolerance, gradient_tolerance
):
    with jax.enable_x64(dtype == "float64"):
        model = registry.build(
            "cmtl",
            prior_pool=pool,
            prior_fusion=fusion,
            dtype=dtype,
            output_activation="softplus",
        )
        images = pictures(SIZES, dtype)
        densities = [abs(image) * 1e-3 for image in pictures(SIZES, dtype, seed=1)]
        together = batch_of(images, densities, (72, 80), garbage=7.0)
        params = jax.tree.map(lambda x: x.astype(dtype), random_params(model))
        keys = jax.random.split(jax.random.key(5), len(SIZES))
        run = loss_and_gradient(model)
        for i, (h, w) in enumerate(SIZES):
            chosen = jnp.arange(len(SIZES)) == i
            (value, output), gradient = run(params, *together, chosen.astype(dtype), keys)
            shape = (-(-h // 4) * 4, -(-w // 4) * 4)
            alone = batch_of(images[i : i + 1], densities[i : i + 1], shape, garbage=0.0)
            (expected, single), expected_gradient = run(
                params, *alone, jnp.ones(1, dtype), keys[i : i + 1]
            )
            assert relative(output.density[i, :h, :w], single.density[0, :h, :w]) <= tolerance
            assert relative(output.group_logits[i], single.group_logits[0]) <= tolerance
            assert abs(value - expected) <= tolerance * abs(expected)
            differences = jax.tree.map(relative, gradient, expected_gradient)
            assert max(jax.tree.leaves(differences)) <= gradient_tolerance
            outside = output.density[i].at[:h, :w].set(0)
            assert not outside.any()


def test_density_does_not_reach_further_than_55_pixels():
    """What exact tiles rely on."""
    model = registry.build("cmtl", output_activation="softplus")
    image, size = jnp.asarray(pictures([(160, 160)], np.float32)[0])[None], jnp.full((1, 2), 160)
    params = random_params(model)

    @jax.jit
    @jax.grad
    def gradient_of_pixel(image):
        return model.apply({"params": params}, image, size).density[0, 80, 81, 0]

    rows, columns = np.nonzero(np.asarray(gradient_of_pixel(image))[0, :, :, 0])
    assert 40 < np.abs(rows - 80).max() <= 55
    assert 40 < np.abs(columns - 81).max() <= 55


def test_group_modulation_starts_as_the_papers_cascade_and_lets_the_groups_act():
    plain, film = registry.build("cmtl"), registry.build("cmtl", prior_fusion="film")
    image, size = jnp.asarray(pictures([(32, 32)], np.float32)[0])[None], jnp.full((1, 2), 29)
    params = random_params(plain)
    modulation = {"dense": {"kernel": jnp.zeros((10, 2 * 18))}}
    outputs = film.apply({"params": params | {"modulation": modulation}}, image, size)
    expected = plain.apply({"params": params}, image, size)
    jax.tree.map(np.testing.assert_array_equal, outputs, expected)

    def density_with(logit_bias, kernel):
        fc3 = params["head"]["fc3"] | {"bias": logit_bias}
        changed = params | {"head": params["head"] | {"fc3": fc3}}
        changed |= {"modulation": {"dense": {"kernel": kernel}}}
        return film.apply({"params": changed}, image, size).density

    # Sure of group 3, whose row leaves all features at half and shifts none.
    sure = jnp.zeros(10).at[3].set(1e4)
    half = jnp.zeros((10, 36)).at[3, :18].set(-0.5)
    halved = density_with(sure, half)
    assert not np.allclose(halved, expected.density, atol=1e-4)
    other = jnp.zeros(10).at[4].set(1e4)
    np.testing.assert_allclose(density_with(other, half), expected.density, rtol=1e-5, atol=1e-6)
    # A shift stays inside the picture.
    shifted = density_with(sure, jnp.zeros((10, 36)).at[3, 18:].set(2.0))
    assert shifted[:, :29, :29].any() and not shifted[:, 29:].any()


def test_dropout_acts_in_training_alone_and_does_not_reach_the_density():
    model = registry.build("cmtl")
    image, size = jnp.asarray(pictures([(32, 32)], np.float32)[0])[None], jnp.full((1, 2), 32)
    variables = {"params": random_params(model)}
    apply = jax.jit(model.apply)
    first, second = (
        apply(variables, image, size, jax.random.split(jax.random.key(seed), 1))
        for seed in (0, 1)
    )
    assert not np.allclose(first.group_logits, second.group_logits)
    np.testing.assert_array_equal(first.density, second.density)


def test_bfloat16_computation_keeps_float32_outputs():
    plain, half = registry.build("cmtl"), registry.build("cmtl", dtype="bfloat16")
    image, size = jnp.asarray(pictures([(32, 48)], np.float32)[0])[None], jnp.array([[32, 48]])
    variables = {"params": random_params(plain)}
    expected, output = (jax.jit(m.apply)(variables, image, size) for m in (plain, half))
    assert output.density.dtype == output.group_logits.dtype == jnp.float32
    # 8 bits of mantissa through a dozen layers, then a ReLU.
    assert relative(output.density, expected.density) < 0.1
