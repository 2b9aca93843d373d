"""The benchmark: how it measures and tells. PyTorch's side: tests/test_benchmark_baseline.py."""

import dataclasses
import io
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
from math import nan

import numpy as np
import pytest
import released_files
from PIL import Image
from work_folders import kept_logging, only_error

import cmtl_jax
from cmtl_jax.benchmark import __main__ as command
from cmtl_jax.benchmark import inputs, machine, operations, ours, plot, render
from cmtl_jax.benchmark.bench import OURS, Pictures, disagreements
from cmtl_jax.benchmark.curve import Curve
from cmtl_jax.benchmark.measure import Values, alternate
from cmtl_jax.benchmark.process import Once, Side, SideError, variables
from cmtl_jax.benchmark.report import Report
from cmtl_jax.benchmark.rooms import GROWTH, ROOMS, prediction
from cmtl_jax.benchmark.row import Row
from cmtl_jax.benchmark.settings import Settings
from cmtl_jax.benchmark.targets import TARGETS
from cmtl_jax.interop import released

ROOT = pathlib.Path(__file__).parent.parent


class Sides:
    """Sides whose values are given, and a clock that each of them moves."""

    def __init__(self, **seconds):
        self.now, self.calls = 0.0, []
        self.runs = {name: lambda n=name: self._run(n, seconds[n]) for name in seconds}

    def _run(self, name, seconds):
        self.calls.append(name)
        self.now += seconds
        return seconds

    def alternate(self, **options):
        return alternate(self.runs, clock=lambda: self.now, **options)


def test_sides_take_turns_in_an_order_that_reverses():
    sides = Sides(ours=1, torch=2)
    found = sides.alternate(repeats=3, seconds=100)
    assert sides.calls == ["ours", "torch", "torch", "ours", "ours", "torch"]
    assert found == {"ours": Values((1, 1, 1)), "torch": Values((2, 2, 2))}


def test_variants_far_behind_the_best_are_measured_once_and_ours_always():
    sides = Sides(ours=9, best=2, near=2.9, far=3.1)
    found = sides.alternate(repeats=4, seconds=1000, variants=["best", "near", "far"])
    numbers = {name: len(values.values) for name, values in found.items()}
    assert numbers == {"ours": 4, "best": 4, "near": 4, "far": 1}


@pytest.mark.parametrize(("seconds", "rounds"), [(0, 3), (7, 4), (1000, 9)])
def test_time_ends_the_rounds_but_never_the_first_three(seconds, rounds):
    found = Sides(ours=1, torch=1).alternate(repeats=9, seconds=seconds)
    assert len(found["ours"].values) == rounds


def test_values():
    values = Values((3.0, 1.0, 2.0, 10.0))
    assert (values.median, values.least, values.most) == (2.5, 1.0, 10.0)


def row(key="train_step/8/float32", ours=2.0, unit="seconds", **torch):
    return Row(
        key, "a step", "float32", "cpu", unit, None if ours is None else Values((ours,)),
        {name.replace("_", " "): Values((value,)) for name, value in torch.items()},
        pixels=4e6, operations=8e9,
    )  # fmt: skip


def test_the_ratio_is_to_the_best_variant():
    assert row(ours=3.0, slow=6.0, fast=4.0).ratio == 0.75
    assert row(ours=3.0, slow=6.0, fast=4.0).best == "fast"
    assert row(ours=3.0).ratio is row(ours=None, fast=1.0).ratio is None


@pytest.mark.parametrize(
    ("ours", "torch", "verdict"),
    [(0.5, 1, "dream"), (0.9, 1, "met"), (0.91, 1, "missed"), (None, 1, "not measured")],
)
def test_verdicts_by_ratio(ours, torch, verdict):
    assert row(ours=ours, torch=torch).verdict == verdict


def test_verdicts_by_value_and_none_without_a_target():
    assert row("prediction/first_count", 4.0, torch=1.0).verdict == "met"
    assert row("prediction/first_count", 3.0).verdict == "dream"
    assert row("prediction/large", 2.0**31, "bytes").verdict == "met"
    assert row("prediction/large", 2.0**31 + 1, "bytes").verdict == "missed"
    assert row("model/8/float32", 4.0, torch=1.0).verdict == ""
    assert dataclasses.replace(row(torch=1), platform="gpu").verdict == ""


