"""The paper's tables: published numbers, own numbers with their protocol, three formats."""

import json
import math
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
from work_folders import kept_logging, only_error

from cmtl_jax import config as base_config
from cmtl_jax.tables import __main__ as command
from cmtl_jax.tables import published, render, results, table

A, B, UCF = published.PART_A, published.PART_B, published.UCF_CC_50
TEST = {A: 182, B: 316, UCF: 50}


def write(
    workdir: pathlib.Path, data_set=B, split="test", mae=20.0, rmse=30.0, *, seed=0, number=None,
    preset="recommended", model="cmtl", trained_on=None, suffix="", step=70, settings=None, **more
) -> pathlib.Path:  # fmt: skip
    """A work folder with the results of one evaluation and the config of a training."""
    folder = workdir / "eval" / f"{data_set}-{split}{suffix}"
    folder.mkdir(parents=True)
    protocol = {
        "data set": data_set,
        "split": split,
        "pictures": "whole",
        "ground truth": "number of head points",
        "weights": str(workdir),
        "selection": "best MAE on held-out pictures (10%)",
        "trained on": f"{trained_on or data_set}, preset {preset}, model {model}, seed {seed}",
        "training pictures sha256": "0123456789abcdef" * 4,
        "evaluated pictures sha256": "fedcba9876543210" * 4,
    }
    metrics = {
        "mae": mae,
        "rmse": rmse,
        "num_images": number or TEST.get(data_set, 3),
        "checkpoint_step": step,
        "protocol": protocol | more.pop("protocol", {}),
    }
    (folder / "metrics.json").write_text(json.dumps(metrics | more))
    config = base_config.base()
    base_config.apply_preset(config, preset)
    config.seed = seed
    config.model.name = model
    config.update_from_flattened_dict(settings or {})
    (workdir / "config.json").write_text(json.dumps(config.to_dict()))
    return workdir


@pytest.fixture
def tables(capsys):
    """Calls the command; gives status, standard output and standard error."""

    def call(*arguments):
        with kept_logging():
            status = command.main(list(map(str, arguments)))
        return status, *capsys.readouterr()

    return call


def of(number: str, *workdirs: pathlib.Path) -> table.Table:
    found = [result for workdir in workdirs for result in results.read(workdir)]
    return table.build(published.TABLES[number], found)


def own(built: table.Table) -> dict[str, list[table.Row]]:
    """The rows below the published ones; 'own' and 'other' by the heading."""
    names = {table._OWN: "own", table._OTHER: "other"}
    return {names[heading]: rows for heading, rows in built.sections[1:]}


# Published numbers.


def test_published_numbers_are_those_of_the_paper(shared):
    """The paper's text gives each table as columns of words and numbers one after the other."""
    text = (shared / "paper.txt").read_text()
    first = text[text.rindex("\nPart A\nMAE MSE") : text.index("\nannotated images of different")]
    numbers = [float(x) for x in re.findall(r"\d+\.\d", first)]
    assert len(numbers) == 16
    part_a, part_b = np.array(numbers).reshape(2, 4, 2)
    rows = published.TABLE_1.rows
    assert np.array_equal(part_a, [row.numbers[A] for row in rows])
    assert np.array_equal(part_b, [row.numbers[B] for row in rows])
    second = text[text.rindex("\nProposed method\n\nMAE\n") : text.index("\n5. Conclusions")]
    mae, rmse = np.array([float(x) for x in re.findall(r"\d+\.\d", second)]).reshape(2, 6)
    rows = published.TABLE_2.rows
    assert np.array_equal(np.transpose([mae, rmse]), [row.numbers[UCF] for row in rows])
    for one in (*published.TABLE_1.rows, *published.TABLE_2.rows):
        for word in one.method.replace("(cascaded CNN)", "").split():
            assert word in text


def test_what_is_odd_is_said():
    """No RMSE is below the MAE of the same errors; such rows say so, and no others."""
    for one in published.TABLES.values():
        for row in one.rows:
            impossible = any(rmse < mae for mae, rmse in row.numbers.values())
            assert impossible == any("no RMSE" in note for note in row.notes), row.method
        assert any("an RMSE" in note for note in one.notes)
    (idrees,) = [row for row in published.TABLE_2.rows if "Idrees" in row.method]
    assert "468.0 / 590.3" in idrees.notes[0]


def test_without_work_folders_the_published_numbers_alone(tables):
    status, out, err = tables()
    assert (status, err) == (0, "")
    for number in ("181.8", "152.4", "31.1", "322.8", "397.9"):
        assert number in out
    assert "cmtl_jax" not in out
    assert "Table 1" in out and "Table 2" in out
    status, out, _ = tables("--table=2")
    assert status == 0 and "Table 1:" not in out and "Walach" in out


