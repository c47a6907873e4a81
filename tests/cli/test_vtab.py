"""`ttctune vtab`: what a person sees of a copy that is right, wrong or missing, and of one that is written."""

import pytest
from tests.bench.suites.stand_ins import hugging_face, install
from tests.bench.vtab_tree import write_vtab_task
from tests.images.pictures import write_image_tree

from ttctune.bench.suites import VTAB, VtabTask

SMALL = {"train": 8, "val": 4, "test": 6}


@pytest.fixture
def vtab(tmp_path, monkeypatch):
    """All 19, at a size that counts as VTAB's own, and nothing wrong."""
    monkeypatch.setattr(VtabTask, "sizes", property(lambda row: SMALL))
    rows = {name: VtabTask(**{**vars(row), "classes": 2}) for name, row in VTAB.items()}
    for module in ("check", "suites", "vtab"):
        monkeypatch.setattr(f"ttctune.bench.suites.{module}.VTAB", rows)
    for task in VTAB:
        write_vtab_task(tmp_path / "vtab" / task, SMALL, 2, side=8)
    return tmp_path / "vtab"


class TestCheck:
    """`ttctune vtab check`."""

    def test_a_right_copy_is_19_rows_and_exit_code_0(self, ttctune, vtab):
        done = ttctune("vtab", "check", vtab)
        assert done.code == 0 and done.err == ""
        lines = [line.split() for line in done.out.splitlines()]
        assert [line[:2] for line in lines[3:]] == [[task, "ok"] for task in VTAB]
        assert ttctune("vtab", "check", vtab, "--quiet").out == ""

    def test_a_wrong_copy_is_exit_code_1_and_says_what_and_where(self, ttctune, vtab):
        (vtab / "dtd" / "val200.txt").unlink()
        (vtab / "kitti").rename(vtab / "cat")
        done = ttctune("vtab", "check", vtab, "--quiet")
        assert done.code == 1
        assert "\ndtd: val200.txt is missing\n" in done.out
        assert f"\nkitti: missing; `ttctune vtab export --from tfds --task kitti -o {vtab}` writes it\n" in done.out
        assert "cat" in ttctune("vtab", "check", vtab).err

    def test_json_is_the_19_findings_and_nothing_else(self, ttctune, vtab):
        (vtab / "dtd" / "val200.txt").unlink()
        done = ttctune("vtab", "check", vtab, "--json", "--thorough")
        assert done.code == 1 and [row["task"] for row in done.json] == list(VTAB)
        rows = {row["task"]: row for row in done.json}
        assert rows["cifar"]["state"] == "ok" and len(rows["cifar"]["data_digest"]) == 64
        assert rows["cifar"]["images"] == SMALL == rows["cifar"]["expected"] and rows["cifar"]["lossy"] is False
        assert rows["dtd"]["problems"] == ["val200.txt is missing"]

    def test_a_narrow_terminal_keeps_every_row_in_one_line(self, ttctune, vtab, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        done = ttctune("vtab", "check", vtab)
        rows = done.out.splitlines()[3:]
        assert len(rows) == 19 and all(len(row) <= 80 for row in rows)

    def test_a_folder_that_is_not_there_is_one_line(self, ttctune, tmp_path):
        done = ttctune("vtab", "check", tmp_path / "nowhere")
        assert done.code == 1 and done.out == "" and len(done.err.splitlines()) == 1 and "nowhere" in done.err


class TestExport:
    """`ttctune vtab export`."""

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch):
        monkeypatch.setattr("ttctune.bench.suites.export.TRAIN", 8)
        monkeypatch.setattr("ttctune.bench.suites.export.VAL", 4)

    @pytest.fixture
    def cells(self, tmp_path):
        """Two classes, enough of them to cut 8 and 4 and a test part."""
        return write_image_tree(tmp_path / "cells", 2, parts={"train": 5, "val": 3, "test": 2})

    def test_a_folder_becomes_a_task_and_the_line_says_of_what(self, ttctune, cells, tmp_path):
        done = ttctune("vtab", "export", "--from", "folder", cells, "--task", "camelyon", "-o", tmp_path / "vtab")
        assert done.code == 0 and "8 train, 4 val, 4 test" in done.out and "shuffled with seed 0" in done.out
        assert "note: 4 test images, not the 32,768 of VTAB-1k" in done.err
        assert (tmp_path / "vtab" / "patch_camelyon" / "train800val200.txt").is_file()

    def test_json_says_the_same(self, ttctune, cells, tmp_path):
        arguments = ["--from", "folder", cells, "--task", "patch_camelyon", "-o", tmp_path / "vtab", "--seed", "3"]
        done = ttctune("vtab", "export", *arguments, "--json")
        assert done.json["images"] == {"train": 8, "val": 4, "test": 4} and "seed 3" in done.json["rule"]

    def test_a_data_set_of_hugging_face_becomes_a_task(self, ttctune, tmp_path, monkeypatch):
        install(monkeypatch, hugging_face({"train": 8, "validation": 4, "test": 2}, 2), "datasets")
        done = ttctune("vtab", "export", "--from", "hf", "me/set", "--task", "patch_camelyon", "-o", tmp_path / "vtab")
        assert done.code == 0 and "already" in done.out

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"--from": "kaggle"}, "--from kaggle; expected hf, tfds, folder"),
            ({"--task": "imagenet"}, "task 'imagenet'; expected one of VTAB's: cifar,"),
            ({"--seed": "-1"}, "--seed -1"),
            ({"source": None}, "--from folder without a source"),
            ({"source": "nowhere"}, "nowhere does not exist"),
            ({"--task": "cifar"}, "2 classes; expected the 100 of cifar"),
            ({"--from": "tfds"}, "pip install tensorflow tensorflow-datasets"),
        ],
    )
    def test_what_cannot_be_is_one_line_and_leaves_nothing(self, ttctune, cells, tmp_path, monkeypatch, change, said):
        install(monkeypatch, None, "tensorflow_datasets")
        given = {"--from": "folder", "--task": "patch_camelyon", "-o": str(tmp_path / "vtab"), "source": str(cells)}
        given |= change
        source = given.pop("source")
        flags = [text for pair in given.items() for text in pair]
        done = ttctune("vtab", "export", *([source] if source else []), *flags)
        assert done.code == 1 and done.out == "" and len(done.err.splitlines()) == 1 and said in done.err
        assert not (tmp_path / "vtab").exists()

    @pytest.mark.parametrize("arguments", [[], ["--from", "folder"], ["--from", "hf", "--task", "dtd"], ["--nonsense"]])
    def test_a_missing_argument_or_an_unknown_flag_is_exit_code_2(self, ttctune, arguments):
        done = ttctune("vtab", "export", *arguments)
        assert done.code == 2 and len(done.err.splitlines()) == 1


def test_the_help_shows_both_commands(ttctune):
    shown = ttctune("vtab", "--help").out
    assert "check" in shown and "export" in shown