def curve(torch=True, name="batch"):
    ours = tuple(Values((3.0 * x**2, 3.1 * x**2, 3.2 * x**2)) for x in (1, 2, 4))
    theirs = tuple(Values((5.0 * x,)) for x in (1, 2, 4)) if torch else ()
    return Curve(name, f"cost over {name}", (1.0, 2.0, 4.0), ours, theirs, "channels_last")


def test_the_exponent_of_growth():
    assert curve().exponent() == pytest.approx(2)
    assert math.isnan(Curve("batch", "", (1.0,), (Values((1.0,)),)).exponent())


def report(*rows, load=0.1, **more):
    about = machine.describe() | {"load_before": load, "load_after": 1.5}
    programs = {
        "ours": {"program": "cmtl_jax 0", "jax": "0.10", "platform": "cpu", "devices": ["cpu"]},
        "torch": {"torch": "2.15", "threads": 2, "cpu_capability": "AVX512", "cuda": None},
    }
    products = {"float32": {"cmtl_jax": 1e10, "PyTorch": 1.6e10}}
    return Report(about, programs, products, {"trial": False}, list(rows), **more)


def cells(text, title):
    lines = [line for line in text.splitlines() if line.startswith("|") and title in line]
    assert len(lines) == 1, text
    return [cell.strip() for cell in lines[0].split("|")[1:-1]]


def test_the_table():
    text = render.text(report(row(slow=6.0, channels_last=4.0)))
    assert cells(text, "a step") == [
        "a step", "float32", "2 s", "4 s, channels last", "2", "4", "25%", "0.50", "0.9", "0.5",
        "dream",
    ]  # fmt: skip
    widths = {len(line) for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1
    assert "WARNING" not in text


def test_the_table_tells_what_failed_and_what_was_left_out():
    failed = dataclasses.replace(row(ours=None), notes=("ours: no memory",))
    left = dataclasses.replace(row("memory/cold", 2.0**20, "bytes"), left_out={"x": "no compiler"})
    text = render.text(report(failed, dataclasses.replace(left, title="memory")))
    assert cells(text, "a step")[2] == "failed"
    assert cells(text, "| memory")[2] == "1 MiB"
    assert "a step float32: ours: no memory" in text
    assert "memory float32: x left out: no compiler" in text


def test_a_busy_machine_is_told():
    busy = render.text(report(row(fast=4.0), load=0.51))
    assert "WARNING" in busy and cells(busy, "a step")[-1] == "dream?"
    quiet = render.text(report(row(fast=4.0), load=0.5))
    assert "WARNING" not in quiet and cells(quiet, "a step")[-1] == "dream"


@pytest.mark.parametrize(
    ("values", "unit", "text"),
    [
        ((1.234, 1.2, 1.3), "seconds", "1.23 s (1.2–1.3)"),
        ((0.0123,), "seconds", "12.3 ms"),
        ((2.0**30 * 1.5,), "bytes", "1.5 GiB"),
        ((2.0**20 * 812.4, 2.0**20 * 900), "bytes", "856 MiB (812–900)"),
    ],
)
def test_values_for_people(values, unit, text):
    assert render.values(Values(values), unit) == text


def test_a_report_is_the_same_when_read_again(tmp_path):
    written = report(
        row(fast=4.0), row("prediction/large", 5.0, "bytes"), row(ours=None), curves=[curve()]
    )
    written.write(tmp_path / "x.json")
    again = Report.read(tmp_path / "x.json")
    assert again == written
    assert again.failed and not report(row()).failed
    data = json.loads((tmp_path / "x.json").read_text())
    assert data["rows"][0]["ratio"] == 0.5
    assert data["rows"][0]["target"] == {"at_most": 0.9, "dream": 0.5, "of": "ratio"}


def test_reading_prints_the_table_and_draws(tmp_path, capsys):
    path = tmp_path / "x.json"
    report(row(fast=4.0), curves=[curve()]).write(path)
    with kept_logging():
        assert command.main([f"--read={path}", f"--plot={tmp_path / 'x.png'}"]) == 0
    assert capsys.readouterr().out == render.text(Report.read(path))
    assert Image.open(tmp_path / "x.png").format == "PNG"


@pytest.mark.parametrize("torch", [True, False])
def test_the_plot_shows_each_curve(torch):
    def colours(curves):
        picture = Image.open(io.BytesIO(plot.growth(curves, "a machine"))).convert("RGB")
        return picture.size, {colour for _, colour in picture.getcolors(10**6)}

    (width, height), one = colours([curve(torch)])
    assert (0x25, 0x63, 0xEB) in one
    assert ((0xD9, 0x77, 0x06) in one) == torch
    (_, taller), _ = colours([curve(torch), curve(name="devices"), curve(torch)])
    assert taller > 1.5 * height


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rooms=model,cellar"], "no room 'cellar'; there are model,"),
        (["--precisions=float16"], "no float16"),
        (["--repeats=0"], "--repeats must be at least 1"),
        (["--pictures=0"], "--pictures must be at least 1"),
        (["--data=/nowhere/x"], "--data: /nowhere/x does not exist"),
        (["--json=/dev/null/x.json"], "cannot write /dev/null/x.json"),
        (["--rooms=model", "--plot=x.png"], "--rooms=growth"),
        (["--read=/nowhere/x.json"], "/nowhere/x.json cannot be read"),
        (["--torch=maybe"], "invalid choice"),
    ],
)
def test_bad_options_are_one_line(arguments, said, capsys):
    with kept_logging():
        assert command.main(arguments) == 1
    assert said in only_error(capsys.readouterr().err)


