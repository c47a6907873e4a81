"""Arrays, lists, data sets and mappings as data."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from ttctune.errors import DataError
from ttctune.images import open_images, open_source

from .pictures import describe, draw

LABELS = [0, 1, 2, 0, 1, 2]
RGB = np.random.default_rng(0).integers(0, 256, (6, 10, 12, 3), dtype=np.uint8)


class Pairs(Dataset):
    """A data set that counts how often it is asked."""

    def __init__(self, images, labels, classes=None):
        self.images, self.labels, self.asked = images, labels, 0
        if classes is not None:
            self.classes = classes

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.asked += 1
        return self.images[index], self.labels[index]


def check_refused(data, match: str, **settings) -> None:
    with pytest.raises(DataError, match=match) as caught:
        open_source(data, **settings)
    assert "\n" not in str(caught.value)


def _decoded(data, **settings) -> torch.Tensor:
    result = open_images(data, describe(10, 12), val_fraction=0, **settings).train
    assert result is not None
    return result.images


def test_every_layout_of_an_array_gives_the_same_images():
    """Channels last or first, array or tensor, uint8 or float: the same pixels in the same order."""
    expected = torch.from_numpy(RGB).permute(0, 3, 1, 2)
    first = np.ascontiguousarray(RGB.transpose(0, 3, 1, 2))
    for images in (
        RGB,
        first,
        torch.from_numpy(RGB),
        torch.from_numpy(first),
        RGB.astype(np.float32) / 255,
        RGB.astype(np.float64) / 255,
        torch.from_numpy(first).float() / 255,
        list(RGB),
        [torch.from_numpy(image) for image in first],
        [Image.fromarray(image) for image in RGB],
        [image / np.float32(255) for image in RGB],
    ):
        assert torch.equal(expected, _decoded((images, LABELS)))


def test_grey_arrays_are_repeated_to_colours():
    """N x H x W is grey."""
    expected = torch.from_numpy(RGB[..., 0])[:, None].expand(-1, 3, -1, -1)
    assert torch.equal(expected, _decoded((RGB[..., 0], LABELS)))
    assert torch.equal(expected, _decoded((RGB[..., :1], LABELS)))


def test_many_channels_are_found_at_the_short_end():
    """Seven channels, first or last, reach a model of seven channels."""
    images = np.random.default_rng(0).integers(0, 256, (6, 10, 12, 7), dtype=np.uint8)
    for data in (images, images.transpose(0, 3, 1, 2)):
        result = open_images((data, LABELS), describe(10, 12, channels=7), val_fraction=0).train
        assert np.array_equal(images, result.images.permute(0, 2, 3, 1).numpy())


def test_a_list_of_paths_serves(tmp_path):
    """Strings and Path objects, mixed."""
    for i, image in enumerate(RGB):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    paths = [str(tmp_path / "0.png")] + [tmp_path / f"{i}.png" for i in range(1, 6)]
    assert torch.equal(_decoded((RGB, LABELS)), _decoded((paths, LABELS)))
    assert all(isinstance(path, Path) for path in open_source((paths, LABELS), val_fraction=0).parts["train"].pictures)


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_labels_may_be_any_sequence_of_integers(kind):
    """The classes are then called by their numbers."""
    source = open_source((RGB, kind(LABELS)), val_fraction=0)
    assert LABELS == source.parts["train"].labels and ("0", "1", "2") == source.classes


@pytest.mark.parametrize("kind", [list, np.array])
def test_labels_may_be_class_names(kind):
    """Names are sorted; an adapter's own order wins."""
    names = kind(["dog", "cat", "cow"] * 2)
    source = open_source((RGB, names), val_fraction=0)
    assert ("cat", "cow", "dog") == source.classes and [2, 0, 1] * 2 == source.parts["train"].labels
    adapted = open_source((RGB, names), val_fraction=0, classes=("dog", "cow", "hen", "cat"))
    assert [0, 3, 1] * 2 == adapted.parts["train"].labels
    check_refused((RGB, names), "class 'cat' in the train part is unknown", classes=("dog", "cow"))