# Own numbers.


def test_a_result_stands_in_its_column_with_its_protocol(tmp_path):
    a = write(tmp_path / "a", A, mae=101.26, rmse=152.04, step=1700)
    b = write(tmp_path / "b", B, mae=17.0, rmse=29.0, seed=4)
    built = of("1", a, b)
    (row,) = own(built)["own"]
    assert row.label == "Cascaded CNN, recommended" and set(own(built)) == {"own"}
    assert row.cells[A].mae == table.Number(101.26) and row.cells[B].rmse == table.Number(29.0)
    footnote = built.footnotes[row.cells[A].note]
    for part in (
        "shanghaitech-part_a, test, 182 pictures", "ground truth: number of head points",
        "selection: best MAE on held-out pictures (10%)", "seed 0", "step 1700",
        "sha256 01234567", str(tmp_path / "a"),
    ):  # fmt: skip
        assert part in footnote, part
    assert "seed 4" in built.footnotes[row.cells[B].note]
    assert not own(of("2", a, b))


def test_means_of_weights_are_told(tmp_path):
    mean_of = {"mean of the weights of": "a (step 3), b (step 7)"}
    run = write(tmp_path / "run", step=None, protocol=mean_of)
    released = write(tmp_path / "x", trained_on="not known", step=None, protocol=mean_of)
    text = " ".join(render.text(of("1", run, released)).split())
    assert text.count("mean of the weights of a (step 3), b (step 7)") == 2
    assert "released weights a (step 3), b (step 7)" in text and "step not known" not in text


def test_other_pictures_never_stand_among_the_test_results(tmp_path, tables):
    folders = [
        write(tmp_path / "val", A, "val", number=30, mae=55.5, rmse=66.6),
        write(tmp_path / "train", A, "train", number=270),
        write(tmp_path / "part", A, "test", number=181),
        write(tmp_path / "elsewhere", A, "test", trained_on=B),
        write(tmp_path / "fold", "ucf_cc_50-fold_2", "test", number=10),
    ]
    for number in ("1", "2"):
        assert set(own(of(number, *folders))) == {"other"}
    said = [
        built.footnotes[row.cells[key].note]
        for built in (of("1", *folders), of("2", *folders))
        for row in own(built)["other"]
        for key in row.cells
    ]
    assert len(said) == 5 and all("NOT the published protocol" in one for one in said)
    for reason in (
        "held out of the training pictures", "training pictures;", "181 of the 182 test pictures",
        f"trained on {B};", "fold 2 test pictures alone",
    ):  # fmt: skip
        assert any(reason in one for one in said), reason
    _, out, _ = tables(folders[0], "--table=1")
    below = out[out.index("55.5") - 300 : out.index("55.5")]
    assert "ANOTHER PROTOCOL: not comparable" in below


def test_seeds_become_mean_and_deviation(tmp_path):
    maes = [17.0, 18.5, 21.0]
    folders = [
        write(tmp_path / str(i), mae=mae, rmse=mae + 10, seed=i, step=10 * i)
        for i, mae in enumerate(maes)
    ]
    built = of("1", *folders)
    (row,) = own(built)["own"]
    cell = row.cells[B]
    assert cell.mae.runs == 3
    assert math.isclose(cell.mae.value, np.mean(maes))
    assert math.isclose(cell.mae.deviation, np.std(maes, ddof=1))
    assert math.isclose(cell.rmse.deviation, np.std(maes, ddof=1))
    footnote = built.footnotes[cell.note]
    for part in ("3 seeds", "18.5 / 28.5", "seeds 0, 1, 2", "step 0, 10, 20", str(folders[1])):
        assert part in footnote
    deviation = f"{np.std(maes, ddof=1):.1f}"
    assert f"18.8 ± {deviation} (n=3)" in render.text(built)
    assert rf"18.8 $\pm$ {deviation} (n=3)" in render.latex(built)


