"""One file a job: written and read again, refused where it is damaged."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import ValidationError
from tests.bench.records import protocol, record

from ttctune.bench.record import (
    Record,
    packed,
    packed_names,
    protocol_key,
    read_record,
    unpacked,
    unpacked_names,
    write_record,
)
from ttctune.errors import FolderError, RecordError


@given(arrays.arrays(np.int16, st.integers(0, 50)))
def test_packed_numbers_are_the_same_when_unpacked(values):
    assert np.array_equal(unpacked(packed(values)), values)


@given(st.lists(st.text()))
def test_packed_names_are_the_same_when_unpacked(names):
    assert unpacked_names(packed_names(names)) == names


def test_scores_are_packed_as_halves():
    scores = np.array([0.5, 1e-3, 7.0], np.float32)
    assert unpacked(packed(scores, "<f2"), "<f2") == pytest.approx(scores, rel=1e-3)


@pytest.mark.parametrize("text", ["", "?", "YWJj"])
def test_a_text_that_is_not_packed_is_an_error(text):
    with pytest.raises(ValueError, match="not packed"):
        unpacked(text)


def test_a_record_is_read_as_it_was_written_in_its_own_place(tmp_path):
    for written in (record(), record(split="cv", fold=2), record(failed="it broke")):
        write_record(tmp_path, written)
        assert read_record(tmp_path / written.path) == written
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.json")} == {
        "digits/norm/seed0.json",
        "digits/norm/seed0-fold2.json",
    }


def test_a_place_that_cannot_be_made_is_refused_by_name(tmp_path):
    (tmp_path / "digits").write_text("in the way")
    with pytest.raises(FolderError, match=r"digits/norm"):
        write_record(tmp_path, record())


@pytest.mark.parametrize(
    "changes",
    [
        {"predictions": None},
        {"accuracy": None},
        {"accuracy": 1.5},
        {"protocol": None},
        {"classes": ()},
        {"split": "cv"},
        {"fold": 1},
        {"task": "../digits"},
        {"method": "a/b"},
        {"more": 1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_record_that_contradicts_itself_is_none(changes):
    with pytest.raises(ValidationError):
        Record(**(record().model_dump() | changes))


def test_a_failed_record_has_no_result():
    with pytest.raises(ValidationError, match="failed job with a result"):
        Record(**(record().model_dump() | {"failed": "it broke"}))


def test_a_damaged_record_is_refused_by_name(tmp_path):
    good = record().model_dump(mode="json")
    short = packed(np.zeros(1, np.int16))
    for content, reason in (
        ("{", "damaged"),
        ("[]", "not an object"),
        (json.dumps(good | {"format": 2}), "format 2; expected format 1"),
        (json.dumps(good | {"accuracy": "high"}), "accuracy"),
        (json.dumps(good | {"predictions": "?"}), "damaged"),
        (json.dumps(good | {"predictions": short}), "4 labels and 1 predictions"),
        ("[" * 100_000, "damaged"),
    ):
        (tmp_path / "seed0.json").write_text(content)
        with pytest.raises(RecordError, match=reason) as error:
            read_record(tmp_path / "seed0.json")
        assert "seed0.json" in str(error.value)


def test_records_share_a_table_when_all_but_machine_and_data_is_equal():
    key = protocol_key(record())
    for same in ({"threads": 8}, {"device": "cuda"}, {"versions": {"torch": "3"}}, {"data_digest": "d2"}):
        assert protocol_key(record(protocol=protocol(**same))) == key
    assert protocol_key(record(seed=3, method="lora", task="caltech101")) == key
    for other in ({"image_size": (96, 96)}, {"precision": "bf16"}, {"legacy": "imagenet"}, {"backbone_digest": "b2"}):
        assert protocol_key(record(protocol=protocol(**other))) != key
    assert protocol_key(record(split="test")) != key
    assert protocol_key(record(epochs=7)) != key
