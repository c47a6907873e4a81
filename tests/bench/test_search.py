"""The search: equal trials for all, on val alone, in a journal that survives."""

from dataclasses import replace

import optuna
import pytest
from PIL import Image
from tests.bench.records import record
from tests.bench.tasks import Here, conditions

from ttctune.bench.engine import Done
from ttctune.bench.grid import Job, jobs_of
from ttctune.bench.progress import Progress
from ttctune.bench.record import read_record
from ttctune.bench.run_job import failed
from ttctune.bench.runner import run_grid
from ttctune.bench.search import JOURNAL, Search
from ttctune.errors import RecipeError, RecordError, TrainingError

TRIALS = 4


@pytest.fixture
def job(tasks):
    return Job(tasks[0], "test", "ttc", 3)


def reached(trial):
    """An accuracy that depends on what was drawn."""
    return record(accuracy=min(1.0, 10 * trial.settings["learning_rate"]))


def finish(search, job):
    """Do all trials that are left; returns what was drawn."""
    drawn = []
    while (trial := search.next_trial(job)) is not None:
        drawn.append((trial.trial, trial.settings, trial.dial))
        search.tell(trial, reached(trial))
    return drawn


def test_the_first_trial_is_the_recipes_own_and_all_are_on_val(tmp_path, job, model):
    search = Search(tmp_path, TRIALS, conditions(model))
    trial = search.next_trial(job)
    assert (trial.split, trial.fold, trial.trial) == ("val", None, 0)
    assert trial.settings == {"learning_rate": 0.01, "weight_decay": 0.01} and trial.dial == 0.125
    search.tell(trial, reached(trial))
    drawn = finish(search, job)
    assert [number for number, _, _ in drawn] == [1, 2, 3]
    assert all(
        1e-3 <= settings["learning_rate"] <= 0.1 and dial in (0.0625, 0.125, 0.25) for _, settings, dial in drawn
    )


def test_the_best_trial_gives_the_settings_and_the_job_says_so(tmp_path, job, model):
    search = Search(tmp_path, TRIALS, conditions(model))
    drawn = finish(search, job)
    _, settings, dial = max(drawn, key=lambda trial: trial[1]["learning_rate"])
    settled = search.settled(job)
    assert (settled.settings, settled.dial) == (settings, dial)
    assert (settled.trials, settled.chosen_by, settled.split, settled.seed) == (TRIALS, "search on val", "test", 3)


def test_an_interrupted_search_goes_on_as_if_it_had_not_stopped(tmp_path, job, model):
    (tmp_path / "whole").mkdir()
    whole = finish(Search(tmp_path / "whole", TRIALS, conditions(model)), job)
    drawn = []
    for _ in range(TRIALS):
        search = Search(tmp_path, TRIALS, conditions(model))
        trial = search.next_trial(job)  # this runner is killed
        again = Search(tmp_path, TRIALS, conditions(model)).next_trial(job)
        assert (again.trial, again.settings, again.dial) == (trial.trial, trial.settings, trial.dial)
        drawn.append((trial.trial, trial.settings, trial.dial))
        search.tell(trial, reached(trial))
    assert drawn == whole
    assert Search(tmp_path, TRIALS, conditions(model)).next_trial(job) is None


def test_a_search_stopped_between_any_two_lines_of_its_journal_ends_in_the_same_settings(tmp_path, job, model):
    def settings_of(search):
        return [(settings, dial) for _, settings, dial in finish(search, job)]

    whole = settings_of(Search(tmp_path, TRIALS, conditions(model)))
    best = Search(tmp_path, TRIALS, conditions(model)).settled(job)
    lines = (tmp_path / JOURNAL).read_bytes().splitlines(keepends=True)
    for number in range(len(lines)):
        (tmp_path / JOURNAL).write_bytes(b"".join(lines[:number]))
        search = Search(tmp_path, TRIALS, conditions(model))
        left = search.left(job)
        assert settings_of(search) == whole[TRIALS - left :], f"after {number} lines"
        settled = search.settled(job)
        assert (settled.settings, settled.dial) == (best.settings, best.dial)


