"""The loop: every job gets a record once, whatever happens to its worker."""

import io
from dataclasses import replace

import pytest
from rich.console import Console
from tests.bench.tasks import Here, conditions

from ttctune.bench.engine import Advanced, Done, Lost
from ttctune.bench.grid import jobs_of
from ttctune.bench.progress import Progress
from ttctune.bench.record import read_record
from ttctune.bench.run_job import failed, record_of
from ttctune.bench.runner import run_grid
from ttctune.errors import RecordError


@pytest.fixture
def run(tmp_path, tasks, model):
    """Run a grid of two tasks and two methods here; returns outcome, engine and what was printed."""

    def go(instead=lambda job: None, methods=("linear", "norm"), seeds=1, epochs=2, slots=1, do=None):
        common = conditions(model, epochs=epochs)
        engine = Here(common, slots, instead, do)
        text = io.StringIO()
        progress = Progress(console=Console(file=text, soft_wrap=True))
        outcome = run_grid(jobs_of(tasks, methods, seeds, "val"), common, tmp_path, engine, progress)
        return outcome, engine, text.getvalue()

    return go


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_grid_leaves_one_file_a_job_and_nothing_is_done_twice(run, tmp_path):
    outcome, _, _ = run(do=record_of)
    assert len(outcome.records) == 4 and not outcome.before and not outcome.failed
    before = files(tmp_path)
    assert set(before) == {f"{task}/{method}/seed0.json" for task in ("ants", "bees") for method in ("linear", "norm")}
    assert [read_record(tmp_path / r.path) for r in outcome.records] == outcome.records
    outcome, engine, _ = run()
    assert not engine.started and len(outcome.before) == 4 and not outcome.records
    assert files(tmp_path) == before


def test_a_grid_grows_by_methods_and_seeds(run, tmp_path):
    run(methods=("linear",))
    before = files(tmp_path)
    outcome, _, _ = run(seeds=2)
    assert (len(outcome.before), len(outcome.records)) == (2, 6)
    assert files(tmp_path).items() >= before.items()


def test_a_job_is_lost_once_and_then_done(run):
    losses = []

    def lose_first(job):
        if len(losses) == 2:
            return None
        losses.append(job)
        return Lost(job, "its process was ended by SIGKILL")

    outcome, engine, text = run(lose_first, slots=2)
    assert len(outcome.records) == 4 and not outcome.failed and len(engine.started) == 6
    assert "linear on ants, seed 0: its process was ended by SIGKILL; it is started again" in text


def test_a_job_whose_worker_dies_twice_is_recorded_as_failed_and_the_others_are_done(run, tmp_path):
    def lose(job):
        return Lost(job, "its process was ended by SIGKILL") if job.method == "norm" else None

    outcome, engine, text = run(lose)
    assert len(engine.started) == 6
    assert [(r.method, r.task) for r in outcome.failed] == [("norm", "ants"), ("norm", "bees")]
    reason = read_record(tmp_path / "ants/norm/seed0.json").failed
    assert reason == "its worker died 2 times; the last time its process was ended by SIGKILL"
    assert f"norm on ants, seed 0  failed: {reason}" in text
    again, engine, _ = run()
    assert [job.method for job in engine.started] == ["norm", "norm"] and not again.failed


def test_a_lost_machine_is_not_the_fault_of_its_jobs(run):
    left = [5]

    def lose(job):
        left[0] -= 1
        return Lost(job, "its node was lost", with_machine=True) if left[0] >= 0 else None

    outcome, engine, _ = run(lose)
    assert not outcome.failed and len(engine.started) == 4 + 5


def test_a_job_that_fails_is_listed_with_its_reason(run, model):
    def fail(job):
        return Done(job, failed(job, conditions(model), "a loss of nan")) if job.task.name == "bees" else None

    outcome, _, text = run(fail)
    assert {(r.task, r.failed) for r in outcome.failed} == {("bees", "a loss of nan")}
    assert text.count("failed: a loss of nan") == 2


def test_a_grid_that_is_interrupted_keeps_what_is_done(run, tmp_path):
    def interrupt(job):
        if job.task.name == "bees":
            raise KeyboardInterrupt
        return

    with pytest.raises(KeyboardInterrupt):
        run(interrupt)
    assert set(files(tmp_path)) == {"ants/linear/seed0.json", "ants/norm/seed0.json"}
    outcome, _, _ = run()
    assert (len(outcome.before), len(outcome.records)) == (2, 2)


def test_results_with_other_settings_are_not_taken_for_done(run):
    run(methods=("norm",))
    with pytest.raises(RecordError, match="made with tune_epochs"):
        run(methods=("norm",), epochs=3)


def test_a_damaged_record_is_named_and_not_replaced(run, tmp_path):
    run()
    (tmp_path / "ants/norm/seed0.json").write_text("{")
    with pytest.raises(RecordError, match=r"ants/norm/seed0\.json is damaged"):
        run()
    assert (tmp_path / "ants/norm/seed0.json").read_text() == "{"


def test_advances_are_shown_and_change_nothing(run):
    seen = []

    def advance_first(job):
        if job in seen:
            return None
        seen.append(job)
        return Advanced(job, 0.5)

    outcome, engine, _ = run(advance_first)
    assert len(outcome.records) == 4 and len(engine.started) == 4


def test_a_task_that_changed_its_group_is_refused(run, tasks, tmp_path, model):
    run()
    common = conditions(model)
    moved = [replace(task, group="aerial") for task in tasks]
    with pytest.raises(RecordError, match=r"of the group 'none'; expected 'aerial'"):
        run_grid(jobs_of(moved, ["linear"], 1, "val"), common, tmp_path, Here(common), Progress(quiet=True))
