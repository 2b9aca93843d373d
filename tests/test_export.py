"""The way back: our weights as files that the authors' code reads."""

import json

import h5py
import jax
import numpy as np
import pytest
import released_files
from work_folders import STEP, CommandLine, only_error, random_params, untrained

import cmtl_jax
from cmtl_jax import config as base_config
from cmtl_jax import trained_model
from cmtl_jax.interop import export, released
from cmtl_jax.models import registry
from cmtl_jax.parallel import Parallel

SYNTHETIC = "--config=configs/synthetic.py"


@pytest.fixture
def main(monkeypatch, capfd):
    return CommandLine(monkeypatch, capfd)


def attributes(path):
    with h5py.File(path) as file:
        return dict(file.attrs)


@pytest.mark.parametrize("name", ["cmtl_random", "mcnn_shtechA_660", "mcnn_shtechB_110", "cmtl"])
def test_a_released_file_comes_out_as_it_went_in(main, tmp_path, request, name):
    if name == "cmtl":
        path = released_files.write(tmp_path / "x.h5", released_files.arrays("cmtl"))
    else:
        path = request.getfixturevalue("shared") / f"fixtures/{name}.h5"
    status, _, err = main(
        SYNTHETIC, "--mode=export", f"--workdir={tmp_path}", f"--config.init_from={path}"
    )
    assert status == 0, err
    assert "uses them as they are" in err
    exported = tmp_path / "export/synthetic.h5"
    before, after = released_files.read(path), released_files.read(exported)
    assert before.keys() == after.keys()
    for key, array in before.items():
        assert after[key].dtype == array.dtype and after[key].shape == array.shape
        assert after[key].tobytes() == array.tobytes(), key
    expected = {"input_mean": 0, "input_std": 1, "density_scale": 1}
    assert attributes(exported) == expected | {"input_resize": "multiple_of_4"}


@pytest.mark.parametrize("model", ["cmtl", "mcnn"])
def test_a_run_exported_counts_as_the_run_does(main, tmp_path, model):
    """With grey levels normalised, density scaled by 100 and logits without PReLU."""
    workdir = untrained(tmp_path / "w", name=model)
    status, _, err = main(SYNTHETIC, "--mode=export", f"--workdir={workdir}")
    assert status == 0, err
    path = workdir / "export/synthetic.h5"
    assert f"{path} holds the weights of {workdir}" in err
    assert "(grey - 113) / 64" in err and "zero-pad" in err
    picture = np.load(released_files.GOLDEN)["image"][:61, :50]
    ours, theirs = cmtl_jax.load(workdir), cmtl_jax.load(path)
    expected = ours(picture)
    assert expected.count > 0
    np.testing.assert_allclose(
        theirs(picture).density, expected.density, rtol=0, atol=1e-6 * expected.density.max()
    )
    assert theirs.trained.config.loss.density_scale == 1.0
    assert theirs.trained.step == STEP and theirs.trained.groups == ours.trained.groups
    if model == "cmtl":
        image = np.random.default_rng(0).normal(size=(1, 8, 8, 1)).astype(np.float32)
        logits = [
            jax.jit(lambda p, t=t: t.model.apply({"params": p}, image, np.array([[8, 8]])))(
                t.params
            ).group_logits
            for t in (theirs.trained, ours.trained)
        ]
        assert float(logits[1].min()) < 0  # where a PReLU would show
        np.testing.assert_allclose(*logits, rtol=1e-5, atol=1e-6)


def test_their_network_on_normalised_grey_levels_gives_our_count(main, tmp_path):
    """What the log tells users of the authors' code to do, done by the definition of MCNN."""
    workdir = untrained(tmp_path / "w", name="mcnn")
    assert main(SYNTHETIC, "--mode=export", f"--workdir={workdir}")[0] == 0
    path = workdir / "export/synthetic.h5"
    grey = np.load(released_files.GOLDEN)["image"][:30, :41]
    said = attributes(path)
    network_input = np.zeros((32, 44))
    network_input[:30, :41] = (grey - said["input_mean"]) / said["input_std"]
    people = released_files.plain_mcnn(released_files.read(path), network_input).sum()
    assert people > 0
    assert cmtl_jax.load(workdir)(grey).count == pytest.approx(people, rel=1e-5)


def test_no_folder_of_this_machine_goes_into_the_file(tmp_path):
    workdir = untrained(tmp_path / "w", name="mcnn")
    trained = trained_model.restore(workdir, Parallel())
    trained.about["config"]["dataset"]["raw_dir"] = str(tmp_path)
    path = tmp_path / "x.h5"
    export.write(path, export.convert(trained), trained)
    about = json.loads(attributes(path)[released.ABOUT])
    assert about["data"] == "synthetic" and about["step"] == STEP
    assert str(tmp_path) not in json.dumps(about)
    assert [p.name for p in tmp_path.glob(".*")] == []


