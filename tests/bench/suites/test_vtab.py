"""The 19 tasks as data, and the two averages over them."""

from collections import Counter
from itertools import chain
from pathlib import Path

import pytest

from ttctune.bench.suites import VTAB
from ttctune.bench.suites.vtab import Piece, folder_of, row_of, where_to_get
from ttctune.errors import DataError

PAGE = Path(__file__).parents[3] / "docs" / "vtab.md"


def test_there_are_seven_four_and_eight_tasks_of_940_classes() -> None:
    assert Counter(row.group for row in VTAB.values()) == {"natural": 7, "specialised": 4, "structured": 8}
    assert sum(row.classes for row in VTAB.values()) == 940
    assert all(row.sizes["train"] == 800 and row.sizes["val"] == 200 for row in VTAB.values())


@pytest.mark.parametrize("row", VTAB.values(), ids=lambda row: row.name)
def test_the_page_has_every_row_as_the_code_has_it(row) -> None:
    def words(piece: Piece) -> str:
        return piece.split + f" {piece.start} to {piece.stop} %" * (piece != Piece(piece.split))

    parts = [words(piece) for piece in (row.rule.train, row.rule.val, row.rule.test)]
    cells = [f"`{row.name}`", row.group, str(row.classes), f"{row.test:,}", *parts, row.original]
    assert f"| {' | '.join(cells)} |\n" in PAGE.read_text()


def test_no_name_or_alias_means_two_tasks() -> None:
    names = list(chain.from_iterable((row.name, *row.aliases) for row in VTAB.values()))
    assert len(set(names)) == len(names) and all(name == name.lower() for name in names)


@pytest.mark.parametrize(
    ("task", "split", "images", "start", "stop"),
    [
        ("cifar", "train", 50_000, 45_000, 50_000),
        ("oxford_iiit_pet", "train", 3_680, 2_944, 3_680),
        ("eurosat", "train", 27_000, 16_200, 21_600),
        ("dsprites_ori", "train", 737_280, 589_824, 663_552),
        ("smallnorb_azi", "test", 24_300, 0, 12_150),
        ("kitti", "validation", 423, 0, 423),
    ],
)
def test_val_is_where_the_benchmarks_own_code_takes_it(task, split, images, start, stop) -> None:
    piece = VTAB[task].rule.val
    assert (piece.split, piece.of(images)) == (split, range(start, stop))


@pytest.mark.parametrize(
    ("task", "split", "images"),
    [("cifar", "test", 10_000), ("eurosat", "train", 27_000), ("resisc45", "train", 31_500),
     ("dsprites_loc", "train", 737_280), ("smallnorb_ele", "test", 24_300), ("clevr_count", "validation", 15_000)],
)  # fmt: skip
def test_a_rule_gives_as_many_test_images_as_the_table_says(task, split, images) -> None:
    piece = VTAB[task].rule.test
    assert piece.split == split and len(piece.of(images)) == VTAB[task].test


def test_a_share_of_what_does_not_divide_is_cut_as_integers_are() -> None:
    assert [Piece("train", 0, 90).of(7), Piece("train", 90).of(7)] == [range(6), range(6, 7)]


@pytest.mark.parametrize(("alias", "task"), [("CIFAR100", "cifar"), ("pets", "oxford_iiit_pet"), ("dmlab", "dmlab")])
def test_a_task_is_known_by_its_aliases_in_any_case(tmp_path, alias, task) -> None:
    (tmp_path / alias).mkdir()
    assert row_of(alias).name == task and folder_of(VTAB[task], tmp_path) == tmp_path / alias


def test_two_folders_of_one_task_are_refused(tmp_path) -> None:
    for name in ("cifar", "cifar_100"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="two folders for cifar"):
        folder_of(VTAB["cifar"], tmp_path)


def test_what_cannot_be_fetched_says_so(tmp_path) -> None:
    assert "by hand" in where_to_get(VTAB["resisc45"], tmp_path) and "by hand" not in where_to_get(
        VTAB["dtd"], tmp_path
    )
