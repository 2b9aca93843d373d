"""The formats of an export on the command line: python -m cmtl_jax.main --mode=export."""

import json
import pathlib
import sys

import jax
import numpy as np
import pytest
from exports import pictures
from PIL import Image
from work_folders import CommandLine, only_error, untrained

import cmtl_jax
from cmtl_jax.interop import parity, stablehlo

SYNTHETIC = "--config=configs/synthetic.py"


@pytest.fixture
def export(monkeypatch, capfd):
    main = CommandLine(monkeypatch, capfd)

    def run(workdir: pathlib.Path, kind: str, *more: str):
        monkeypatch.setattr(parity, "_DRAWN", ((35, 42),))
        return main(
            SYNTHETIC, "--mode=export", f"--workdir={workdir}", f"--config.export.format={kind}",
            *more,
        )  # fmt: skip

    return run


@pytest.fixture
def photos(tmp_path):
    """A folder of three pictures and a text."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, image in enumerate(pictures([(33, 47), (40, 48), (64, 64)])):
        Image.fromarray(image[..., 0]).save(folder / f"{i}.png")
    (folder / "note.txt").write_text("no picture")
    return folder


def test_safetensors_with_a_card(export, tmp_path, photos):
    workdir = untrained(tmp_path / "w", name="mcnn")
    status, _, err = export(workdir, "safetensors")
    assert status == 0, err
    file, card = workdir / "export/synthetic.safetensors", workdir / "export/synthetic.md"
    assert f"--weights={file}; synthetic.md says what they are" in err
    assert card.read_text().startswith("# synthetic.safetensors\n")
    ours, theirs = cmtl_jax.load(workdir), cmtl_jax.load(file)
    expected = ours(photos / "0.png")
    np.testing.assert_array_equal(theirs(photos / "0.png").density, expected.density)
    assert expected.count > 0
    assert theirs.trained.step == ours.trained.step
    assert theirs.trained.groups == ours.trained.groups
    assert str(tmp_path).encode() not in file.read_bytes() + card.read_bytes()


def test_half_the_size_is_held_against_the_weights(export, tmp_path, photos, monkeypatch):
    workdir = untrained(tmp_path / "w", name="mcnn")
    more = ("--config.export.dtype=float16", f"--config.export.pictures={photos}")
    status, _, err = export(workdir, "safetensors", *more)
    assert status == 0, err
    file = workdir / "export/synthetic.safetensors"
    parameters = sum(x.size for x in jax.tree.leaves(cmtl_jax.load(workdir).trained.params))
    assert 2 * parameters < file.stat().st_size < 2 * parameters + 20_000
    result = json.loads(file.with_name(f"{file.name}.parity.json").read_text())
    assert result["agrees"] and result["tolerance"] == 1e-3 and len(result["pictures"]) == 4
    expected, found = (cmtl_jax.load(w)(photos / "0.png").count for w in (workdir, file))
    assert found != expected and found == pytest.approx(expected, rel=1e-3)
    assert result["pictures"][1]["count_file"] == pytest.approx(found, rel=1e-6)

    monkeypatch.setattr(parity, "HALVED", 1e-9)
    monkeypatch.setitem(parity.TOLERANCES, "float32", 1e-9)
    status, _, err = export(workdir, "safetensors", *more)
    assert status == 1 and "does not count as" in only_error(err)


def test_stablehlo_with_a_parity_report(export, tmp_path, photos):
    workdir = untrained(tmp_path / "w", name="mcnn")
    more = (f"--config.export.pictures={photos}", "--config.export.num_pictures=2")
    status, _, err = export(workdir, "stablehlo", *more)
    assert status == 0, err
    file = workdir / "export/synthetic.stablehlo"
    report = workdir / "export/synthetic.stablehlo.parity.txt"
    assert f"It counts as they do; {report} says" in err
    assert "agrees\n" in report.read_text()
    result = json.loads(report.with_suffix(".json").read_text())
    assert [one["picture"] for one in result["pictures"]] == ["drawn crowd 0", "0.png", "1.png"]
    picture = np.array(Image.open(photos / "0.png"))
    expected = cmtl_jax.load(workdir)(picture)
    assert stablehlo.Program(file)(picture[..., None])[1] == pytest.approx(expected.count, rel=1e-5)


def test_a_program_looks_once_where_its_weights_look_more_often(export, tmp_path):
    seen = {"scale": 0.5, "looks": (0.35, 0.7)}
    workdir = untrained(tmp_path / "w", name="mcnn", seen=seen)
    status, _, err = export(workdir, "stablehlo")
    assert status == 0, err
    file = workdir / "export/synthetic.stablehlo"
    assert json.loads(file.with_name(f"{file.name}.parity.json").read_text())["agrees"]
    status, _, err = export(workdir, "safetensors")
    assert status == 0, err
    looks = cmtl_jax.load(workdir / "export/synthetic.safetensors").trained.config.input.looks
    assert tuple(looks) == (0.35, 0.7)


def test_onnx_with_a_parity_report(export, tmp_path, photos):
    pytest.importorskip("onnx", reason="onnx is missing: see requirements-onnx.txt")
    pytest.importorskip("onnxruntime", reason="onnxruntime is missing: see requirements-onnx.txt")
    workdir = untrained(tmp_path / "w", name="mcnn")
    status, _, err = export(workdir, "onnx", f"--config.export.pictures={photos}")
    assert status == 0, err
    result = json.loads((workdir / "export/synthetic.onnx.parity.json").read_text())
    assert result["agrees"] and len(result["pictures"]) == 4
    assert result["bytes"] == (workdir / "export/synthetic.onnx").stat().st_size


def test_onnx_without_its_packages(export, tmp_path, monkeypatch):
    workdir = untrained(tmp_path / "w", name="mcnn")
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "cmtl_jax.interop.onnx_file", raising=False)
    monkeypatch.delattr("cmtl_jax.interop.onnx_file", raising=False)
    status, _, err = export(workdir, "onnx")
    line = only_error(err)
    assert status == 1 and "requirements-onnx.txt" in line and "pip install onnx" in line
    assert not (workdir / "export").exists()


@pytest.mark.parametrize(
    "pictures, part",
    [("none.jpg", "none.jpg cannot be read"), ("film.mp4", "names no picture")],
)
def test_bad_pictures_are_told_before_the_work(export, tmp_path, pictures, part):
    workdir = untrained(tmp_path / "w", name="mcnn")
    (tmp_path / "film.mp4").touch()
    status, _, err = export(
        workdir, "stablehlo", f"--config.export.pictures={tmp_path / pictures}"
    )
    assert status == 1 and part in only_error(err)
    assert not (workdir / "export").exists()