def test_what_is_not_the_same_system_is_not_averaged(tmp_path):
    folders = [
        write(tmp_path / "0", mae=10.0),
        write(tmp_path / "1", mae=11.0, seed=1, settings={"crop.height": 128}),
        write(tmp_path / "2", mae=12.0, seed=2, protocol={"selection": "step 70"}),
        write(tmp_path / "3", mae=13.0, seed=0),  # a seed that comes again
        write(tmp_path / "4", mae=14.0, seed=3, preset="paper"),
        write(tmp_path / "5", mae=15.0, seed=4, model="single_stage"),
        write(tmp_path / "6", mae=16.0, seed=5, settings={"model.prior_fusion": "film"}),
        write(tmp_path / "7", mae=17.0, seed=6, model="mcnn"),
    ]
    built = of("1", *folders)
    rows = own(built)["own"]
    assert [(row.label, row.cells[B].mae) for row in rows] == [
        ("Cascaded CNN, paper", table.Number(14.0)),
        ("Cascaded CNN, recommended", table.Number(10.0)),
        ("Cascaded CNN, recommended", table.Number(11.0)),
        ("Cascaded CNN, recommended", table.Number(12.0)),
        ("Cascaded CNN, recommended", table.Number(13.0)),
        ("Cascaded CNN, recommended, prior_fusion=film", table.Number(16.0)),
        ("MCNN, recommended", table.Number(17.0)),
        ("Single stage CNN, recommended", table.Number(15.0)),
    ]
    notes = [built.footnotes[row.cells[B].note] for row in rows]
    assert "with crop.height=96" in notes[1] and "with crop.height=128" in notes[2]
    # Where they ran and what they logged makes no other system.
    same = {"dataset.num_workers": 4, "parallel": "pmap", "train.log_every": 3}
    more = write(tmp_path / "8", mae=18.0, seed=9, settings=same)
    (row,) = own(of("1", folders[0], more))["own"]
    assert row.cells[B].mae.runs == 2


def test_a_cross_validation(tmp_path):
    folds = {
        f"fold_{i}": {"mae": 100.0 * i, "rmse": 110.0 * i, "checkpoint_step": i}
        for i in range(1, 6)
    }
    workdir = write(
        tmp_path / "w", UCF, "cross-validation", mae=300.0, rmse=365.0, step=None, folds=folds,
        rmse_mean_of_folds=330.0, trained_on="ucf_cc_50 (the other four folds)",
        protocol={
            "folds": "5 (sequential: pictures 1-10, 11-20, ...)",
            "training pictures sha256": "; ".join(f"fold_{i} {i:064d}" for i in range(1, 6)),
        },
    )  # fmt: skip
    fold_1 = workdir / "fold_1"
    fold_1.mkdir()
    (workdir / "config.json").rename(fold_1 / "config.json")
    built = of("2", workdir)
    (row,) = own(built)["own"]
    assert (row.cells[UCF].mae.value, row.cells[UCF].rmse.value) == (300.0, 365.0)
    footnote = built.footnotes[row.cells[UCF].note]
    for part in (
        "pooled over all pictures, mean of the folds' 330.0", "300.0 / 330.0", "1-10, 11-20",
        "step 1/2/3/4/5", "sha256 00000000/00000000",
    ):  # fmt: skip
        assert part in footnote, part
    assert not own(of("1", workdir))


def test_weights_from_elsewhere_have_not_this_folders_settings(tmp_path):
    """A released file says neither data nor seed; the folder's own config is not its."""
    workdir = write(
        tmp_path / "w", suffix="-from-mcnn.h5", model="mcnn", step=None,
        settings={"model.up_maps": (16, 18)},
        protocol={
            "weights": "somewhere/mcnn.h5",
            "trained on": "not known, preset reference, model mcnn, seed 0",
            "training pictures sha256": "not known",
        },
    )  # fmt: skip
    built = of("1", workdir)
    (row,) = own(built)["own"]
    assert row.label == "MCNN, released weights mcnn.h5"
    footnote = built.footnotes[row.cells[B].note]
    assert "step not known" in footnote and "trained on not known" in footnote


def test_weights_that_take_over_in_close_crowds_are_named(tmp_path):
    """What two sets of weights count together is no number of the run, nor a seed of it."""
    workdir = write(tmp_path / "w", mae=20.0)
    close = {"weights where people stand close": "sha"}
    write(workdir, suffix="-with-sha", mae=19.0, protocol=close)
    rows = {row.label: row.cells[B].mae.value for row in own(of("1", workdir))["own"]}
    label = "Cascaded CNN, recommended"
    assert rows == {label: 20.0, f"{label}, with sha where people stand close": 19.0}


def test_bad_folders_are_one_line(tmp_path, tables):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "none"):
        status, out, err = tables(path)
        assert (status, out) == (1, "") and f"no results in {path}" in only_error(err)
    damaged = write(tmp_path / "damaged")
    file = damaged / "eval" / f"{B}-test" / "metrics.json"
    for text, part in (
        ("{", "JSONDecodeError"),
        ("[]", "damaged"),
        (json.dumps({"mae": 1.0}), "'protocol'"),
    ):
        file.write_text(text)
        status, _, err = tables(damaged)
        assert status == 1 and part in only_error(err) and str(file) in err
    impossible = write(tmp_path / "impossible", mae=30.0, rmse=20.0)
    status, _, err = tables(impossible)
    assert status == 1 and "MAE of 30 and an RMSE of 20" in only_error(err)
    (tmp_path / "file").write_text("not a folder")
    status, _, err = tables("--format=html")
    assert status == 1 and "html" in only_error(err)
    status, _, err = tables(f"--out={tmp_path}/file/table.md")
    assert status == 1 and "choose another file with --out" in only_error(err)


