"""What is read of a results folder: folds joined, protocols apart, contradictions refused."""

import json

import numpy as np
import pytest
from tests.bench.records import protocol, record
from tests.bench.results_tree import EPOCHS, failed, made, write_results

from ttctune.bench.record import packed, packed_names, write_record
from ttctune.bench.report.rows import rows_of
from ttctune.bench.report.runs import differences, read_results
from ttctune.bench.report.tables import not_run
from ttctune.bench.results_folder import SUITE, Header
from ttctune.errors import RecordError


@pytest.fixture
def results(tmp_path):
    return write_results(tmp_path / "results", tasks={"flowers": "natural"}, seeds=2)


def folded(seed, fold, right, **changes):
    """One fold of four images, the first `right` of them answered rightly; files tell the images apart."""
    predictions = np.array([0] * right + [1] * (4 - right))
    files = packed_names([f"{fold}-{n}.png" for n in range(4)])
    return record(
        split="cv",
        seed=seed,
        fold=fold,
        accuracy=right / 4,
        labels=packed(np.zeros(4)),
        predictions=packed(predictions),
        files=files,
        **changes,
    )


@pytest.fixture
def cross_validated(tmp_path):
    (tmp_path / SUITE).write_text(
        Header(suite="folder", split="cv", model="vit", backbone_digest="b1", epochs=5).model_dump_json()
    )
    for seed in (0, 1):
        for fold, right in ((0, 4), (1, 2)):
            write_record(tmp_path, folded(seed, fold, right))
    return tmp_path


def test_the_folds_of_a_seed_are_one_run_over_all_images(cross_validated):
    found = read_results(cross_validated)
    (one, two) = found.runs
    assert one.accuracy == 6 / 8 and one.seconds == 3.0 and len(one.labels) == 8
    assert one.files == two.files and len(found.tables) == 1


def test_images_are_in_the_order_of_their_names_whatever_the_fold(cross_validated):
    write_record(cross_validated, folded(1, 0, 2, method="other"))
    write_record(cross_validated, folded(1, 1, 4, method="other"))
    runs = {run.method: run for run in read_results(cross_validated).runs}
    assert list(runs["other"].right) == [True, True, False, False, True, True, True, True]
    assert runs["other"].files == runs["norm"].files


def test_a_run_that_lacks_a_fold_of_another_method_is_missing_and_has_no_accuracy(cross_validated):
    for fold in (0, 1):
        write_record(cross_validated, folded(1, fold, 2, method="other"))
    (cross_validated / "digits/norm/seed1-fold1.json").unlink()
    found = read_results(cross_validated)
    assert [(run.method, run.seed) for run in found.runs] == [("norm", 0), ("other", 1)]
    assert [(m.seed, m.reason) for m in found.missing] == [(1, "not finished: fold 1")]


def test_seeds_may_have_other_folds_than_each_other(cross_validated):
    """A few folds of each seed, each beginning with another, are a whole grid."""
    for seed, fold in ((0, 1), (1, 0)):
        (cross_validated / f"digits/norm/seed{seed}-fold{fold}.json").unlink()
    found = read_results(cross_validated)
    assert [(run.seed, run.accuracy) for run in found.runs] == [(0, 1.0), (1, 0.5)]
    assert not found.missing and len(found.tables) == 1


def test_a_failed_fold_takes_its_run_out_and_says_why(cross_validated):
    failure = record(split="cv", seed=0, fold=1, failed="memory ran out")
    write_record(cross_validated, failure)
    found = read_results(cross_validated)
    assert [run.seed for run in found.runs] == [1]
    assert found.missing[0].reason == "fold 1: memory ran out"


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        ({"precision": "bf16"}, "precision bf16, not fp32"),
        ({"image_size": (96, 96)}, "image size 96 x 96, not 64 x 64"),
        ({"legacy": "best test epoch"}, "legacy best test epoch, not None"),
        ({"data_digest": "other"}, "other images"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_runs_of_another_protocol_stand_in_a_table_of_their_own(results, change, phrase):
    other = protocol(epochs=EPOCHS, **({"data_digest": "digest of flowers"} | change))
    write_record(results, made("flowers", "norm", 7, protocol=other))
    found = read_results(results)
    assert [len(table) for table in found.tables] == [8, 1]
    assert differences(found.tables[1], found.tables[0]) == [phrase]


def test_threads_devices_and_versions_may_differ_within_a_table(results):
    other = protocol(epochs=EPOCHS, data_digest="digest of flowers", threads=8, device="H100", versions={"torch": "3"})
    write_record(results, made("flowers", "norm", 7, protocol=other))
    assert len(read_results(results).tables) == 1


def test_rows_for_programs_have_the_keys_that_were_promised_and_failures_have_no_numbers(results):
    write_record(results, failed("flowers", "full", 5, "the loss is not finite"))
    rows = rows_of(read_results(results))
    assert len(rows) == 9
    assert all(list(row) == ["task", "method", "seed", "accuracy", "parameters", "seconds", "protocol"] for row in rows)
    assert rows[-1] == {"task": "flowers", "method": "full", "seed": 5} | dict.fromkeys(
        ("accuracy", "parameters", "seconds", "protocol")
    )
    assert json.loads(json.dumps(rows)) == rows


def test_jobs_that_nobody_ran_are_counted(results):
    assert not_run(read_results(results)) == 0
    (results / "flowers/norm/seed0.json").unlink()
    write_record(results, failed("flowers", "full", 2, "killed"))
    assert not_run(read_results(results)) == 1 + 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"accuracy": 0.1}, "accuracy 0.1, but"),
        ({"classes": ("a", "b")}, "classes 0 to 4 of 2"),
        ({"files": packed_names(["1.png"])}, "1 files and 120 labels"),
        ({"selection": {"0.attn": (500,)}}, "a channel chosen at 0.attn"),
        ({"importance": {"0.attn": "?"}}, "damaged"),
        ({"selection": {"attn": (1,)}}, "site attn"),
        ({"importance": {"0": packed(np.zeros(8), "<f2")}}, "site 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_record_that_contradicts_itself_is_refused_by_name(results, changes, reason):
    write_record(results, made("flowers", "ttc", 0, **changes))
    with pytest.raises(RecordError, match=rf"flowers/ttc/seed0\.json is .*{reason}"):
        read_results(results)


def test_a_folder_without_a_finished_job_is_refused_with_the_first_reason(tmp_path):
    write_results(tmp_path, tasks={})
    with pytest.raises(RecordError, match="no finished job; expected one at least"):
        read_results(tmp_path)
    write_record(tmp_path, failed("flowers", "ttc", 0, "memory ran out"))
    with pytest.raises(RecordError, match="no finished job; the first: memory ran out"):
        read_results(tmp_path)


def test_a_task_of_two_groups_is_refused_with_both_files(results):
    write_record(results, made("flowers", "norm", 0, group="none"))
    with pytest.raises(RecordError, match=r"seed0\.json says that flowers is of the group 'none'; expected 'natural'"):
        read_results(results)
