"""The val part that is taken out of train."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttctune.errors import DataError
from ttctune.images import PartSource, open_source
from ttctune.images.sources.hold_out import hold_out

from .pictures import write_image_tree


def _part(labels: list[int]) -> PartSource:
    return PartSource([f"{i}.png" for i in range(len(labels))], labels)  # type: ignore[list-item]


@settings(max_examples=100, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(-5, 2**65),
)
def test_each_image_is_in_one_part_and_each_class_keeps_one_in_train(labels, fraction, seed):
    """Nothing is lost or doubled, order is kept; a class gives its rounded share but never its last image."""
    train, val = hold_out(_part(labels), tuple("abcde"), fraction, seed, strict=False)
    assert sorted(train.pictures[:] and [*train.pictures, *val.pictures]) == sorted(
        f"{i}.png" for i in range(len(labels))
    )
    assert sorted(train.pictures, key=lambda name: int(str(name)[:-4])) == list(train.pictures)
    shares = {label: min(int(fraction * labels.count(label) + 0.5), labels.count(label) - 1) for label in set(labels)}
    if not any(shares.values()):
        shares = {label: min(1, labels.count(label) - 1) for label in set(labels)}
    assert shares == {label: val.labels.count(label) for label in set(labels)}
    assert set(labels) == set(train.labels)


def test_the_seed_decides(tmp_path):
    """The same seed gives the same images, another seed others."""
    write_image_tree(tmp_path, 2, 10)
    chosen = [list(open_source(tmp_path, seed=seed).parts["val"].pictures) for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_train_is_the_same_whether_or_not_val_is_asked_for(tmp_path):
    """Asking for train alone does not put held-out images back."""
    write_image_tree(tmp_path, 2, 10)
    both, train, val = (open_source(tmp_path, parts=parts) for parts in (("train", "val"), ("train",), ("val",)))
    assert list(both.parts["train"].pictures) == list(train.parts["train"].pictures)
    assert list(both.parts["val"].pictures) == list(val.parts["val"].pictures)


def test_a_fraction_of_zero_holds_out_nothing(tmp_path):
    """There is no val part then, and the note says so."""
    source = open_source(write_image_tree(tmp_path, 2, 1), val_fraction=0)
    assert {"train"} == set(source.parts) and "no val part" == source.val_note


def test_two_images_per_class_still_give_a_val_part(tmp_path):
    """A fifth of two rounds to none, so each class gives one."""
    source = open_source(write_image_tree(tmp_path, 3, 2))
    assert [0, 1, 2] == source.parts["val"].labels == source.parts["train"].labels


def test_a_class_with_one_image_is_refused_by_name(tmp_path):
    """It cannot be in train and in val; the line says the three ways out."""
    write_image_tree(tmp_path, ("a", "b"), 5)
    write_image_tree(tmp_path, ("rare",), 1)
    with pytest.raises(DataError, match="class 'rare' has one image; expected at least 2") as caught:
        open_source(tmp_path)
    assert str(caught.value).endswith("add images, give a val part, or set val_fraction 0")
    assert 1 == open_source(tmp_path, classes=("a", "b", "rare")).parts["train"].labels.count(2)


def test_the_test_part_is_never_held_out_from(tmp_path):
    """Val comes from train even where test is larger."""
    write_image_tree(tmp_path, 2, parts={"train": 5, "test": 20})
    assert {"train"} == {path.parts[-3] for path in open_source(tmp_path).parts["val"].pictures}


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, float("nan")])
def test_a_fraction_outside_the_range_is_refused(tmp_path, fraction):
    """From 0 up to, not including, 1."""
    with pytest.raises(DataError, match="val_fraction"):
        open_source(write_image_tree(tmp_path), val_fraction=fraction)