def test_other_data_sets_are_left_out_and_said(tmp_path, tables):
    status, out, err = tables(write(tmp_path / "s", "synthetic", mae=7.77))
    assert status == 0 and "7.8" not in out and "synthetic is in neither table" in err


def test_a_folder_named_twice_counts_once(tmp_path, tables):
    workdir = write(tmp_path / "w", mae=12.34)
    _, out, _ = tables(workdir, workdir / ".." / "w", "--table=1")
    assert len(re.findall(r"\b12\.3\b", out)) == 1 and "±" not in out


# Formats.

NASTY = "run_1 & 50% #2 {x} $y^2 ~ \\z|w <b>*é*</b>"


@pytest.fixture
def full(tmp_path):
    """Both tables with rows of every kind and names that each format must escape."""
    folders = [
        write(tmp_path / NASTY.replace("/", ""), A, mae=100.0, rmse=150.0),
        write(tmp_path / "b0", B, seed=0),
        write(tmp_path / "b1", B, seed=1, mae=22.0),
        write(tmp_path / "val", A, "val", number=30, settings={"model.up_maps": (16, 18)}),
        write(tmp_path / "fold", "ucf_cc_50-fold_2", "test", number=10),
    ]
    return [of(number, *folders) for number in ("1", "2")]


def test_text_is_aligned(full):
    for built in full:
        lines = render.text(built).split("(a)\n")[0].splitlines()
        rule = next(line for line in lines if set(line) == {"-"})
        rows = [line for line in lines if line.startswith("  ") and not line.startswith("   ")]
        rows = [line for line in rows if re.search(r"(\d|–|\))$", line)]
        assert len(rows) >= 6
        assert {len(line) for line in rows} == {len(rule)}


def test_markdown_is_a_table_of_one_width(full):
    for built in full:
        page = render.markdown(built)
        lines = [line for line in page.splitlines() if line.startswith("|")]
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {
            2 * len(built.columns) + 2
        }
        marks = set(re.findall(r"^- <sup>(\w+)</sup>", page, re.MULTILINE))
        used = set(re.findall(r"<sup>(\w+)</sup>", "\n".join(lines)))
        assert marks == used == set(built.footnotes)
    assert r"run\_1 & 50% \#2 {x} $y^2 \~ \\z\|w \<b\>\*é\*\<b\>" in render.markdown(full[0])


def test_latex_is_balanced(full):
    for built in full:
        page = render.latex(built)
        bare = page.replace(r"\textbackslash{}", "").replace(r"\{", "").replace(r"\}", "")
        assert bare.count("{") == bare.count("}")
        body = page[page.index(r"\toprule") : page.index(r"\bottomrule")]
        for line in body.splitlines():
            if line.endswith(r"\\") and r"\multicolumn" not in line:
                assert len(re.findall(r"(?<!\\)&", line)) == 2 * len(built.columns), line
        assert page.isascii()
    for escaped in (r"run\_", r"\& 50\% \#2 \{x\} \$y\textasciicircum{}2", r"\textbackslash{}z"):
        assert escaped in render.latex(full[0])


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_compiles(full, tmp_path):
    document = tmp_path / "tables.tex"
    document.write_text(
        "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
        + "\n".join(map(render.latex, full))
        + "\\end{document}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", document.name],
        cwd=tmp_path, capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert document.with_suffix(".pdf").stat().st_size > 1000


@pytest.mark.parametrize("form", ["text", "markdown", "latex"])
def test_a_file_in_place_of_the_screen(tmp_path, tables, form):
    workdir = write(tmp_path / "w", mae=12.34)
    _, shown, _ = tables(workdir, f"--format={form}")
    status, out, err = tables(workdir, f"--format={form}", f"--out={tmp_path / 'table'}")
    assert (status, out, err) == (0, "", "")
    assert (tmp_path / "table").read_text(encoding="utf-8") == shown
    assert "12.3" in shown and "101.3" in shown


def test_letters_go_on_after_z():
    letters = [table._letters(i) for i in range(30)]
    assert letters[:2] == ["a", "b"] and letters[25:28] == ["z", "aa", "ab"]
