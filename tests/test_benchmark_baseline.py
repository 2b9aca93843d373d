"""The PyTorch baseline computes what the cascade computes: density, logits, loss and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import released_files
from PIL import Image

torch = pytest.importorskip("torch", reason="PyTorch, the baseline, is not installed")

import optax  # noqa: E402

from cmtl_jax.benchmark import (  # noqa: E402
    baseline,
    inputs,
    operations,
    ours,
    torch_cascade,
    torch_training,
)
from cmtl_jax.interop import released  # noqa: E402
from cmtl_jax.models import registry  # noqa: E402
from cmtl_jax.training import state as state_lib  # noqa: E402
from cmtl_jax.training import steps as steps_lib  # noqa: E402


def relative(found, expected):
    """Largest difference, relative to the largest of what is expected."""
    found, expected = (np.asarray(x, np.float64) for x in (found, expected))
    return np.abs(found.reshape(expected.shape) - expected).max() / np.abs(expected).max()


def loaded(path):
    net, _ = torch_cascade.load(path)
    net.dropout = 0.0
    return net


@pytest.fixture(scope="module")
def golden(shared):
    return np.load(shared / "fixtures/cmtl_golden.npz")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file with random weights whose density is alive, and what a benchmark adds to it."""
    path = tmp_path_factory.mktemp("weights") / "x.h5"
    attributes = {"input_mean": 113.0, "input_std": 64.0, "input_resize": "none"}
    return str(released_files.write(path, released_files.arrays("cmtl"), **attributes))


@pytest.mark.parametrize("crop", "abcd")
def test_density_and_logits_equal_the_released_networks(shared, golden, crop):
    net = loaded(shared / "fixtures/cmtl_random.h5").eval()
    image = golden[f"{crop}_image"].astype(np.float32)
    with torch.inference_mode():
        x = torch.from_numpy(image).reshape(1, 1, *image.shape[-2:])
        density, logits = net(x)
        alone = net.density(x)
    assert relative(density, golden[f"{crop}_density"]) <= 1e-5
    assert relative(logits, golden[f"{crop}_logits"]) <= 1e-5
    np.testing.assert_array_equal(alone, density)


def test_the_density_equals_the_released_networks_on_the_stored_crop(tmp_path):
    stored = dict(np.load(released_files.GOLDEN))
    image, density = stored.pop("image"), stored.pop("density")
    stored.pop("prior_features")
    path = released_files.write(tmp_path / "x.h5", released_files.zeros("cmtl") | stored)
    with torch.inference_mode():
        found = loaded(path).density(torch.from_numpy(image[None, None].astype(np.float32)))
    assert relative(found, density) <= 1e-5


def test_losses_and_gradients_equal_the_released_networks(shared, golden):
    """By the loss that the authors train with; the baseline's own is held against ours below."""
    net = loaded(shared / "fixtures/cmtl_random.h5").train()
    image, target = (
        torch.from_numpy(golden[f"a_{name}"].astype(np.float32))[None, None]
        for name in ("image", "density_gt")
    )
    density, logits = net(image)
    squared = torch.nn.functional.mse_loss(density, target)
    entropy = torch.nn.functional.binary_cross_entropy(
        logits.softmax(1),
        torch.from_numpy(golden["label"].astype(np.float32)),
        weight=torch.from_numpy(golden["class_weights"].astype(np.float32)),
    )
    loss = squared + 1e-4 * entropy
    loss.backward()
    found = [squared.item(), entropy.item(), loss.item()]
    np.testing.assert_allclose(found, golden["losses"][0], rtol=1e-5)
    gradients = dict(net.named_parameters())
    names = [key.removeprefix("grad/") for key in golden.files if key.startswith("grad/")]
    assert set(names) == set(gradients)
    for name in names:
        theirs, gradient = golden[f"grad/{name}"], gradients[name].grad.numpy()
        if theirs.shape != gradient.shape:  # of the large ones the norm alone is kept
            gradient = np.linalg.norm(gradient.astype(np.float64))
        assert relative(gradient, theirs) <= 1e-4, name


RATE = 1e-4