def test_a_file_of_something_else_is_one_line(tmp_path, capsys):
    (tmp_path / "x.json").write_text("[1]")
    with kept_logging():
        assert command.main([f"--read={tmp_path / 'x.json'}"]) == 1
    assert "was not written by this program" in only_error(capsys.readouterr().err)
    report(row()).write(tmp_path / "y.json")
    with kept_logging():
        assert command.main([f"--read={tmp_path / 'y.json'}", "--plot=z.png"]) == 1
    assert "--rooms=growth" in only_error(capsys.readouterr().err)


class NoBench:
    """Rooms tell it what they would measure; nothing is measured."""

    def __init__(self, platform):
        self.settings, self.platform, self.torch = Settings(), platform, True
        self.about = {OURS: {"devices": ["one"]}}
        self.variants = {"default layout": {}}

    def weights(self, precision="float32"):
        return precision

    def pictures(self):
        return Pictures({}, pathlib.Path("nowhere"), [[8, 8]] * 100)

    def once(self, *_, **__):
        return Once(1.0, 0.1, 0.1, 0.8, 1, 2, {})

    def compare(self, key, title, task, *, precision, **_):
        return Row(key, title, precision, self.platform, "seconds", Values((1.0,)))

    def compare_fresh(self, key, title, ours, torch, **_):
        return self.compare(key, title, "", precision="")


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_every_target_has_its_row(platform, monkeypatch):
    bench = NoBench(platform)
    for name in ("large", "first_count"):  # they write pictures
        found = bench.compare(f"prediction/{name}", "", "", precision="")
        monkeypatch.setattr(prediction, f"_{name}", lambda _, found=found: found)
    rows = [row for room in ROOMS.values() for row in room(bench)]
    assert {key for where, key in TARGETS if where == platform} <= {row.key for row in rows}
    assert len({row.key for row in rows}) == len(rows)
    assert {row.room for row in rows} | {"memory"} == set(ROOMS)
    names = [curve.name for curve in GROWTH["growth"](bench)]
    assert names == ["pictures", "pixels", "batch", "devices"]


def test_convolutions_are_those_of_the_cascade():
    made = inputs.convolution(2, 6, 7, 3, (4, 5))
    x, kernel, gradient = (array.astype(np.float64) for array in made)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    output, of_input, of_kernel = 0.0, 0.0, 0.0
    for i in range(3):
        for j in range(3):
            seen = padded[:, i : i + 6, j : j + 7]
            output += np.einsum("bhwi,io->", seen, kernel[i, j])
            of_kernel += np.einsum("bhwi,bhwo->", seen, gradient)
            # where the pixel that was seen lies inside the picture
            rows, columns = (slice(max(0, 1 - k), n - max(0, k - 1)) for k, n in ((i, 6), (j, 7)))
            of_input += np.einsum("bhwo,io->", gradient[:, rows, columns], kernel[i, j])
    spec = {"batch": 2, "height": 6, "width": 7, "kernel": 3, "channels": (4, 5)}
    for part, expected in (("forward", output), ("gradients", of_input + of_kernel)):
        task = ours.convolution("float32", **spec, part=part)
        task.run()
        task.wait()
        assert task.result() == {"sum": pytest.approx(expected, rel=1e-5)}


def test_sides_that_do_not_find_the_same_are_told():
    mine = {"loss": 1.0, "number": 3, "shape": [1]}
    found = {"close": {"loss": 1.0005, "number": 4}, "far": {"loss": 1.002}, "wild": {"loss": nan}}
    said = disagreements(mine, found, "float32")
    assert [line.split("(")[1].split(")")[0] for line in said] == ["far", "wild"]
    assert disagreements(mine, found, "bfloat16") == said[1:]
    assert disagreements({}, found, "") == []


