"""The door of the package: parts, caches, skipped images, evaluation."""

import numpy as np
import pytest
import torch

from ttctune.errors import DataError
from ttctune.images import (
    Source,
    decode,
    open_evaluation_images,
    open_images,
    open_source,
    picture_name,
    present_parts,
)
from ttctune.images.streaming import StreamedImages

from .pictures import describe, draw, write_image_tree

DESCRIPTION = describe()
NAMES = ("class0", "class1", "class2")


def test_images_and_labels_of_every_part_stay_together(tmp_path):
    """Each decoded image is its file's, in the order of the files, with its folder's label."""
    write_image_tree(tmp_path, 3, parts={"train": 4, "val": 2, "test": 1})
    data = open_images(tmp_path, DESCRIPTION, parts=("train", "val", "test"), threads=2)
    assert NAMES == data.classes and 0 == data.skipped and "val part of the data" == data.val_note
    for name, part in (("train", data.train), ("val", data.val), ("test", data.test)):
        files = sorted((tmp_path / name).rglob("*.png"))
        assert torch.equal(torch.stack([decode(file, DESCRIPTION) for file in files]), part.images)
        assert [int(file.parent.name[-1]) for file in files] == part.labels.tolist()


def test_test_images_are_not_opened_unless_asked_for(tmp_path):
    """A test part of rubbish does not disturb training."""
    write_image_tree(tmp_path, 3, parts={"train": 4, "val": 2, "test": 1})
    for file in (tmp_path / "test").rglob("*.png"):
        file.write_bytes(b"rubbish")
    data = open_images(tmp_path, DESCRIPTION)
    assert data.test is None and {"train", "val"} == set(data.parts)
    with pytest.raises(DataError, match=r"test/class0/000\.png"):
        open_images(tmp_path, DESCRIPTION, parts=("test",))


def test_a_data_folder_may_be_a_string(tmp_path):
    """Text and Path mean the same folder."""
    assert 15 == len(open_images(str(write_image_tree(tmp_path)), DESCRIPTION).train)


def test_bad_images_stop_or_are_skipped_with_their_labels(tmp_path):
    """Skipping counts and names them, and the labels of the others stay theirs."""
    write_image_tree(tmp_path, 3, parts={"train": 3, "val": 2})
    bad = [tmp_path / "train" / "class1" / "000.png", tmp_path / "val" / "class2" / "001.png"]
    for path in bad:
        path.write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"class1/000\.png"):
        open_images(tmp_path, DESCRIPTION)
    data = open_images(tmp_path, DESCRIPTION, skip_bad=True)
    assert [0, 0, 0, 1, 1, 2, 2, 2] == data.train.labels.tolist() and [
        0,
        0,
        1,
        1,
        2,
    ] == data.val.labels.tolist()
    assert 2 == data.skipped and [str(path) for path in bad] == [name for name, _ in data.skipped_images]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("bad", [("class1",), ("class0", "class1")])
def test_a_class_of_which_no_train_image_is_left_is_named(tmp_path, bad, streaming):
    """Else the head has a row that nothing trains, or a single class is left, which is always right."""
    write_image_tree(tmp_path, 3, parts={"train": 3, "val": 2})
    for path in (path for name in bad for path in (tmp_path / "train" / name).iterdir()):
        path.write_bytes(b"rubbish")
    with pytest.raises(DataError, match=f"no train image of class '{bad[0]}' can be read"):
        open_images(tmp_path, DESCRIPTION, skip_bad=True, streaming=streaming)


def test_images_beyond_the_budget_go_to_files(tmp_path):
    """All parts share one budget: train fits, val no longer does."""
    write_image_tree(tmp_path / "data", 3, parts={"train": 3, "val": 2})
    expected = open_images(tmp_path / "data", DESCRIPTION)
    budget = 9 * 3 * 16 * 16
    data = open_images(tmp_path / "data", DESCRIPTION, cache_bytes=budget, cache_folder=str(tmp_path / "cache"))
    assert ["val.uint8"] == [path.name for path in (tmp_path / "cache").iterdir()]
    assert torch.equal(expected.train.images, data.train.images) and torch.equal(expected.val.images, data.val.images)


