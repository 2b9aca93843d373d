"""Lines of metrics.jsonl over crashes and restarts."""

import json
import math

from cmtl_jax.training.writers import MetricsWriter, NoWriter
from cmtl_jax.work_folder import read_jsonl


def test_lines_hold_the_step_and_the_values(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    writer.scalars(3, {"train/loss": 0.5, "train/x": math.nan, "train/y": math.inf})
    writer.close()
    (line,) = read_jsonl(tmp_path / "metrics.jsonl")
    assert line["step"] == 3 and line["train/loss"] == 0.5
    assert line["train/x"] is None and line["train/y"] is None
    assert list((tmp_path / "events").glob("events.out.tfevents.*"))


def test_a_restart_drops_later_lines_and_one_cut_short(tmp_path):
    path = tmp_path / "metrics.jsonl"
    steps = [json.dumps({"step": step, "train/loss": step / 10}) for step in range(1, 7)]
    path.write_text("\n".join(steps) + '\n{"step": 7, "train/lo')
    writer = MetricsWriter(tmp_path, 4)
    writer.scalars(5, {"train/loss": 9.0})
    writer.close()
    lines = read_jsonl(path)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert lines[-1]["train/loss"] == 9.0
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []


def test_a_missing_file_has_no_lines(tmp_path):
    assert read_jsonl(tmp_path / "metrics.jsonl") == []


def test_a_process_that_does_not_write(tmp_path):
    writer = NoWriter()
    writer.scalars(1, {"a": 1.0})
    writer.close()
    assert list(tmp_path.iterdir()) == []