@pytest.mark.parametrize(
    ("images", "labels", "match"),
    [
        (RGB, [0, 1], "6 images and 2 labels"),
        (RGB[:0], [], "holds no images"),
        ([], [], "holds no images"),
        (RGB, [0] * 6, "one class, '0'"),
        (RGB, [0, 1, 3] * 2, "labels outside the range: 3 different labels, one of them 3"),
        (RGB, [1, 2, 3] * 2, "labels outside the range"),
        (RGB, [0, 1, -1] * 2, "labels outside the range"),
        (RGB, np.eye(6), "2 dimensions: multi-label data is not supported"),
        (RGB, torch.zeros(6, 1, dtype=torch.int64), "multi-label data is not supported"),
        (RGB, [[0, 1], [1], [2], [0], [1], [2]], "multi-label data is not supported"),
        (RGB, [(0,)] * 6, "multi-label data is not supported"),
        (RGB, [0, "cat", 1, 2, 0, 1], "mix class names and numbers"),
        (RGB, [0.0, 1.0] * 3, "label 0 of .* is 0.0"),
        (RGB, "012012", "of type str"),
        (RGB, 3, "of type int"),
        (RGB, None, "of type NoneType"),
        (
            RGB.astype(np.float32),
            LABELS,
            r"floats from 0 to 255; expected uint8 in 0..255 or floats in \[0, 1\]",
        ),
        (RGB / 255.0 - 0.5, LABELS, "leave normalisation out"),
        (np.full(RGB.shape, np.nan), LABELS, "floats from nan"),
        (RGB.astype(np.int64), LABELS, "dtype int64"),
        (RGB[0, 0], LABELS, r"shape \(12, 3\)"),
        (np.zeros((6, 9, 9, 9), np.uint8), LABELS, "channels first or last"),
        ("images", LABELS, "of type str"),
        (None, LABELS, "of type NoneType"),
        ([3] * 6, LABELS, "image 0 of the data is of type int"),
        ([RGB] * 6, LABELS, "image 0 of the data has shape"),
    ],
)
def test_a_pair_that_makes_no_sense_is_refused(images, labels, match):
    """Numbers, shapes, dtypes, ranges and several labels per image: one line each."""
    check_refused((images, labels), match)


def test_number_labels_must_lie_within_an_adapters_classes():
    """Labels below the number of classes are taken as they are, others refused."""
    assert LABELS == open_source((RGB, LABELS), val_fraction=0, classes=("a", "b", "c", "d")).parts["train"].labels
    check_refused((RGB, LABELS), "labels outside the range: 2; expected 0 to 1", classes=("a", "b"))
    one = open_source((RGB[:1], [1]), classes=("a", "b"))
    assert [1] == one.parts["train"].labels and "no val part" == one.val_note


@pytest.mark.parametrize(
    "images",
    [
        RGB,
        torch.from_numpy(RGB).permute(0, 3, 1, 2),
        torch.from_numpy(RGB).permute(0, 3, 1, 2).float() / 255,
        [Image.fromarray(image) for image in RGB],
    ],
)
@pytest.mark.parametrize("labels", [LABELS, torch.tensor(LABELS)])
def test_a_data_set_gives_its_images_in_order(images, labels):
    """Arrays, tensors and PIL images; integers and tensors of one integer."""
    assert torch.equal(_decoded((RGB, LABELS)), _decoded(Pairs(images, labels)))


def test_a_data_sets_own_class_names_are_used_also_through_a_subset():
    """`classes` may name more classes than the images show."""
    names = ["cat", "dog", "cow", "hen"]
    assert tuple(names) == open_source(Pairs(RGB, LABELS, names), val_fraction=0).classes
    assert tuple(names) == open_source(Subset(Pairs(RGB, LABELS, names), [0, 1]), val_fraction=0).classes
    assert ("0", "1", "2") == open_source(Pairs(RGB, LABELS), val_fraction=0).classes


def test_numbers_of_a_data_set_count_its_own_classes():
    """A val part without a class, or with the classes in another order, is not read by train's numbers."""
    train = Pairs(RGB, LABELS, ["ape", "bee", "cat"])
    parts = open_source({"train": train, "val": Pairs(RGB[:2], [0, 1], ["bee", "cat"])}).parts
    assert parts["train"].labels == LABELS and parts["val"].labels == [1, 2]
    other = {"train": Pairs(RGB[:2], [0, 1], ["cat", "ape"])}
    assert open_source(other, val_fraction=0, classes=("ape", "bee", "cat")).parts["train"].labels == [2, 0]
    check_refused({"train": train, "val": Pairs(RGB[:1], [0], ["dog"])}, "class 'dog' in the val part is unknown")
    check_refused({"train": train, "val": Pairs(RGB[:1], [3], ["bee", "cat"])}, "labels outside the range: 3")