def test_progress_counts_all_parts_together(tmp_path):
    """From 1 to the number of images of train and val."""
    told = []
    write_image_tree(tmp_path, 2, parts={"train": 3, "val": 2})
    open_images(tmp_path, DESCRIPTION, progress=lambda done, total: told.append((done, total)))
    assert [(i, 10) for i in range(1, 11)] == told


@pytest.mark.parametrize("parts", [(), ("train", "dev")])
def test_unknown_parts_are_refused(tmp_path, parts):
    """Only train, val and test exist."""
    with pytest.raises(DataError, match="the parts asked for"):
        open_images(write_image_tree(tmp_path), DESCRIPTION, parts=parts)


def test_asking_for_test_and_val_holds_out_nothing(tmp_path):
    """Whoever evaluates does not want a share of train."""
    write_image_tree(tmp_path, parts=("train",))
    with pytest.raises(DataError, match="has no val and no test part"):
        open_images(tmp_path, DESCRIPTION, parts=("test", "val"))
    write_image_tree(tmp_path, parts=("val",))
    assert {"val"} == set(open_images(tmp_path, DESCRIPTION, parts=("test", "val")).parts)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("train", "val", "test"), ("test", 6)),
        (("train", "val"), ("val", 6)),
        (("train", "test"), ("test", 6)),
        (("test",), ("test", 6)),
        (("train",), ("all images", 6)),
        (None, ("all images", 6)),
    ],
)
def test_evaluation_reads_test_else_val_else_all_images(tmp_path, parts, expected):
    """The name says which it was; nothing is held out."""
    write_image_tree(tmp_path, 3, 2, parts=parts)
    images, name, skipped = open_evaluation_images(tmp_path, DESCRIPTION, NAMES)
    assert (*expected, 0) == (name, len(images), skipped)
    assert [0, 0, 1, 1, 2, 2] == images.labels.tolist()


def test_evaluation_touches_no_other_part(tmp_path):
    """With a test part, rubbish in train and val goes unnoticed; a mapping's other parts are not read."""
    write_image_tree(tmp_path, 3, 2, parts=("train", "val", "test"))
    for part in ("train", "val"):
        for file in (tmp_path / part).rglob("*.png"):
            file.write_bytes(b"rubbish")
    assert "test" == open_evaluation_images(tmp_path, DESCRIPTION, NAMES)[1]
    pictures = np.zeros((2, 8, 8, 3), np.uint8)
    mapping = {"train": "not even data", "val": (pictures, [0, 2])}
    assert "val" == open_evaluation_images(mapping, DESCRIPTION, NAMES)[1]


def test_evaluation_looks_for_no_file_of_another_part_of_an_index(tmp_path):
    """The training images may have gone by then."""
    draw(0).save(tmp_path / "a.png")
    (tmp_path / "index.csv").write_text("file,split,label,class\ngone.png,train,0,class0\na.png,test,1,class1\n")
    images, name, _ = open_evaluation_images(tmp_path, DESCRIPTION, NAMES)
    assert ("test", [1]) == (name, images.labels.tolist())


@pytest.mark.parametrize(("budget", "streamed"), [(6 * 3 * 16 * 16, False), (6 * 3 * 16 * 16 - 1, True)])
def test_evaluation_streams_what_exceeds_the_budget(tmp_path, budget, streamed):
    """Nothing goes to the disk; what training held out is found either way."""
    write_image_tree(tmp_path, 3, 10)
    note = _note(tmp_path)
    images, name, _ = open_evaluation_images(tmp_path, DESCRIPTION, NAMES, held_out=note, cache_bytes=budget)
    assert "held-out val" == name and streamed == isinstance(images, StreamedImages)
    (pictures, _), *rest = images.batches(6)
    assert not rest and torch.equal(open_images(tmp_path, DESCRIPTION).val.images, pictures)


def test_evaluation_of_arrays_is_all_images_even_of_one_class():
    """A pair without parts is read whole."""
    images, name, _ = open_evaluation_images((np.zeros((3, 8, 8, 3), np.uint8), [1, 1, 1]), DESCRIPTION, NAMES)
    assert ("all images", [1, 1, 1]) == (name, images.labels.tolist())


def _note(data, **settings) -> dict:
    trained = open_images(data, DESCRIPTION, **settings)
    assert trained.held_out
    return {"val_fraction": 0.2, "seed": 0, **settings, "digest": trained.val.digest()}