def test_a_journal_cut_off_anywhere_in_its_last_line_is_read(tmp_path, job, model):
    finish(Search(tmp_path, TRIALS, conditions(model)), job)
    content = (tmp_path / JOURNAL).read_bytes()
    last = content.rstrip(b"\n").rfind(b"\n") + 1
    for cut in (last, last + 1, (last + len(content)) // 2, len(content) - 1):
        (tmp_path / JOURNAL).write_bytes(content[:cut])
        (tmp_path / f"{JOURNAL}.lock").touch()
        search = Search(tmp_path, TRIALS, conditions(model))
        assert search.left(job) == 1
        assert [number for number, _, _ in finish(search, job)] == [TRIALS - 1]
        assert search.left(job) == 0


def test_a_trial_that_was_not_drawn_to_the_end_is_none(tmp_path, job, model):
    search = Search(tmp_path, TRIALS, conditions(model))
    study = search._study(job)
    study.ask()  # killed before a value was drawn
    assert search.left(job) == TRIALS
    assert len(finish(search, job)) == TRIALS


def test_diverged_trials_count_and_a_search_of_those_alone_chooses_nothing(tmp_path, job, model):
    search = Search(tmp_path, TRIALS, conditions(model))
    while (trial := search.next_trial(job)) is not None:
        assert search.tell(trial, record(failed="a loss of nan", diverged=True))
    with pytest.raises(TrainingError, match=r"all 4 trials of ttc on ants failed"):
        search.settled(job)


def test_a_trial_that_failed_for_another_reason_is_done_once_more_and_then_counts(tmp_path, job, model):
    search = Search(tmp_path, TRIALS, conditions(model))
    first = search.next_trial(job)
    assert not search.tell(first, record(failed="memory ran out"))
    again = Search(tmp_path, TRIALS, conditions(model))
    assert again.left(job) == TRIALS
    trial = again.next_trial(job)
    assert (trial.trial, trial.settings, trial.dial) == (first.trial, first.settings, first.dial)
    assert again.tell(trial, record(failed="memory ran out")) and again.left(job) == TRIALS - 1


def test_jobs_whose_trial_failed_are_done_by_the_next_call(tmp_path, tasks, model):
    common, jobs = conditions(model), jobs_of(tasks[:1], ["norm"], 2, "val")
    engine = Here(common, instead=lambda job: Done(job, failed(job, common, "memory ran out")))
    progress = Progress(quiet=True)
    outcome = run_grid(jobs, common, tmp_path, engine, progress, Search(tmp_path, 3, common))
    assert len(engine.started) == 1 and len(outcome.failed) == 2 and progress.time_left() == "?"
    assert sum(progress._left.values()) == 0
    assert "tried once more by the same command: memory ran out" in outcome.failed[0].failed
    engine = Here(common)
    outcome = run_grid(jobs, common, tmp_path, engine, Progress(quiet=True), Search(tmp_path, 3, common))
    assert len(engine.started) == 3 + 2 and not outcome.failed


def test_trials_made_with_other_images_are_not_taken_for_ones_own(tmp_path, job, model):
    finish(Search(tmp_path, TRIALS, conditions(model)), job)
    (picture, *_) = sorted((job.task.path / "train").rglob("*.png"))
    content = picture.read_bytes()
    try:
        Image.new("RGB", (8, 8), "red").save(picture)
        with pytest.raises(RecordError, match=r"trials of ttc on ants in .*journal were made with other images"):
            Search(tmp_path, TRIALS, conditions(model)).left(job)
    finally:
        picture.write_bytes(content)
    assert Search(tmp_path, TRIALS, conditions(model)).left(job) == 0


def test_trials_made_with_other_settings_are_not_taken_for_ones_own(tmp_path, job, model):
    finish(Search(tmp_path, TRIALS, conditions(model)), job)
    with pytest.raises(RecordError, match="were made with precision = fp32; expected bf16"):
        Search(tmp_path, TRIALS, conditions(model, precision="bf16")).left(job)


def test_a_task_that_cannot_be_read_fails_and_the_others_are_searched(tmp_path, tasks, model):
    gone = replace(tasks[0], path=tmp_path / "gone")
    common = conditions(model)
    (tmp_path / "results").mkdir()
    jobs, search = jobs_of([gone, tasks[1]], ["norm"], 1, "val"), Search(tmp_path / "results", 2, common)
    outcome = run_grid(jobs, common, tmp_path / "results", Here(common), Progress(quiet=True), search)
    assert [(r.task, r.failed is None) for r in outcome.records] == [("ants", False), ("bees", True)]


def test_every_method_and_task_gets_the_same_number_of_trials(tmp_path, tasks, model):
    common = conditions(model)
    engine = Here(common, slots=2)
    jobs = jobs_of(tasks, ["linear", "norm"], 2, "val")
    progress = Progress(quiet=True)
    outcome = run_grid(jobs, common, tmp_path, engine, progress, Search(tmp_path, 2, common))
    assert len(outcome.records) == 8 and not outcome.failed
    trials = [job for job in engine.started if job.trial is not None]
    assert sorted(job.study for job in trials) == [job for job in sorted({j.study for j in jobs}) for _ in range(2)]
    assert progress.time_left() == "0:00:00"
    for record_ in outcome.records:
        assert (record_.trials, record_.chosen_by) == (2, "search on val")
        best = optuna.load_study(
            study_name=f"{record_.task}/{record_.method}", storage=Search(tmp_path, 2, common)._storage
        ).best_trial
        assert record_.settings["learning_rate"] == best.params["learning_rate"]
    again = run_grid(jobs, common, tmp_path, Here(common), Progress(quiet=True), Search(tmp_path, 2, common))
    assert len(again.before) == 8 and not again.records


def test_jobs_whose_search_failed_are_listed(tmp_path, tasks, model):
    common = conditions(model)
    engine = Here(common, instead=lambda job: Done(job, failed(job, common, "a loss of nan", diverged=True)))
    jobs = jobs_of(tasks[:1], ["norm"], 2, "val")
    outcome = run_grid(jobs, common, tmp_path, engine, Progress(quiet=True), Search(tmp_path, 2, common))
    assert len(engine.started) == 2 and len(outcome.failed) == 2
    assert "all 2 trials of norm on ants failed" in read_record(tmp_path / "ants/norm/seed1.json").failed


def test_a_search_without_optuna_is_refused_in_one_line(tmp_path, model, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(RecipeError, match=r"pip install 'ttctune\[bench\]'"):
        Search(tmp_path, 1, conditions(model))
