"""A results folder belongs to one suite, split and model."""

import json

import pytest
from tests.bench.records import record

from ttctune.bench.record import write_record
from ttctune.bench.results_folder import Header, read_header, read_records, results_folder
from ttctune.errors import FolderError, RecordError

HEADER = Header(suite="folder", split="val", model="vit", backbone_digest="b1", epochs=5)


def test_a_folder_is_made_and_then_opened_again_by_the_same_header(tmp_path):
    for _ in range(2):
        with results_folder(tmp_path / "results", HEADER) as folder:
            assert read_header(folder) == HEADER


@pytest.mark.parametrize(
    ("name", "value"),
    [("suite", "vtab"), ("split", "test"), ("model", "deit"), ("epochs", 6), ("precision", "bf16"), ("trials", 12)],
)
def test_results_of_another_suite_are_left_alone(tmp_path, name, value):
    with results_folder(tmp_path, HEADER):
        pass
    before = (tmp_path / "suite.json").read_bytes()
    with (
        pytest.raises(FolderError, match=f"{name} {value}; expected {getattr(HEADER, name)}, as the results"),
        results_folder(tmp_path, HEADER.model_copy(update={name: value})),
    ):
        pass
    assert (tmp_path / "suite.json").read_bytes() == before


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (None, 4, "shots 4; expected no shots, as the results in .* have; leave it out"),
        (4, None, "no shots; expected 4, as the results in .* have; give that"),
    ],
)
def test_a_setting_that_one_side_lacks_is_said_in_words(tmp_path, before, now, said):
    with results_folder(tmp_path, HEADER.model_copy(update={"shots": before})):
        pass
    with (
        pytest.raises(FolderError, match=said),
        results_folder(tmp_path, HEADER.model_copy(update={"shots": now})),
    ):
        pass


def test_a_folder_of_another_format_is_refused(tmp_path):
    (tmp_path / "suite.json").write_text(json.dumps(HEADER.model_dump() | {"format": 2}))
    with pytest.raises(RecordError, match="format 2; expected format 1"), results_folder(tmp_path, HEADER):
        pass


def test_a_folder_of_something_else_is_refused_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(FolderError, match="holds no results"), results_folder(tmp_path, HEADER):
        pass
    with pytest.raises(FolderError, match="is a file"), results_folder(tmp_path / "thesis.tex", HEADER):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_runners_do_not_share_a_folder(tmp_path):
    with (
        results_folder(tmp_path, HEADER),
        pytest.raises(FolderError, match="in use"),
        results_folder(tmp_path, HEADER),
    ):
        pass


def test_records_are_read_in_order_and_those_that_do_not_belong_are_refused(tmp_path):
    with results_folder(tmp_path, HEADER):
        for seed in (1, 0):
            write_record(tmp_path, record(seed=seed))
    assert [r.seed for r in read_records(tmp_path)] == [0, 1]
    (tmp_path / "digits/norm/seed7.json").write_bytes((tmp_path / "digits/norm/seed0.json").read_bytes())
    with pytest.raises(RecordError, match=r"it says that it is digits/norm/seed0\.json"):
        read_records(tmp_path)
    (tmp_path / "digits/norm/seed7.json").unlink()
    write_record(tmp_path, record(seed=2, epochs=6))
    with pytest.raises(RecordError, match=r"its epochs is 6, but suite\.json says 5"):
        read_records(tmp_path)