def test_operations_are_those_of_the_models_layers():
    params = released.shapes("cmtl")
    sizes = [
        math.prod(layer["kernel"].shape)
        for stage in ("shared", "prior", "density", "decoder")
        for name, part in params[stage].items()
        if (layer := part.get("conv", part)).get("kernel") is not None
    ]
    assert sorted(sizes) == sorted(x.kernel**2 * x.inputs * x.outputs for x in operations.LAYERS)
    head = [math.prod(params["head"][f"fc{i}"]["kernel"].shape) for i in (1, 2, 3)]
    reduce = 32 * 32 * math.prod(params["head"]["reduce"]["conv"]["kernel"].shape)
    assert operations.HEAD == 2 * (sum(head) + reduce)
    # By hand: 9x9 from 1 to 16 maps on 8x12 pixels; the gradient of the picture is not needed.
    first = 2 * 81 * 16 * 8 * 12
    assert operations.train_step(1, 8, 12) == 3 * operations.forward(1, 8, 12) - first
    assert operations.forward(3, 8, 12) == 3 * operations.forward(1, 8, 12)


@pytest.mark.parametrize("memory", [2**40, 0])
def test_a_map_is_held_against_the_picture_in_one_piece(memory, tmp_path):
    weights, path = tmp_path / "x.h5", tmp_path / "x.png"
    released_files.write(weights, released_files.arrays("cmtl"))
    Image.fromarray(inputs.picture(480, 32)).save(path)
    density = np.asarray(cmtl_jax.load(weights)(path).density)
    spoilt = density.copy()
    spoilt[60, 7] += density[:60].max() / 2

    def compared(found):
        np.save(tmp_path / "x.npy", found)
        task = ours.whole(str(weights), str(path), str(tmp_path / "x.npy"), memory)
        task.run()
        return task.result()

    result = compared(density)
    assert result["difference"] <= 1e-5
    # Without memory the upper quarter, less the rows that see what was cut away.
    assert result["rows"] == (480 if memory else 120 - 56)
    assert compared(spoilt)["difference"] >= 1e-2


def test_a_side_that_fails_says_why_and_goes_on():
    with Side("ours", {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": None}) as side:
        with pytest.raises(SideError, match="ours: UserError: no weights at nowhere"):
            side.prepare("x", "predict", weights="nowhere", precision="float32")
        before = side.prepare("x", "matmul", precision="float32", side=16)
        assert before["imported_bytes"] > 2**20
        assert side.run("x") > 0
        assert side.peak() >= before["imported_bytes"]
        assert side.alive
        os.kill(side._process.pid, signal.SIGKILL)
        with pytest.raises(SideError, match="killed"):
            side.run("x")
        assert not side.alive


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "cmtl_jax.benchmark", "--trial", *arguments],
        cwd=ROOT,
        env=variables({"JAX_PLATFORMS": "cpu", "XLA_FLAGS": None}),
        capture_output=True,
        text=True,
        timeout=900,
    )


def test_a_trial_of_one_room(tmp_path):
    done = run(
        "--torch=no", "--rooms=model", "--precisions=float32", f"--json={tmp_path / 'x.json'}"
    )
    assert done.returncode == 0, done.stderr
    found = Report.read(tmp_path / "x.json")
    assert [row.key for row in found.rows] == ["model/2/float32"]
    assert found.rows[0].ours.median > 0 and not found.rows[0].torch
    assert done.stdout == render.text(found)
    assert "TRIAL" in done.stdout and "PyTorch: not measured" in done.stdout


@pytest.mark.slow
def test_a_trial_of_all_rooms(tmp_path):
    done = run("--torch=no", f"--json={tmp_path / 'x.json'}", f"--plot={tmp_path / 'x.png'}")
    assert done.returncode == 0, done.stderr
    found = Report.read(tmp_path / "x.json")
    assert {row.room for row in found.rows} == set(ROOMS)
    large = next(row for row in found.rows if row.key == "prediction/large")
    assert large.details["difference"] <= 1e-4
    assert large.details["rows"] == large.details["of_rows"] == 1800
    assert [curve.name for curve in found.curves] == ["pictures", "pixels", "batch", "devices"]
    assert Image.open(tmp_path / "x.png").format == "PNG"