@pytest.mark.parametrize("settings", [{}, {"seed": 3}, {"val_fraction": 0.5}])
def test_evaluation_on_the_data_of_training_reads_what_was_held_out(tmp_path, settings):
    """The same images as training's val part come back, though the data has no val part."""
    write_image_tree(tmp_path, 3, 10)
    val = open_images(tmp_path, DESCRIPTION, **settings).val
    images, name, _ = open_evaluation_images(tmp_path, DESCRIPTION, NAMES, held_out=_note(tmp_path, **settings))
    assert "held-out val" == name
    assert torch.equal(val.images, images.images) and torch.equal(val.labels, images.labels)


@pytest.mark.parametrize("per_class", [10, 1])
def test_evaluation_on_other_data_reads_all_images_whatever_training_held_out(tmp_path, per_class):
    """Only the digest of the very images makes them the held-out ones, even where none could be."""
    note = _note(write_image_tree(tmp_path / "one", 3, 10))
    other = write_image_tree(tmp_path / "two", 3, per_class, seed=1)
    images, name, _ = open_evaluation_images(other, DESCRIPTION, NAMES, held_out=note)
    assert ("all images, maybe with training images among them", 3 * per_class) == (name, len(images))


def test_an_own_test_part_wins_over_what_training_held_out(tmp_path):
    """Where there is a test part it is read, note or no note."""
    note = _note(write_image_tree(tmp_path / "one", 3, 10))
    parts = write_image_tree(tmp_path / "two", 3, 2, parts=("train", "test"))
    assert "test" == open_evaluation_images(parts, DESCRIPTION, NAMES, held_out=note)[1]


def test_a_val_part_of_the_data_was_not_held_out(tmp_path):
    """`held_out` is true only for images taken out of train."""
    write_image_tree(tmp_path, parts=("train", "val"))
    assert not open_images(tmp_path, DESCRIPTION).held_out
    assert not open_images(tmp_path / "train", DESCRIPTION, val_fraction=0).held_out


def test_evaluation_skips_bad_images_when_asked(tmp_path):
    """The third value counts them."""
    write_image_tree(tmp_path, 3, 2)
    (tmp_path / "class1" / "000.png").write_bytes(b"rubbish")
    images, _, skipped = open_evaluation_images(tmp_path, DESCRIPTION, NAMES, skip_bad=True)
    assert 1 == skipped and [0, 0, 1, 2, 2] == images.labels.tolist()


def test_grey_models_get_grey_images():
    """One channel in the description, one in the tensor."""
    data = open_images(([draw(i) for i in range(4)], [0, 1, 0, 1]), describe(channels=1), val_fraction=0.5)
    assert (2, 1, 16, 16) == data.train.images.shape == data.val.images.shape


def test_a_source_whose_parts_are_settled_is_taken_as_it_is(tmp_path):
    """Nothing is held out of it, and of its parts only those asked for are opened."""
    source = open_source(write_image_tree(tmp_path, 3, parts={"train": 4, "val": 2, "test": 1}))
    both = Source({"train": source.parts["train"].joined(source.parts["val"])}, source.classes)
    data = open_images(both, DESCRIPTION, val_fraction=0.5)
    assert 18 == len(data.train) and data.val is None and source.classes == data.classes
    assert source.parts["train"].labels + source.parts["val"].labels == data.train.labels.tolist()
    assert ("train",) == present_parts(both)
    with pytest.raises(DataError, match="no test part"):
        open_images(both, DESCRIPTION, parts=("test",))
    with pytest.raises(DataError, match="other classes"):
        open_images(both, DESCRIPTION, classes=source.classes[::-1])


def test_joined_pictures_are_those_of_one_then_those_of_the_other(tmp_path):
    """Also from behind, by name, and chosen from."""
    parts = open_source(write_image_tree(tmp_path, 2, parts={"train": 2, "val": 1})).parts
    both = parts["train"].joined(parts["val"])
    files = [*parts["train"].pictures, *parts["val"].pictures]
    assert files == list(both.pictures) and files[-1] == both.pictures[-1] and files[0] == both.pictures[-6]
    assert [str(file) for file in files] == [picture_name(both.pictures, i) for i in range(6)]
    assert files[3:5] == list(both.choose([3, 4]).pictures)
    with pytest.raises(IndexError):
        both.pictures[6]