def test_names_of_a_data_set_do_not_matter_where_known_classes_are_numbers():
    """Unless some of the names are such numbers: then the data set may hold some of the classes only."""
    for names, labels in ((["ape", "bee"], [0, 1]), (["1", "2"], [1, 2])):
        data = Pairs(RGB[:2], [0, 1], names)
        assert open_source(data, val_fraction=0, classes=("0", "1", "2")).parts["train"].labels == labels


def test_a_tensor_data_set_serves():
    """torch's own pair of tensors is a data set like any other."""
    data = TensorDataset(torch.from_numpy(RGB).permute(0, 3, 1, 2), torch.tensor(LABELS))
    assert torch.equal(_decoded((RGB, LABELS)), _decoded(data))


def test_a_data_set_is_never_called_from_two_threads():
    """Its own code need not be safe for that."""
    import threading

    seen = set()

    class Watching(Pairs):
        def __getitem__(self, index):
            seen.add(threading.get_ident())
            return super().__getitem__(index)

    open_images(Watching(RGB, LABELS), describe(), val_fraction=0, threads=4)
    assert {threading.get_ident()} == seen


def test_a_data_set_that_fails_or_gives_something_else_is_refused():
    """The index and what came are named."""

    class Broken(Pairs):
        def __getitem__(self, index):
            raise RuntimeError("disk gone")

    class Mapped(Pairs):
        def __getitem__(self, index):
            return {"image": self.images[index], "label": self.labels[index]}

    class Stream(IterableDataset):
        def __iter__(self):
            return iter([])

    check_refused(Broken(RGB, LABELS), "fails at index 0 with RuntimeError: disk gone")
    check_refused(Mapped(RGB, LABELS), "gives a dict of 2 at index 0")
    check_refused(Pairs([], []), "holds no images")
    check_refused(Pairs(RGB, [[0, 1]] * 6), "multi-label data is not supported")
    check_refused(Pairs(RGB, torch.eye(6)), "multi-label data is not supported")
    check_refused(DataLoader(Pairs(RGB, LABELS)), "hand over loader.dataset")
    check_refused(Stream(), "of type Stream")
    with pytest.raises(DataError, match=r"image 0 of the data has floats from -1 to -1; .*leave normalisation out"):
        open_images(Pairs(-torch.ones(6, 3, 8, 8), LABELS), describe(), val_fraction=0)


def test_a_mapping_gives_its_parts_and_touches_only_those_asked_for():
    """The test part of a mapping is not asked for a single item while training."""
    test = Pairs(RGB, LABELS)
    data = {"train": (RGB, LABELS), "val": Pairs(RGB[:2], [0, 1]), "test": test}
    source = open_source(data, parts=("train", "val"))
    assert {"train", "val"} == set(source.parts) and "val part of the data" == source.val_note
    assert 0 == test.asked
    assert {"train", "val", "test"} == set(open_source(data).parts) and 6 == test.asked
    assert "20 % of train, held out" == open_source({"train": (RGB, LABELS), "val": None}).val_note


def test_a_mapping_matches_names_to_trains():
    """Classes come from train; what only val knows is refused."""
    data = {"train": (RGB, ["b", "a", "c"] * 2), "test": (RGB[:1], ["c"])}
    source = open_source(data, parts=("test",))
    assert ("a", "b", "c") == source.classes and [2] == source.parts["test"].labels
    check_refused({**data, "val": (RGB[:1], ["z"])}, "class 'z' in the val part is unknown")
    check_refused({"train": (RGB, LABELS), "val": (RGB[:1], [3])}, "the val part: labels outside the range: 3")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ({}, "empty mapping"),
        ({"train": None}, "empty mapping"),
        ({"training": (RGB, LABELS)}, "key 'training'"),
        ({"train": "folder"}, "the train part is of type str"),
        ({"val": (RGB, LABELS)}, "no train part"),
        (RGB, "ndarray without labels"),
        (list(RGB), "list without labels"),
        ((RGB, LABELS, LABELS), "tuple without labels"),
        (None, "of type NoneType"),
        (5, "of type int"),
        (object(), "of type object"),
    ],
)
def test_what_is_no_data_is_refused(data, match):
    """One line says what may be handed over."""
    check_refused(data, match)


def test_a_picture_of_a_list_is_drawn_only_once_decoded():
    """Handing over many PIL images does not copy them."""
    images = [draw(i) for i in range(6)]
    pictures = open_source((images, LABELS), val_fraction=0).parts["train"].pictures
    assert all(a is b for a, b in zip(images, pictures, strict=True))
