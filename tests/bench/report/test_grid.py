"""What is said about a grid: marks only where intervals allow, means only where nothing lacks."""

import math
from dataclasses import replace

import numpy as np
import pytest
from tests.bench.results_tree import TASKS, failed, made, write_results

from ttctune.bench.record import packed, packed_names, unpacked, write_record
from ttctune.bench.report.grid import Grid
from ttctune.bench.report.page import as_markdown
from ttctune.bench.report.runs import read_results
from ttctune.bench.report.tables import grid_of as grid_of_table
from ttctune.bench.report.tables import tables_of

ORDER = ("linear", "norm", "full", "ttc")


def grid_of(folder) -> Grid:
    found = read_results(folder)
    return Grid(found.tables[0], found.groups, ORDER)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return grid_of(write_results(tmp_path_factory.mktemp("whole")))


def test_methods_and_tasks_keep_their_order(whole):
    assert whole.methods == list(ORDER)
    assert whole.tasks == list(TASKS)
    assert Grid(whole.runs, whole.groups).methods == sorted(ORDER)


def test_a_column_holds_mean_and_deviation_over_seeds(whole):
    cell = whole.column("lungs")["norm"]
    accuracies = [run.accuracy for run in whole.runs_of("norm", "lungs")]
    assert len(accuracies) == 3
    assert (cell.value, cell.deviation) == pytest.approx((np.mean(accuracies), np.std(accuracies, ddof=1)))
    assert cell.bounds.low < cell.value < cell.bounds.high


def test_only_what_is_better_than_every_other_is_marked_best(whole):
    """The two-stage method is far ahead; of the other three no column has another best."""
    for task in TASKS:
        assert {m: c.mark for m, c in whole.column(task).items()} == {
            "linear": "",
            "norm": "",
            "full": "",
            "ttc": "best",
        }


def test_where_two_lead_together_neither_is_marked_best(tmp_path):
    found = grid_of(write_results(tmp_path, methods=("linear", "norm", "full")))
    marks = {method: cell.mark for method, cell in found.column("lungs").items()}
    assert marks == {"linear": "", "norm": "close", "full": "close"}


def test_both_averages_are_what_they_are_called(whole):
    tasks, groups = (whole.average_column(average)["ttc"] for average in whole.averages)
    means = {task: whole.mean("ttc", task) for task in TASKS}
    assert tasks.value == pytest.approx(np.mean(list(means.values())))
    assert groups.value == pytest.approx(
        np.mean([means["flowers"], means["lungs"], np.mean([means["rooms"], means["shapes"]])])
    )
    single = whole.column("lungs")["ttc"].bounds
    assert tasks.bounds.high - tasks.bounds.low < 0.7 * (single.high - single.low)


def test_a_method_that_lacks_a_task_has_no_average_and_is_compared_on_the_others(tmp_path):
    write_results(tmp_path)
    for seed in range(3):
        write_record(tmp_path, failed("rooms", "norm", seed, "memory ran out"))
    found = grid_of(tmp_path)
    assert set(found.average_column("tasks")) == {"linear", "full", "ttc"}
    assert {row.method: row.tasks for row in found.versus("ttc")} == {"linear": 4, "norm": 3, "full": 4}


def test_the_reference_wins_where_it_is_ahead(whole):
    rows = {row.method: row for row in whole.versus("ttc")}
    assert list(rows) == ["linear", "norm", "full"]
    assert all(row.wins == (4, 0, 0) and row.p < 0.01 for row in rows.values())
    expected = np.mean([whole.mean("ttc", task) - whole.mean("norm", task) for task in TASKS])
    assert rows["norm"].difference.value == pytest.approx(expected) == rows["norm"].over_tasks.value
    assert rows["norm"].difference.low > 0
    against = {row.method: row.wins for row in whole.versus("norm")}
    assert against["ttc"] == (0, 0, 4) and against["full"][1] >= 3


def test_p_values_are_corrected_for_the_number_of_methods(tmp_path, whole):
    alone = grid_of(write_results(tmp_path, methods=("norm", "full"))).versus("full")[0].p
    among = {row.method: row.p for row in whole.versus("full")}
    assert among["norm"] == pytest.approx(alone)  # the largest of three is multiplied by one
    assert min(among.values()) == pytest.approx(3 * 2 / 4001)


