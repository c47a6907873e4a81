"""The demo from its command to its table, on pictures and epochs too few to learn from."""

import json
import sys

import pytest

import ttctune
from ttctune.bench.methods import METHODS
from ttctune.demo import __main__ as demo
from ttctune.demo.comparison import COMPARED, Job, Result, Size
from ttctune.demo.table import verdict
from ttctune.demo.tasks import TASKS
from ttctune.errors import DataError

TINY = Size(train=80, val=60, epochs=2, pixels=16)


@pytest.mark.slow
def test_the_demo_ends_with_a_table_a_merged_model_and_adapters(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "SMALL", TINY)
    monkeypatch.setattr(sys, "argv", ["demo", "-o", str(tmp_path / "runs"), "--page", str(tmp_path / "demo.md")])
    assert demo.main() == 0
    shown = capsys.readouterr().out
    assert all(METHODS[name].title in shown for name in COMPARED) and all(task in shown for task in TASKS)
    assert "ttctune fit --data DIR" in shown
    assert {folder.name for folder in (tmp_path / "runs").iterdir()} == {*TASKS, "digits-merged"}
    assert ttctune.load(tmp_path / "runs" / "count").parameters["channels"] > 0
    rows = [json.loads(line) for line in (tmp_path / "demo.jsonl").read_text().splitlines()]
    assert len(rows) == len(COMPARED) * len(TASKS)
    assert f"| {METHODS['ttc'].title} |" in (tmp_path / "demo.md").read_text()


def test_results_that_are_there_are_not_made_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "finish", lambda out: None)
    monkeypatch.setattr(demo, "results_of", lambda jobs, *_: iter([Result(job, 0.5, 7) for job in jobs]))
    monkeypatch.setattr(sys, "argv", ["demo", "--page", str(tmp_path / "demo.md")])
    assert demo.main() == 0
    left = []
    monkeypatch.setattr(demo, "results_of", lambda jobs, *_: iter(left.extend(jobs) or ()))
    assert demo.main() == 0 and left == []


def test_the_verdict_names_the_tasks_on_which_layernorm_alone_is_as_good():
    results = [Result(Job(task, m, 0), 0.5 + 0.1 * (m == "ttc"), 1) for task in TASKS for m in COMPARED]
    assert verdict(results) == "two-stage beats LayerNorm only on every task"
    lost = next(i for i, r in enumerate(results) if (r.job.task, r.job.method) == ("count", "ttc"))
    results[lost] = Result(Job("count", "ttc", 0), 0.5, 1)
    assert verdict(results).endswith("only on count")


def test_no_seeds_and_a_missing_library_are_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["demo", "--seeds", "0"])
    assert demo.main() == 1 and "change --seeds" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"no scikit-learn.*pip install"):
        TASKS["digits"](1, 1, 0)
