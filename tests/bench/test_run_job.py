"""One job: a full record, or one that says why it has no result."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.bench.tasks import conditions

from ttctune.bench import run_job
from ttctune.bench.grid import Job
from ttctune.bench.legacy import IMAGENET, LEGACY, Legacy
from ttctune.bench.record import protocol_key, read_record, unpacked, unpacked_names, write_record
from ttctune.bench.run_job import LIBRARIES, failed, record_of
from ttctune.errors import DivergedError, TrainingError
from ttctune.images import decode_all


@pytest.fixture(scope="module")
def job(tasks):
    return Job(tasks[0], "val", "ttc", 1)


def test_a_record_says_all_there_is_to_say(job, model):
    shares: list[float] = []
    record = record_of(job, conditions(model), shares.append)
    assert record.failed is None and record.protocol is not None
    labels, guesses = (unpacked(text) for text in (record.labels, record.predictions))
    assert labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert record.accuracy == np.mean(labels == guesses)
    losses, right = unpacked(record.losses, "<f2"), labels == guesses
    assert len(losses) == 9 and losses[right].max() <= np.log(3) + 1e-3 and losses[~right].min() >= np.log(2) - 1e-3
    assert unpacked_names(record.files)[0] == "val/class0/000.png"
    assert record.classes == ("class0", "class1", "class2")
    assert (record.task, record.split, record.seed, record.epochs) == ("ants", "val", 1, 2)
    assert [(row["stage"], row["epoch"]) for row in record.history] == [("align", 1), ("tune", 1)]
    assert shares == [0.5, 1.0]
    assert (
        record.parameters == 5 * 2 * 32 + 2 * 2 * (4 * 4 + 4) + 2 * 2 * (3 * 32 + 64)
        and record.head_parameters == 3 * 33
    )
    scores = {site: unpacked(text, "<f2") for site, text in record.importance.items()}
    assert scores.keys() == record.selection.keys() and len(scores) == 4
    for site, chosen in record.selection.items():
        assert len(chosen) == 4 and min(scores[site][list(chosen)]) >= np.sort(scores[site])[-4]
    assert record.settings["seed"] == 1 and record.settings["channels"] == 0.125
    assert record.protocol.model == model and record.protocol.image_size == (32, 32)
    assert record.protocol.normalisation.mean == (0.5, 0.5, 0.5)
    assert record.protocol.threads == 1 and record.protocol.precision == "fp32"
    assert {"ttctune", "python", *LIBRARIES} == record.protocol.versions.keys()


def test_a_job_done_again_gives_the_same_record_but_for_the_clock(job, model):
    first, second = (record_of(job, conditions(model)) for _ in range(2))
    timeless = [
        r.model_copy(update={"seconds": 0.0, "history": [{**row, "seconds": 0} for row in r.history]})
        for r in (first, second)
    ]
    assert timeless[0] == timeless[1]


def test_many_images_to_score_are_not_kept_and_score_the_same(job, model, monkeypatch):
    kept, names = record_of(job, conditions(model)), []

    def noted(*values, name, **settings):
        names.append(name)
        return decode_all(*values, name=name, **settings)

    monkeypatch.setattr("ttctune.bench.run_job.SCORED_BYTES", 0)
    monkeypatch.setattr("ttctune.images.opening.decode_all", noted)
    streamed = record_of(job, conditions(model))
    assert names == ["train"]
    assert (streamed.predictions, streamed.losses) == (kept.predictions, kept.losses)


def test_what_a_person_did_wrong_is_the_reason_of_a_failed_job(job, model, tmp_path):
    task = replace(job.task, path=tmp_path / "gone")
    record = record_of(replace(job, task=task), conditions(model))
    assert record.accuracy is None and "gone" in record.failed
    record = record_of(replace(job, settings={"learning_rate": 10.0, "batch_size": 0}), conditions(model))
    assert "batch_size" in record.failed


def test_an_error_that_nobody_foresaw_is_told_with_its_place(job, model, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("of a library\nover two lines")

    monkeypatch.setattr(run_job, "prepare", broken)
    record = record_of(job, conditions(model))
    assert record.failed.startswith("ZeroDivisionError: of a library over two lines (test_run_job.py, line ")


def test_the_scored_images_are_read_when_training_is_over(job, model, monkeypatch):
    order = []
    original = run_job._scored

    def scored(data, run, threads):
        order.append(len(run.state.history))
        return original(data, run, threads)

    monkeypatch.setattr(run_job, "_scored", scored)
    assert record_of(job, conditions(model)).failed is None
    assert order == [2]


def test_jobs_of_a_process_share_one_backbone(job, model):
    record_of(job, conditions(model))
    backbone = run_job.opened(model, None)
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    record_of(replace(job, method="full"), conditions(model))
    assert run_job.opened(model, None) is backbone
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.model.state_dict().items())


def test_linear_probes_of_other_seeds_find_the_features_that_one_has_kept(job, model, tmp_path):
    probes = [replace(job, method="linear", seed=seed) for seed in (0, 1)]
    kept = [record_of(probe, conditions(model, features=tmp_path / ".features")) for probe in probes]
    assert len([*(tmp_path / ".features").iterdir()]) == 1
    for probe, record in zip(probes, kept, strict=True):
        assert record.failed is None and record.predictions == record_of(probe, conditions(model)).predictions


def test_one_image_of_each_class_is_enough_and_is_another_protocol(job, model):
    one, other = (record_of(replace(job, seed=seed), replace(conditions(model), shots=1)) for seed in (0, 1))
    assert (one.failed, other.failed) == (None, None) and one.protocol.shots == 1
    assert [row["loss"] for row in one.history] != [row["loss"] for row in other.history]
    assert protocol_key(one) == protocol_key(other) != protocol_key(record_of(job, conditions(model)))


@pytest.mark.parametrize(("name", "mean"), [("imagenet-colours", 0.485), ("unchanged-colours", 0.0)])
def test_an_old_protocol_changes_the_colours_and_is_named(job, model, name, mean):
    job, ours = replace(job, split="test"), conditions(model)
    record = record_of(job, replace(ours, legacy=name))
    assert record.failed is None and record.protocol.legacy == name
    assert record.protocol.normalisation.mean[0] == mean
    assert protocol_key(record) != protocol_key(record_of(job, ours))
    assert record_of(job, ours).protocol.normalisation.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("method", ["linear", "ttc", "norm"])
def test_the_best_test_epoch_is_kept_where_an_old_protocol_says_so(job, model, monkeypatch, method):
    labels = np.repeat([0, 1, 2], 2)
    seen = []
    wrong, right = torch.eye(3)[[0] * 6], torch.eye(3)[labels]

    def logits(run, images):
        run.trainer.model.eval()
        seen.append(len(run.state.history))
        return right if len(seen) == 2 else wrong

    monkeypatch.setattr(run_job, "_logits", logits)
    monkeypatch.setitem(LEGACY, "best-test-epoch", Legacy(IMAGENET, every=2))
    job = replace(job, split="test", method=method)
    record = record_of(job, conditions(model, epochs=5, legacy="best-test-epoch"))
    assert record.failed is None, record.failed
    assert len(seen) == 3 and record.accuracy == 1.0 and unpacked(record.predictions).tolist() == labels.tolist()
    assert len(record.history) == 5


def test_looking_at_the_test_images_in_between_changes_no_training(job, model, monkeypatch):
    monkeypatch.setitem(LEGACY, "best-test-epoch", Legacy(IMAGENET, every=1))
    kept = []
    original = run_job._logits
    monkeypatch.setattr(run_job, "_logits", lambda run, images: kept.append(original(run, images)) or kept[-1])
    job = replace(job, split="test")
    looked = record_of(job, conditions(model, epochs=3, legacy="best-test-epoch"))
    plain = record_of(job, conditions(model, epochs=3, legacy="imagenet-colours"))
    assert [row["loss"] for row in looked.history] == [row["loss"] for row in plain.history]
    assert looked.accuracy == max((logits.argmax(1).numpy() == unpacked(looked.labels)).mean() for logits in kept[:4])


def test_a_reason_that_names_a_file_beyond_unicode_can_be_recorded(job, model, tmp_path):
    record = failed(job, conditions(model), "caf\udce9.png cannot be read")
    write_record(tmp_path, record)
    assert read_record(tmp_path / record.path).failed == r"caf\udce9.png cannot be read"


@pytest.mark.parametrize("kind", [DivergedError, TrainingError])
def test_a_job_whose_training_diverged_says_so(job, model, monkeypatch, kind):
    def broken(*_, **__):
        raise kind("a loss of nan", "finite numbers", "take a lower rate")

    monkeypatch.setattr(run_job, "prepare", broken)
    assert record_of(job, conditions(model)).diverged == (kind is DivergedError)
