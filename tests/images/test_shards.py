"""Shards: parts, labels, class names, order, and refusals."""

import json
import tarfile

import pytest
import torch

from ttctune.errors import DataError
from ttctune.images import open_images, open_source
from ttctune.images.pictures import picture_name

from .pictures import describe, write_image_tree
from .shards import png, sample, write_as_shards, write_tar

DESCRIPTION = describe()
TWO = [*sample("0", "cat"), *sample("1", "dog")]


def check_refused(data, match, **settings):
    with pytest.raises(DataError, match=match) as caught:
        open_source(data, **{"val_fraction": 0, **settings})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("parts", ["", "train"])
def test_a_run_beside_shards_is_no_part_of_them(tmp_path, parts):
    write_tar(tmp_path / parts / "0.tar", TWO)
    (tmp_path / "runs" / "x").mkdir(parents=True)
    (tmp_path / "runs" / "x" / "adapter.json").write_text('{"ttctune_format": 1}')
    assert ("cat", "dog") == open_source(tmp_path, val_fraction=0).classes


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("parts", [None, {"train": 5, "val": 2, "test": 1}])
def test_shards_and_the_folder_tree_they_were_made_of_are_the_same_data(tmp_path, parts, streaming):
    """Classes, order, what is held out, labels, pixels and digest."""
    tree = write_image_tree(tmp_path / "tree", 3, 7, parts=parts)
    shards = write_as_shards(tree, tmp_path / "shards")
    asked = ("train", "val", "test") if parts else ("train", "val")
    from_tree = open_images(tree, DESCRIPTION, parts=asked)
    from_shards = open_images(shards, DESCRIPTION, parts=asked, streaming=streaming, threads=2)
    assert from_tree.classes == from_shards.classes and from_tree.val_note == from_shards.val_note
    assert set(asked) == set(from_tree.parts) == set(from_shards.parts)
    for name, part in from_tree.parts.items():
        (images, labels), *rest = from_shards.parts[name].batches(100)
        assert not rest and torch.equal(part.images, images) and torch.equal(part.labels, labels)
        assert part.digest() == from_shards.parts[name].digest()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a.tar": 2, "b.tar": 2}, {"train": 4}),
        ({"train-000000.tar": 2, "val-000000.tar": 2, "test-000000.tar": 2}, {"train": 2, "val": 2, "test": 2}),
        ({"imagenet-train-0.tar": 2, "imagenet-validation-0.tar": 2}, {"train": 2, "val": 2}),
        ({"000000.tar": 2, "000001.tar": 2, "valid-0.tar": 2}, {"train": 4, "val": 2}),
        ({"train/0.tar": 2, "train/1.tar": 2, "test/0.tar": 2}, {"train": 4, "test": 2}),
        ({"train/val-like.TAR": 2, "Validation/0.tar": 2}, {"train": 2, "val": 2}),
    ],
)
def test_names_or_folders_say_which_part_a_shard_belongs_to(tmp_path, files, expected):
    """Part folders win over names, and shards without a part are train."""
    for name in files:
        write_tar(tmp_path / name, TWO)
    source = open_source(tmp_path, val_fraction=0)
    assert expected == {part: len(images) for part, images in source.parts.items()}


def test_one_shard_and_a_pattern_are_data_too(tmp_path):
    """A file, and a name with *; the order is that of the names."""
    for name in ("train-1.tar", "train-0.tar", "other.tar"):
        write_tar(tmp_path / name, TWO)
    assert 2 == len(open_source(tmp_path / "train-0.tar", val_fraction=0).parts["train"])
    train = open_source(str(tmp_path / "train-*.tar"), val_fraction=0).parts["train"]
    names = [picture_name(train.pictures, i) for i in range(len(train))]
    assert [f"{tmp_path}/train-{i}.tar: {j}.png" for i in (0, 1) for j in (0, 1)] == names
    check_refused(tmp_path / "none-*.tar", "does not exist")


def test_an_archive_beside_class_folders_is_not_data(tmp_path):
    """The download beside what was unpacked from it stays unread, compressed or not."""
    write_image_tree(tmp_path, 2, 2)
    (tmp_path / "flowers.tar").write_bytes(b"rubbish")
    (tmp_path / "flowers.tgz").write_bytes(b"rubbish")
    assert 4 == len(open_source(tmp_path, val_fraction=0).parts["train"])