def test_gradients_and_three_steps_of_the_benchmarks_training_equal_ours(weights):
    """In float64, so that the tolerance is far below what any mistake would do."""
    made = inputs.crops(3, 48, 64)
    net = loaded(weights).train().double()
    adam = torch.optim.Adam(net.parameters(), lr=RATE, fused=True)
    other = torch_training.make_step(
        net,
        adam,
        torch.from_numpy(inputs.CLASS_WEIGHTS).double(),
        group_weight=inputs.GROUP_WEIGHT,
        density_scale=inputs.DENSITY_SCALE,
        autocast=torch.autocast("cpu", torch.bfloat16, enabled=False),
        compiled=False,
    )
    image, density = (torch.from_numpy(x[:, None]).double() for x in (made.image, made.density))
    theirs = lambda tree: {  # noqa: E731
        key.removeprefix("CCN."): array for key, array in released.to_theirs("cmtl", tree).items()
    }
    with jax.enable_x64(True):
        model = registry.build("cmtl", **released.ARCHITECTURE, dropout=0.0, dtype="float64")
        double = lambda x: jnp.asarray(x, jnp.promote_types(x.dtype, jnp.float64))  # noqa: E731
        batch = ours.batch_of(3, 48, 64)
        batch = batch._replace(image=double(batch.image), density=double(batch.density))
        tx = optax.adam(RATE)
        step = jax.jit(steps_lib.make_train_step(model, tx, ema_decay=0.0, seed=0))
        params = jax.tree.map(double, released.read(weights))
        state = state_lib.create(params, tx, ema=False)
        objective = ours.objective()
        for number in range(3):
            state, metrics = step(state, batch, objective)
            found = other(image, density, torch.from_numpy(made.group).long())
            part = metrics["density_loss"]
            assert found.item() == pytest.approx(float(part.sum / part.count), rel=1e-8)
            if number == 0:  # Adam's first average is a tenth of the first gradient
                averages = theirs(state.opt_state[0].mu)
                for name, parameter in net.named_parameters():
                    average = adam.state[parameter]["exp_avg"]
                    assert relative(average, averages[name]) <= 1e-8, name
        before, after = theirs(params), theirs(state.params)
    for name, parameter in net.named_parameters():
        moved, expected = (
            x - before[name] for x in (parameter.detach().numpy(), after[name])
        )
        assert relative(moved, expected) <= 1e-4, name
        assert np.abs(expected).max() > 0.1 * RATE, name


def test_tasks_of_both_sides_find_the_same(weights, tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(inputs.picture(40, 30)).save(path)

    def results(module, name, **spec):
        task = module.TASKS[name](weights, "float32", **spec)
        task.run()
        task.wait()
        return task.result()

    for name, spec in (
        ("forward", {"batch": 2, "height": 32, "width": 48}),
        ("predict", {"height": 37, "width": 50}),  # no multiples of 4
        ("predict", {"path": str(path)}),
    ):
        ((key, expected),) = results(ours, name, **spec).items()
        assert expected > 0
        for channels_last in (False, True):
            options = {"platform": "cpu", "channels_last": channels_last}
            found = results(baseline, name, **spec, **options)
            assert found == {key: pytest.approx(expected, rel=1e-4)}, (name, options)


@pytest.mark.parametrize("part", ["forward", "gradients"])
def test_convolutions_of_both_sides_find_the_same(part):
    spec = {"batch": 2, "height": 8, "width": 9, "kernel": 5, "channels": (3, 4), "part": part}

    def found(module, **options):
        task = module.TASKS["convolution"]("float32", **spec, **options)
        task.run()
        task.wait()
        return task.result()

    expected = found(ours)
    for channels_last in (False, True):
        options = {"platform": "cpu", "channels_last": channels_last}
        assert found(baseline, **options) == pytest.approx(expected, rel=1e-5)


def test_evaluations_of_both_sides_find_the_same(weights, tmp_path):
    sides = {"height": (44, 60), "width": (44, 60)}
    dataset = {
        "name": "synthetic", "tfds_dir": str(tmp_path / "tfds"), "val_fraction": 0.0,
        "options": {"num_train": 0, "num_test": 4, "seed": 0, **sides},
    }  # fmt: skip
    folder = str(tmp_path / "pictures")
    task = ours.prepare_pictures(dataset, 3, folder)
    task.run()
    assert len(task.result()["sizes"]) == 3
    tasks = (
        ours.evaluate(weights, dataset, 3),
        baseline.evaluate(weights, folder, 3, "cpu", channels_last=True),
    )
    for task in tasks:
        task.run()
    mine, theirs = (task.result() for task in tasks)
    assert mine.pop("programs") <= 3
    assert mine == {key: pytest.approx(value, rel=1e-4) for key, value in theirs.items()}
    assert mine["num_images"] == 3 and mine["mae"] > 0


def test_operations_counted_by_pytorch():
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        net = torch_cascade.TorchCascade()
        image = torch.empty(2, 1, 64, 96)
    with FlopCounterMode(display=False) as counter:
        density, logits = net(image)
        forward = counter.get_total_flops()
        (density.sum() + logits.sum()).backward()
    assert forward == operations.forward(2, 64, 96)
    assert counter.get_total_flops() == operations.train_step(2, 64, 96)
    with FlopCounterMode(display=False) as counter:
        net.density(image)
    assert counter.get_total_flops() == operations.forward(2, 64, 96, head=False)


@pytest.mark.slow
def test_training_steps_of_both_sides_find_the_same_loss(weights):
    shape = (2, 32, 48)
    variants = ({}, {"channels_last": True}, {"compiled": True})
    tasks = [
        baseline.train_step(weights, "float32", *shape, "cpu", **variant) for variant in variants
    ]
    tasks.append(ours.train_step(weights, "float32", *shape, devices=1))
    for task in tasks:
        task.run()
    *theirs, expected = (task.result()["density_loss"] for task in tasks)
    assert theirs == pytest.approx([expected] * 3, rel=1e-4)
