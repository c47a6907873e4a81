"""The grid: which jobs there are, and which of them are done."""

import pytest
from tests.bench.records import record
from tests.bench.tasks import conditions

from ttctune.bench.grid import Job, check_methods, check_settings, done_before, jobs_of
from ttctune.bench.record import write_record
from ttctune.bench.suites import FOLDS
from ttctune.errors import RecipeError, RecordError
from ttctune.recipe import SELECTION


def test_a_grid_stopped_early_is_a_whole_table_of_fewer_seeds(tasks):
    jobs = jobs_of(tasks, ["linear", "norm"], 3, "val")
    assert [job.seed for job in jobs] == [0] * 4 + [1] * 4 + [2] * 4
    assert len({job.path(tasks[0].path) for job in jobs}) == 12


def test_cross_validation_has_a_job_for_each_fold(tasks):
    jobs = jobs_of(tasks, ["linear"], 2, "cv")
    assert len(jobs) == 2 * 2 * FOLDS
    assert {job.fold for job in jobs} == set(range(FOLDS))


def test_few_folds_of_some_seeds_are_different_ones(tasks):
    jobs = jobs_of(tasks, ["linear"], 6, "cv", folds=2)
    assert [[j.fold for j in jobs if j.seed == s and j.task is tasks[0]] for s in (0, 1, 4, 5)] == [
        [0, 1],
        [1, 2],
        [4, 0],
        [0, 1],
    ]
    assert len(jobs) == 6 * 2 * 2


def test_an_unknown_method_is_answered_with_near_names():
    assert check_methods(["ttc", "linear", "ttc"]) == ("ttc", "linear")
    with pytest.raises(RecipeError, match="try linear"):
        check_methods(["ttc", "linaer"])


def test_a_failed_job_is_not_done(tmp_path, tasks):
    job = Job(tasks[0], "val", "norm", 0)
    assert done_before(job, tmp_path) is None
    write_record(tmp_path, record(task="ants", failed="it broke"))
    assert done_before(job, tmp_path) is None
    write_record(tmp_path, record(task="ants"))
    assert done_before(job, tmp_path) == record(task="ants")


def test_a_record_made_with_other_settings_does_not_count(tmp_path):
    check_settings(record(), {"learning_rate": 0.01, "batch_size": 32}, tmp_path)
    with pytest.raises(RecordError, match=r"made with learning_rate = 0\.01; expected 0\.02"):
        check_settings(record(), {"learning_rate": 0.02}, tmp_path)


@pytest.mark.parametrize("then", [(), ("fc1",)])
def test_a_family_that_has_only_some_of_the_default_gates_is_done_all_the_same(tmp_path, then):
    made = record(settings={"gates": list(then), "sites": ["attn", "mlp"]})
    check_settings(made, {"gates": ["qkv", "fc1"], "sites": ["attn", "mlp"]}, tmp_path)


def test_a_record_from_before_there_were_gates_was_made_without_them(tmp_path):
    check_settings(record(settings={}), {"gates": []}, tmp_path)
    with pytest.raises(RecordError, match=r"made with gates = \[\]"):
        check_settings(record(settings={}), {"gates": ["qkv", "fc1"]}, tmp_path)


@pytest.mark.parametrize(("then", "now"), [(["fc1"], ["fc1", "mlp"]), (["attn"], ["qkv", "fc1"]), (["fc1"], [])])
def test_other_gates_are_other_settings(tmp_path, then, now):
    with pytest.raises(RecordError, match="made with gates"):
        check_settings(record(settings={"gates": then}), {"gates": now}, tmp_path)


def test_the_record_of_a_job_says_where_its_dial_stood(tasks, model):
    own, other = (Job(tasks[0], "val", "ttc", 0, dial=dial) for dial in (None, 0.5))
    assert conditions(model).settings(own)["channels"] == 0.125
    assert conditions(model).settings(other)["channels"] == 0.5
    assert conditions(model).recipe(other).channels == 0.5


@pytest.mark.parametrize(("method", "selects"), [("ttc", True), ("sct", True), ("lora", False), ("full", False)])
def test_only_a_method_that_selects_channels_has_the_settings_of_a_selection(tasks, model, method, selects):
    settings = conditions(model).settings(Job(tasks[0], "val", method, 0))
    assert all((name in settings) == selects for name in SELECTION) and "drop_path" in settings