@pytest.mark.parametrize(
    "model, part",
    [
        ({"name": "single_stage"}, "config.model.name='single_stage'; it has cmtl or mcnn"),
        ({"prior_pool": "spp"}, "config.model.prior_pool='spp'; it has adaptive_max"),
        ({"up_maps": (16, 18)}, "config.model.up_maps=(16, 18); it has (16, 8)"),
        ({"output_activation": "softplus"}, "config.model.output_activation='softplus'"),
        ({"prior_fusion": "film"}, "config.model.prior_fusion='film'; it has features"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(main, tmp_path, model, part):
    workdir = untrained(tmp_path / "w", **model)
    status, _, err = main(SYNTHETIC, "--mode=export", f"--workdir={workdir}")
    line = only_error(err)
    assert status == 1 and part in line and str(workdir) in line
    assert not (workdir / "export").exists()


def test_the_checkpoint_asked_for_is_exported(main, tmp_path):
    """Of the work folder that is named, too."""
    weights = untrained(tmp_path / "w", name="mcnn", steps=(3, 5))
    command = (SYNTHETIC, "--mode=export", f"--workdir={tmp_path}", f"--config.init_from={weights}")
    for more, step in (((), 3), (("--config.eval.checkpoint=5",), 5)):
        assert main(*command, *more)[0] == 0
        assert cmtl_jax.load(tmp_path / "export/synthetic.h5").trained.step == step
    status, _, err = main(*command, "--config.eval.checkpoint=999")
    assert status == 1 and "no checkpoint 999 in" in only_error(err)


def test_nothing_to_export(main, tmp_path):
    status, _, err = main(SYNTHETIC, "--mode=export", f"--workdir={tmp_path / 'none'}")
    assert status == 1 and str(tmp_path / "none") in only_error(err)
    assert not (tmp_path / "none").exists()
    status, _, err = main(SYNTHETIC, "--mode=export", "--config.export.format=keras")
    assert status == 1 and "config.export.format is 'keras'" in only_error(err)


@pytest.fixture
def five_folds(tmp_path, monkeypatch):
    """The work folder of a cross-validation."""
    for fold in range(1, 6):
        config = base_config.base()
        config.dataset.fold = fold
        with monkeypatch.context() as patch:
            patch.setattr(base_config, "base", lambda config=config: config)
            untrained(tmp_path / f"ucf/fold_{fold}", name="mcnn")
    return tmp_path / "ucf"


UCF = "--config=configs/ucf_cc_50.py"


def test_a_cross_validation_gives_a_file_of_each_fold(main, tmp_path, five_folds):
    names = [f"ucf_cc_50-fold_{fold}.h5" for fold in range(1, 6)]
    for arguments in (
        [f"--workdir={five_folds}"],
        [f"--workdir={tmp_path / 'w'}", f"--config.init_from={five_folds}"],
    ):
        status, _, err = main(UCF, "--mode=export", *arguments)
        assert status == 0, err
    for folder in (five_folds, tmp_path / "w"):
        paths = sorted((folder / "export").iterdir())
        assert [path.name for path in paths] == names
        for fold, path in enumerate(paths, start=1):
            about = json.loads(attributes(path)[released.ABOUT])
            assert about["config"]["dataset"]["fold"] == fold

    # One fold, or weights of something else, are one file.
    assert main(UCF, "--mode=export", f"--workdir={five_folds / 'fold_2'}")[0] == 0
    assert [path.name for path in (five_folds / "fold_2/export").iterdir()] == [names[1]]
    source = released_files.write(tmp_path / "x.h5", released_files.arrays("mcnn"))
    arguments = f"--workdir={tmp_path / 'x'}", f"--config.init_from={source}"
    assert main(UCF, "--mode=export", *arguments)[0] == 0
    assert [path.name for path in (tmp_path / "x/export").iterdir()] == ["ucf_cc_50.h5"]


def test_a_cross_validation_that_is_not_finished(main, tmp_path, five_folds):
    for fold in (1, 4):
        (five_folds / f"fold_{fold}").rename(tmp_path / f"moved_{fold}")
    status, _, err = main(UCF, "--mode=export", f"--workdir={five_folds}")
    assert status == 1 and not (five_folds / "export").exists()
    line = only_error(err)
    assert f"no weights of fold_1, fold_4 in {five_folds}; train there first" in line
    assert f"--workdir={five_folds / 'fold_2'}" in line
    status, _, err = main(UCF, "--mode=export", f"--workdir={tmp_path / 'none'}")
    assert status == 1 and "no weights of fold_1, fold_2, fold_3," in only_error(err)
    assert not (tmp_path / "none").exists()


def test_layouts_are_undone(tmp_path):
    """Ours -> theirs -> ours, for values that are all different."""
    for model in ("cmtl", "mcnn"):
        params = random_params(registry.build(model, **released.ARCHITECTURE))
        again = released.to_ours(model, released.to_theirs(model, params))
        jax.tree.map(np.testing.assert_array_equal, again, params)