@pytest.mark.parametrize(
    ("field", "content", "expected"),
    [
        ("cls", "1", "1"),
        ("cls", " 1\n", "1"),
        ("cls", "\ufeffcat", "cat"),
        ("cls", "grey cat", "grey cat"),
        ("json", '{"label": 1}', "1"),
        ("json", '{"label": "cat", "caption": "x"}', "cat"),
        ("json", '{"class": "cat"}', "cat"),
        ("json", '"cat"', "cat"),
        ("json", "1", "1"),
    ],
)
def test_a_label_is_a_number_or_a_name_as_text_or_json(tmp_path, field, content, expected):
    """Numbers are called by themselves."""
    other = "0" if expected == "1" else "other"
    write_tar(tmp_path / "a.tar", [*sample("0", other), *sample("1", content, field)])
    source = open_source(tmp_path, val_fraction=0)
    assert expected == source.classes[source.parts["train"].labels[1]]


def test_cls_is_the_label_where_json_holds_something_else(tmp_path):
    """The text beside a picture need not say what its class is."""
    write_tar(tmp_path / "a.tar", [*TWO, ("1.json", b'{"caption": "a dog"}'), ("1.txt", b"a dog")])
    assert ("cat", "dog") == open_source(tmp_path, val_fraction=0).classes


@pytest.mark.parametrize(
    ("file", "content"), [("classes.txt", "zebra\r\nant\n\n"), ("classes.json", json.dumps(["zebra", "ant"]))]
)
def test_a_list_of_classes_names_the_numbers(tmp_path, file, content):
    """In the order of the list; for an adapter they are then matched by name."""
    write_tar(tmp_path / "train" / "a.tar", [*sample("0", 1), *sample("1", 0), *sample("2", 1)])
    (tmp_path / file).write_text(content)
    source = open_source(tmp_path, val_fraction=0)
    assert ("zebra", "ant") == source.classes and [1, 0, 1] == source.parts["train"].labels
    source = open_source(tmp_path, val_fraction=0, classes=("ant", "bee", "zebra"))
    assert [0, 2, 0] == source.parts["train"].labels
    check_refused(tmp_path, "class 'zebra' .* is unknown", classes=("ant", "bee"))


@pytest.mark.parametrize("content", ["", "a\n\nb", "a\na", '["a", 1]', '{"a": 0}', "[" * 100_000])
def test_a_list_of_classes_that_is_none_is_refused(tmp_path, content):
    """Empty, with a gap, twice the same, or other JSON."""
    write_tar(tmp_path / "a.tar", [*sample("0", 0), *sample("1", 1)])
    (tmp_path / ("classes.json" if content[:1] in ("[", "{") else "classes.txt")).write_text(content)
    check_refused(tmp_path, r"classes\.(txt|json) is no such list")


def test_a_class_name_may_hold_what_is_a_line_to_unicode_alone(tmp_path):
    """Lines of the list end where those of the file do."""
    write_tar(tmp_path / "a.tar", [*sample("0", 1), *sample("1", 0)])
    (tmp_path / "classes.txt").write_text("a\u2028b\nc\n", encoding="utf-8")
    assert open_source(tmp_path, val_fraction=0).classes == ("a\u2028b", "c")


def test_two_lists_of_classes_are_refused(tmp_path):
    """Nobody can say which one counts."""
    write_tar(tmp_path / "a.tar", TWO)
    for name in ("classes.txt", "classes.json"):
        (tmp_path / name).write_text('["cat", "dog"]')
    check_refused(tmp_path, "classes.txt and classes.json")


BAD_SAMPLES = {
    "picture without label": ([("0.png", png())], "key '0' .* has no label"),
    "label without picture": ([("0.cls", b"1")], "key '0' .* has no picture"),
    "a dot in a key": (
        [*sample("0", 0), *sample("a.1", 1)],
        "holds 'a.1.png', whose key ends at its first dot",
    ),
    "two pictures": ([("0.png", png()), ("0.jpg", png()), ("0.cls", b"1")], "key '0' .* has 2 pictures"),
    "the same twice": ([("0.png", png()), ("0.png", png()), ("0.cls", b"1")], "holds '0.png' twice"),
    "not next to each other": ([("0.png", png()), ("1.png", png()), ("0.cls", b"1")], "key '0' .* has no label"),
    "empty label": (sample("0", " "), "'0.cls' in shard .* holds ''"),
    "several labels": (sample("0", "1 2"), "multi-label data is not supported"),
    "a list": (sample("0", "[1, 2]", "json"), "multi-label data is not supported"),
    "no JSON": (sample("0", "{", "json"), "neither text nor JSON"),
    "deep JSON": (sample("0", "[" * 100_000, "json"), "neither text nor JSON"),
    "JSON without label": (sample("0", '{"caption": "x"}', "json"), "holds 'None'"),
    "a truth": (sample("0", '{"label": true}', "json"), "holds 'True'"),
    "a fraction": (sample("0", '{"label": 1.5}', "json"), "holds '1.5'"),
    "a huge number": (sample("0", 10**30, "json"), "holds '1000"),
    "no UTF-8": ([("0.png", png()), ("0.cls", b"\xff\xfe\x00")], "neither text nor JSON"),
    "control characters": (sample("0", "a\x00b"), "holds "),
    "an endless label": (sample("0", "x" * (1 << 21)), "bytes long"),
    "names and numbers": ([*sample("0", "cat"), *sample("1", 1)], "mix class names and numbers"),
    "numbers with a gap": ([*sample("0", 0), *sample("1", 2)], "labels outside the range"),
    "negative numbers": ([*sample("0", -1), *sample("1", 0)], "labels outside the range"),
    "nothing": ([("README", b"")], "hold no images"),
    "one class": (sample("0", "cat"), "one class, 'cat'"),
}