def test_only_seeds_that_both_have_are_paired(tmp_path):
    write_results(tmp_path, methods=("norm", "ttc"))
    for task in TASKS:
        (tmp_path / task / "norm/seed2.json").unlink()
    found = grid_of(tmp_path)
    both = [found.cells[method, "lungs"][seed].accuracy for method in ("ttc", "norm") for seed in (0, 1)]
    assert found.difference("ttc", "norm", "lungs") == pytest.approx(np.mean(both[:2]) - np.mean(both[2:]))


def test_seeds_scored_on_other_images_than_the_rest_are_compared_on_their_own(tmp_path):
    write_results(tmp_path, methods=("norm", "ttc"))
    for method in ("norm", "ttc"):
        old = made("lungs", method, 1)
        write_record(tmp_path, old.model_copy(update={"files": packed_names([f"{n}.png" for n in range(120)])}))
    cells = grid_of(tmp_path).column("lungs")
    assert cells["ttc"].mark == "best" and cells["norm"].bounds.low < cells["norm"].value < cells["norm"].bounds.high


def test_a_pair_that_was_scored_on_different_images_gets_no_interval(tmp_path):
    write_results(tmp_path, methods=("norm", "ttc"))
    labels = packed(np.zeros(120))
    other = {"labels": labels, "predictions": labels, "accuracy": 1.0}
    write_record(tmp_path, made("lungs", "norm", 1).model_copy(update=other))
    found = grid_of(tmp_path)
    assert {cell.mark for cell in found.column("lungs").values()} == {"close"}
    assert {cell.mark for cell in found.average_column("tasks").values()} == {"close"}
    (row,) = found.versus("ttc")
    assert row.difference is None and row.p is None and row.wins == (3, 1, 0)
    assert not math.isnan(row.over_tasks.low)


def test_a_method_alone_is_not_marked(tmp_path):
    found = grid_of(write_results(tmp_path, methods=("ttc",)))
    assert {cell.mark for cell in found.column("lungs").values()} == {""}
    assert found.versus("ttc") == []


def test_a_higher_mean_over_more_seeds_is_not_the_best_where_the_common_seed_says_otherwise(tmp_path):
    """The mean of three seeds may be the higher one only because the other method lacks two of them."""
    write_results(tmp_path, methods=("norm", "ttc"))
    for task in TASKS:
        for seed in (1, 2):
            (tmp_path / task / f"ttc/seed{seed}.json").unlink()
        weak = made(task, "linear", 0)
        answers = {name: getattr(weak, name) for name in ("labels", "predictions", "accuracy")}
        write_record(tmp_path, made(task, "norm", 0).model_copy(update=answers))
        for seed in (1, 2):
            strong = packed(unpacked(made(task, "norm", seed).labels))
            best = made(task, "norm", seed).model_copy(update={"predictions": strong, "accuracy": 1.0})
            write_record(tmp_path, best)
    found = grid_of(tmp_path)
    for column in (found.column("lungs"), found.average_column("tasks")):
        assert column["norm"].value > column["ttc"].value
        assert {cell.mark for cell in column.values()} == {"close"}


def test_seeds_that_failed_are_marked_and_their_method_is_never_the_best(tmp_path):
    write_results(tmp_path)
    write_record(tmp_path, failed("rooms", "ttc", 1, "the loss is not finite"))
    found = read_results(tmp_path)
    grid = grid_of_table(found.tables[0], found, ORDER)
    for column in (grid.column("rooms"), grid.average_column("tasks")):
        assert [name for name, cell in column.items() if cell.partial] == ["ttc"] and column["ttc"].mark == "close"
    assert not grid.column("lungs")["ttc"].partial and grid.column("lungs")["ttc"].mark == "best"


def test_a_task_that_every_method_failed_on_leaves_no_average(tmp_path):
    write_results(tmp_path)
    for method in ORDER:
        for seed in range(3):
            write_record(tmp_path, failed("rooms", method, seed, "memory ran out"))
    found = read_results(tmp_path)
    grid = grid_of_table(found.tables[0], found, ORDER)
    assert grid.lacking == {"rooms"} and not grid.average_column("tasks")
    assert "No mean: without any result is rooms." in as_markdown(found, tables_of(found, {}, None))


def test_of_vtab_whatever_is_missing_of_the_19_leaves_no_average(tmp_path):
    write_results(tmp_path)
    found = read_results(tmp_path)
    of_vtab = replace(found, header=found.header.model_copy(update={"suite": "vtab"}))
    assert len(grid_of_table(found.tables[0], of_vtab, ORDER).lacking) == 19