@pytest.mark.parametrize(("members", "match"), BAD_SAMPLES.values(), ids=BAD_SAMPLES.keys())
def test_a_wrong_sample_is_refused_by_name(tmp_path, members, match):
    """With the shard, the key or member, and what is wrong, in one line."""
    write_tar(tmp_path / "train-0.tar", members)
    check_refused(tmp_path, match)


def test_hidden_members_and_folders_do_not_disturb(tmp_path):
    """What a Mac puts into archives stands between the members of a key."""
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        folder = tarfile.TarInfo("./x")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    odd = [
        (f"./x/{part}", content) for name, content in TWO for part, content in ((f"._{name}", b"?"), (name, content))
    ]
    write_tar(tmp_path / "a.tar", odd)
    source = open_source(tmp_path, val_fraction=0)
    assert [0, 1] == source.parts["train"].labels
    assert f"{tmp_path}/a.tar: x/0.png" == picture_name(source.parts["train"].pictures, 0)


def test_shards_of_other_parts_are_not_opened(tmp_path):
    """Rubbish in test does not stop training; an adapter's classes make train needless."""
    write_tar(tmp_path / "train-0.tar", TWO)
    (tmp_path / "test-0.tar").write_bytes(b"rubbish")
    assert 2 == len(open_source(tmp_path, parts=("train",), val_fraction=0).parts["train"])
    check_refused(tmp_path, "test-0.tar is (no tar|cut short)")
    (tmp_path / "train-0.tar").write_bytes(b"rubbish")
    write_tar(tmp_path / "test-0.tar", TWO)
    assert {"test"} == set(open_source(tmp_path, parts=("test",), classes=("cat", "dog")).parts)


def test_shards_without_train_serve_an_adapter_only(tmp_path):
    """As folders do."""
    write_tar(tmp_path / "test-0.tar", TWO)
    check_refused(tmp_path, "no train shards")
    assert {"test"} == set(open_source(tmp_path, parts=("test",), classes=("cat", "dog")).parts)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "train-0.tar.zst", "train/a.tar.xz"])
def test_compressed_shards_are_refused_by_name(tmp_path, name):
    """Whatever they hold; also beside plain ones."""
    write_tar((tmp_path / name).parent / "0.tar", TWO)
    (tmp_path / name).write_bytes(b"")
    check_refused(tmp_path, "is compressed; expected an uncompressed .tar")


def test_training_in_the_name_of_a_shard_is_no_part(tmp_path):
    """It often says what all of them are for."""
    for part in ("val", "test"):
        write_tar(tmp_path / f"training-{part}-0.tar", [*sample("0", 0), *sample("1", 1)])
    write_tar(tmp_path / "shapes-0.tar", [*sample("0", 0), *sample("1", 1)])
    assert {"train", "val", "test"} == set(open_source(tmp_path).parts)


def test_a_name_with_two_parts_is_refused(tmp_path):
    """train-test.tar could be either."""
    write_tar(tmp_path / "train-test.tar", TWO)
    check_refused(tmp_path, "says test and train")


def test_an_unreadable_picture_in_a_shard_is_named_or_skipped(tmp_path):
    """By shard and member."""
    write_tar(tmp_path / "a.tar", [*TWO, ("2.png", b"rubbish"), ("2.cls", b"cat"), *sample("3", "dog")])
    for streaming in (False, True):
        with pytest.raises(DataError, match=r"a\.tar: 2\.png cannot be read"):
            open_images(tmp_path, DESCRIPTION, val_fraction=0, streaming=streaming)
        data = open_images(tmp_path, DESCRIPTION, val_fraction=0, streaming=streaming, skip_bad=True)
        assert [0, 1, 1] == data.train.labels.tolist() and [f"{tmp_path}/a.tar: 2.png"] == [
            n for n, _ in data.skipped_images
        ]
