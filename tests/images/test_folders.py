"""Folders of images: trees, index.csv, VTAB's lists, and what is refused in them."""

import os
import shutil
from pathlib import Path

import pytest

from ttctune.errors import DataError
from ttctune.images import open_images, open_source

from .pictures import describe, draw, write_image_tree

HEADER = "file,split,label,class"


def check_refused(data, match: str, **settings) -> None:
    with pytest.raises(DataError, match=match) as caught:
        open_source(data, **settings)
    assert "\n" not in str(caught.value) and "; expected " in str(caught.value)


def _names(part) -> list[str]:
    return [picture.name for picture in part.pictures]


def _index(folder: Path, *lines: str, header: str = HEADER) -> Path:
    folder.mkdir(exist_ok=True)
    for name in ("a.png", "b.png", "c.png", "d.png"):
        draw(0).save(folder / name)
    (folder / "index.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder


GOOD = ("b.png,train,1,dog", "a.png,train,0,cat", "c.png,val,0,cat", "d.png,test,1,dog")


class TestTrees:
    """A folder per class."""

    def test_part_folders_are_the_parts_and_class_names_are_sorted(self, tmp_path):
        """train, val and test each give their images, labelled by the sorted names of train's folders."""
        write_image_tree(tmp_path, ("zebra", "ant", "Bee"), parts={"train": 3, "val": 2, "test": 1})
        source = open_source(tmp_path)
        assert ("Bee", "ant", "zebra") == source.classes
        assert [9, 6, 3] == [len(source.parts[name]) for name in ("train", "val", "test")]
        assert [0, 0, 0, 1, 1, 1, 2, 2, 2] == source.parts["train"].labels
        assert ["Bee", "ant", "zebra"] == [path.parent.name for path in source.parts["test"].pictures]
        assert "val part of the data" == source.val_note

    @pytest.mark.parametrize("name", ["valid", "validation", "Val"])
    def test_other_names_of_val_are_understood(self, tmp_path, name):
        """valid, validation and capitals mean val."""
        write_image_tree(tmp_path, parts=("train", name))
        assert {"train", "val"} == set(open_source(tmp_path).parts)

    @pytest.mark.parametrize("parts", [None, ("train", "val")])
    @pytest.mark.parametrize("mark", ["x/checkpoint/run.json", "x/adapter.json", "x/config.json", "adapter.json"])
    def test_what_ttctune_wrote_beside_the_classes_is_no_class(self, tmp_path, parts, mark):
        """A run's own folder, and one of such folders, as `fit --data .` leaves them."""
        expected = open_source(write_image_tree(tmp_path, 3, parts=parts))
        file = tmp_path / "runs" / mark
        file.parent.mkdir(parents=True)
        file.write_text('{"ttctune_format": 1, "merged_by_ttctune": "0.1"}')
        draw(0).save(file.parent / "channels.png")
        (tmp_path / "runs" / "begun").mkdir()
        (tmp_path / "runs" / "notes.txt").write_text("mine")
        found = open_source(tmp_path)
        assert expected.classes == found.classes
        for part, images in expected.parts.items():
            assert list(images.pictures) == list(found.parts[part].pictures)

    @pytest.mark.parametrize("beside", ["x.png", "other/x.png", None])
    def test_a_folder_of_images_is_a_class_though_a_run_lies_in_it(self, tmp_path, beside):
        """Images beside the run are never passed over, and a folder without either is a mistake."""
        write_image_tree(tmp_path, 2)
        (tmp_path / "runs" / "a").mkdir(parents=True)
        if beside is None:
            return check_refused(tmp_path, "class folder .*/runs holds no images")
        (tmp_path / "runs" / "a" / "adapter.json").write_text('{"ttctune_format": 1}')
        (tmp_path / "runs" / beside).parent.mkdir(exist_ok=True)
        draw(0).save(tmp_path / "runs" / beside)
        draw(1).save((tmp_path / "runs" / beside).with_name("y.png"))
        assert ("class0", "class1", "runs") == open_source(tmp_path).classes
        return None

    def test_training_and_testing_are_parts(self, tmp_path):
        """As many a download has them."""
        write_image_tree(tmp_path / "Training", ("a", "b"), 3)
        write_image_tree(tmp_path / "Testing", ("a", "b"), 2)
        source = open_source(tmp_path, val_fraction=0)
        assert {"train": 6, "test": 4} == {part: len(images) for part, images in source.parts.items()}

    def test_training_beside_a_class_is_a_class(self, tmp_path):
        """Though there are folders in it."""
        for name in ("match", "training"):
            write_image_tree(tmp_path / name, ("2019", "2020"))
        source = open_source(tmp_path, val_fraction=0)
        assert ("match", "training") == source.classes

    def test_two_folders_for_one_part_are_refused(self, tmp_path):
        """val beside valid leaves open which is meant."""
        write_image_tree(tmp_path, parts=("train", "val", "valid"))
        check_refused(tmp_path, "two folders for the val part")

    def test_a_folder_per_class_is_all_train(self, tmp_path):
        """Without part folders a fifth is held out."""
        source = open_source(write_image_tree(tmp_path, 3, 10))
        assert (24, 6) == (len(source.parts["train"]), len(source.parts["val"]))
        assert "20 % of train, held out" == source.val_note

    def test_a_class_may_be_called_train(self, tmp_path):
        """Folders of pictures beside others are classes, whatever they are called."""
        source = open_source(write_image_tree(tmp_path, ("car", "test", "train")), val_fraction=0)
        assert ("car", "test", "train") == source.classes and {"train"} == set(source.parts)

    def test_a_part_beside_classes_of_the_same_names_is_no_class(self, tmp_path):
        """Its images would be trained on as a class of their own."""
        write_image_tree(tmp_path, ("a", "b"))
        write_image_tree(tmp_path / "test", ("a", "b"))
        check_refused(tmp_path, "has the class a beside test, and in it")

    def test_order_is_fixed_and_sub_folders_count(self, tmp_path):
        """Files come sorted by path, at any depth, with any case of ending; hidden and other files do not."""
        write_image_tree(tmp_path, ("a", "b"), 2)
        (tmp_path / "a" / "deep").mkdir()
        draw(0).save(tmp_path / "a" / "deep" / "x.JPG")
        for junk in ("a/.hidden.png", "a/notes.txt", ".hidden/x.png", "a/.git/y.png", "loose.png"):
            (tmp_path / junk).parent.mkdir(exist_ok=True)
            shutil.copy(tmp_path / "a" / "000.png", tmp_path / junk)
        source = open_source(tmp_path, val_fraction=0)
        expected = ["a/000.png", "a/001.png", "a/deep/x.JPG", "b/000.png", "b/001.png"]
        assert expected == [str(path.relative_to(tmp_path)) for path in source.parts["train"].pictures]

    def test_linked_class_folders_are_followed_once(self, tmp_path):
        """A link to a class folder elsewhere serves; a link that leads in a circle ends."""
        write_image_tree(tmp_path / "store", ("a", "b"), 2)
        (tmp_path / "data").mkdir()
        for name in ("a", "b"):
            (tmp_path / "data" / name).symlink_to(tmp_path / "store" / name)
        (tmp_path / "store" / "a" / "circle").symlink_to(tmp_path / "store" / "a")
        assert 4 == len(open_source(tmp_path / "data", val_fraction=0).parts["train"])

    def test_a_link_to_nothing_is_an_image_that_cannot_be_read(self, tmp_path):
        """And is not left out without a word."""
        write_image_tree(tmp_path, ("a", "b"), 2)
        (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
        source = open_source(tmp_path, val_fraction=0)
        assert "gone.png" in _names(source.parts["train"])
        with pytest.raises(DataError, match=r"gone\.png"):
            open_images(tmp_path, describe(8), val_fraction=0)
        assert open_images(tmp_path, describe(8), val_fraction=0, skip_bad=True).skipped == 1

    @pytest.mark.parametrize("part", ["val", "test"])
    def test_a_class_that_train_lacks_is_refused(self, tmp_path, part):
        """The class and the part are named."""
        write_image_tree(tmp_path, 2, parts=("train", part))
        write_image_tree(tmp_path / part, ("unicorn",), 1)
        check_refused(tmp_path, rf"class 'unicorn' in .*{part} is unknown")

    def test_missing_empty_and_flat_folders_are_refused(self, tmp_path):
        """Each case says which folder and what it should hold."""
        check_refused(tmp_path / "nowhere", "nowhere does not exist")
        (tmp_path / "file.zip").write_text("")
        check_refused(tmp_path / "file.zip", "is a file")
        (tmp_path / "empty").mkdir()
        check_refused(tmp_path / "empty", "holds no images")
        (tmp_path / "flat").mkdir()
        draw(0).save(tmp_path / "flat" / "a.png")
        check_refused(tmp_path / "flat", "images but no class folders")
        for part in ("train", "test"):
            (tmp_path / "flat2" / part).mkdir(parents=True)
            draw(0).save(tmp_path / "flat2" / part / "a.png")
        check_refused(tmp_path / "flat2", "flat2/train holds images but no class folders")
        (tmp_path / "bare" / "a").mkdir(parents=True)
        (tmp_path / "bare" / "b").mkdir()
        check_refused(tmp_path / "bare", "holds no images")

    def test_an_empty_class_folder_in_train_is_refused(self, tmp_path):
        """A class nobody can learn is more likely a mistake."""
        write_image_tree(tmp_path, ("a", "b"))
        (tmp_path / "c").mkdir()
        check_refused(tmp_path, "class folder .*/c holds no images")

    def test_unlabelled_test_images_do_not_stop_training(self, tmp_path):
        """A test folder without class folders matters only when it is asked for."""
        write_image_tree(tmp_path, parts=("train", "val"))
        (tmp_path / "test").mkdir()
        draw(0).save(tmp_path / "test" / "a.png")
        assert {"train", "val"} == set(open_source(tmp_path, parts=("train", "val")).parts)
        check_refused(tmp_path, "test holds images but no class folders", parts=("test",))

    def test_one_class_is_refused(self, tmp_path):
        """There is nothing to tell apart."""
        check_refused(write_image_tree(tmp_path, ("only",)), "one class, 'only'")

    def test_a_test_part_alone_cannot_be_trained_on(self, tmp_path):
        """With val or test only, train is missed by name; for an adapter's classes they are enough."""
        write_image_tree(tmp_path, parts=("test",))
        check_refused(tmp_path, "no train folder")
        names = ("class0", "class1", "class2")
        assert {"test"} == set(open_source(tmp_path, parts=("test",), classes=names).parts)
        check_refused(tmp_path, "no train part", classes=names)

    def test_classes_of_an_adapter_are_matched_by_name(self, tmp_path):
        """Labels follow the adapter's order; missing classes are fine, unknown ones are not."""
        write_image_tree(tmp_path, ("b", "d"), 1)
        source = open_source(tmp_path, classes=("d", "c", "b"), val_fraction=0)
        assert [2, 0] == source.parts["train"].labels and ("d", "c", "b") == source.classes
        check_refused(tmp_path, r"class 'd' in .* is unknown; expected one of the 2 known classes", classes=("b", "c"))
        assert [0] == open_source(write_image_tree(tmp_path / "one", ("b",), 1), classes=("b",)).parts["train"].labels


class TestIndex:
    """index.csv."""

    def test_index_wins_and_keeps_its_order(self, tmp_path):
        """Rows come as listed, whatever folders and lists lie beside the index."""
        write_image_tree(tmp_path, parts=("train",))
        (tmp_path / "train800.txt").write_text("nonsense")
        source = open_source(_index(tmp_path, *GOOD))
        assert ["b.png", "a.png"] == _names(source.parts["train"])
        assert [1, 0] == source.parts["train"].labels and ("cat", "dog") == source.classes
        assert {"train": 2, "val": 1, "test": 1} == {name: len(part) for name, part in source.parts.items()}

    @pytest.mark.parametrize("character", ["\u2028", "\x85", "\x0c", "\x1c"])
    def test_a_name_may_hold_what_is_a_line_to_unicode_alone(self, tmp_path, character):
        """The line ends where the file's does."""
        name = f"a{character}b.png"
        _index(tmp_path, f"{name},train,0,cat", *GOOD[:1])
        draw(0).save(tmp_path / name)
        assert [name, "b.png"] == _names(open_source(tmp_path, val_fraction=0).parts["train"])

    def test_a_byte_order_mark_quotes_and_blank_lines_are_fine(self, tmp_path):
        """What spreadsheets write is read."""
        _index(tmp_path)
        text = f'\ufeff{HEADER}\r\na.png,train,0,"cat, grey"\r\n\r\nb.png,train,1,dog\r\n'
        (tmp_path / "index.csv").write_bytes(text.encode())
        assert ("cat, grey", "dog") == open_source(tmp_path, val_fraction=0).classes

    @pytest.mark.parametrize(
        ("line", "match"),
        [
            ("a.png,train,0", "line 6 has 3 fields"),
            ("a.png,dev,0,cat", "line 6 has the split 'dev'"),
            ("a.png,train,one,cat", "line 6 has the label 'one'"),
            ("a.png,train,1.0,cat", "line 6 has the label '1.0'"),
            ("a.png,train,0;1,cat", "multi-label data is not supported"),
            ("a.png,train,0|1,cat", "multi-label data is not supported"),
            ("a.png,train,0 1,cat", "multi-label data is not supported"),
            ("a.png,train,0,dog", "line 6 pairs label 0 with class 'dog', but above label 0 is 'cat'"),
            ("a.png,train,2,dog", "line 6 pairs label 2 with class 'dog', but above 'dog' is label 1"),
            ("a.png,train,3,cow", "labels outside the range"),
            ("a.png,train,-1,cow", "labels outside the range"),
            ("a.png,train,0,", "no class name"),
            (",train,0,cat", "no file"),
            ("gone.png,train,0,cat", "line 6 names 'gone.png', which is missing"),
            ("../a.png,train,0,cat", r"without '\.\.'"),
            ("/etc/passwd,train,0,cat", "line 6 names '/etc/passwd'; expected a path relative"),
            ("C:/a.png,train,0,cat", "line 6 names 'C:/a.png'; expected a path relative"),
            (".,train,0,cat", "which is missing"),
            ("x" * 5000 + ".png,train,0,cat", "which is missing"),
        ],
    )
    def test_a_wrong_line_is_named_by_number(self, tmp_path, line, match):
        """Each mistake gives one line with file name, line number and value."""
        check_refused(_index(tmp_path, *GOOD, line), match)

    @pytest.mark.parametrize(
        "header", ["", "file,label,class", "file,split,label,class,extra", "FILE,split,label,class"]
    )
    def test_another_header_is_refused(self, tmp_path, header):
        """The header that is expected is shown."""
        check_refused(_index(tmp_path, *GOOD, header=header), "the header 'file,split,label,class'")

    def test_no_rows_and_binary_rubbish_are_refused(self, tmp_path):
        """An index without images, or that is no text at all."""
        check_refused(_index(tmp_path), "lists no images")
        (tmp_path / "index.csv").write_bytes(b"\xff\xfe\x00\x80")
        check_refused(tmp_path, "not UTF-8")

    @pytest.mark.skipif(os.name == "nt", reason="links need rights there")
    def test_links_that_lead_outside_are_refused(self, tmp_path):
        """A linked file and a linked folder; a link that stays inside is fine."""
        data = _index(tmp_path / "data", *GOOD, "inner.png,train,0,cat")
        (data / "inner.png").symlink_to(data / "a.png")
        assert 3 == len(open_source(data, val_fraction=0).parts["train"])
        draw(0).save(tmp_path / "secret.png")
        (data / "link.png").symlink_to(tmp_path / "secret.png")
        (data / "folder").symlink_to(tmp_path)
        for name in ("link.png", "folder/secret.png"):
            check_refused(
                _index(data, *GOOD, f"{name},train,0,cat"),
                f"index.csv line 6 names '{name}', which leads outside",
            )

    def test_files_of_parts_that_are_not_asked_for_are_not_looked_at(self, tmp_path):
        """A missing test image does not stop training."""
        _index(tmp_path, *GOOD, "gone.png,test,0,cat")
        assert {"train", "val"} == set(open_source(tmp_path, parts=("train", "val")).parts)
        check_refused(tmp_path, "gone.png")

    def test_classes_of_an_adapter_are_matched_by_name(self, tmp_path):
        """The file's own numbers do not matter then, and it may list fewer classes."""
        _index(tmp_path, "a.png,test,7,dog", "b.png,test,3,cat")
        assert [1, 2] == open_source(tmp_path, parts=("test",), classes=("cow", "dog", "cat")).parts["test"].labels
        check_refused(tmp_path, "class 'dog' in .*index.csv line 2 is unknown", parts=("test",), classes=("cow", "cat"))


class TestVtab:
    """VTAB's lists."""

    @staticmethod
    def _write(folder: Path, **lists: str) -> Path:
        for name, labels in lists.items():
            (folder / "images" / name).mkdir(parents=True, exist_ok=True)
            lines = [f"images/{name}/{i:06d}.jpg {label}" for i, label in enumerate(labels.split(","))]
            for i in range(len(lines)):
                draw(i).save(folder / "images" / name / f"{i:06d}.jpg")
            (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
        return folder

    def test_the_three_lists_are_the_three_parts(self, tmp_path):
        """train is train800, val is val200, and classes are numbers up to the largest of all lists."""
        self._write(tmp_path, train800="0,1,0", val200="1,0", train800val200="0,1,0,1,0", test="3,1")
        source = open_source(tmp_path)
        assert ("0", "1", "2", "3") == source.classes and "val part of the data" == source.val_note
        assert {"train": [0, 1, 0], "val": [1, 0], "test": [3, 1]} == {n: p.labels for n, p in source.parts.items()}
        assert ["000000.jpg", "000001.jpg"] == _names(source.parts["test"])

    def test_the_joint_list_serves_where_train800_is_missing(self, tmp_path):
        """train800val200 is train, and val is held out of it."""
        source = open_source(self._write(tmp_path, train800val200="0,0,0,1,1,1", test="1"), val_fraction=0.34)
        assert (4, 2, 1) == tuple(len(source.parts[name]) for name in ("train", "val", "test"))
        assert "34 % of train, held out" == source.val_note

    @pytest.mark.parametrize(
        ("line", "match"),
        [
            ("images/train800/000000.jpg 1 4", "multi-label data is not supported"),
            ("images/train800/000000.jpg 1,4", "multi-label data is not supported"),
            ("images/train800/000000.jpg", "train800.txt line 3 reads"),
            ("images/train800/000000.jpg cat", "train800.txt line 3 reads"),
            ("images/train800/000000.jpg -1", "train800.txt line 3 reads"),
            (
                "images/train800/gone.jpg 1",
                "train800.txt line 3 names 'images/train800/gone.jpg', which is missing",
            ),
            ("../x.jpg 1", "line 3 names"),
            ("/etc/x.jpg 1", "line 3 names"),
            ("nonsense", "line 3 reads 'nonsense'"),
        ],
    )
    def test_a_wrong_line_is_named_by_number(self, tmp_path, line, match):
        """Each mistake gives one line with list, line number and value."""
        self._write(tmp_path, train800="0,1", val200="0", test="1")
        with open(tmp_path / "train800.txt", "a") as file:
            file.write(line + "\n")
        check_refused(tmp_path, match)

    def test_names_may_hold_blanks(self, tmp_path):
        """Only the last number is the label."""
        self._write(tmp_path, train800="0,1")
        draw(0).save(tmp_path / "my picture 3.jpg")
        (tmp_path / "val200.txt").write_text("my picture 3.jpg 1\n")
        assert ["my picture 3.jpg"] == _names(open_source(tmp_path).parts["val"])

    def test_empty_lists_and_missing_train_lists_are_refused(self, tmp_path):
        """test.txt alone serves an adapter's classes, not training."""
        self._write(tmp_path, test="0,1")
        check_refused(tmp_path, "no train list")
        assert [0, 1] == open_source(tmp_path, parts=("test",), classes=("0", "1", "2")).parts["test"].labels
        check_refused(tmp_path, "labels outside the range: 1", parts=("test",), classes=("0",))
        check_refused(tmp_path, "those that are known have names", parts=("test",), classes=("a", "b"))
        (tmp_path / "train800.txt").write_text("\n")
        check_refused(tmp_path, "lists no images")

    @pytest.mark.parametrize(
        ("name", "line", "match"),
        [
            ("val200", "images/train800/000000.jpg 0", "val200.txt line 2 lists .* again, after train800.txt line 1"),
            ("test", "./images//val200/000000.jpg 0", "test.txt line 2 lists .* again, after val200.txt line 1"),
            ("test", "images/train800/000001.jpg 0", "multi-label"),
            ("train800", "images/train800/./000001.jpg 1", "train800.txt line 3 lists .* again, after line 2"),
        ],
    )
    def test_an_image_in_two_lists_is_refused_however_it_is_spelled(self, tmp_path, name, line, match):
        """What is trained on would be scored."""
        self._write(tmp_path, train800="0,1", val200="0", test="1")
        with (tmp_path / f"{name}.txt").open("a") as file:
            file.write(line + "\n")
        check_refused(tmp_path, match)

    def test_the_joint_list_may_repeat_the_two_that_it_joins(self, tmp_path):
        """train800val200 is not read where train800 is there."""
        self._write(tmp_path, train800="0,1", val200="0", test="1")
        both = "".join((tmp_path / f"{name}.txt").read_text() for name in ("train800", "val200"))
        (tmp_path / "train800val200.txt").write_text(both)
        assert (2, 1, 1) == tuple(len(part) for part in open_source(tmp_path).parts.values())

    def test_a_label_far_beyond_the_others_is_a_mistake_and_no_class(self, tmp_path):
        """A stray 99999 would give a head of 100,000 rows; a few gaps are in the nature of 1,000 images."""
        self._write(tmp_path, train800="0,1,2", val200="1", test="99999")
        check_refused(tmp_path, "test.txt line 1 has the label 99999, and only 4 of the labels 0 to 99999 occur")
        self._write(tmp_path, test="7")
        assert 8 == len(open_source(tmp_path).classes)
        self._write(tmp_path, test="8")
        check_refused(tmp_path, "only 4 of the labels 0 to 8 occur")


def test_a_file_listed_twice_is_refused(tmp_path):
    """In two parts it would leak from train into test; with two labels it would be multi-label data."""
    write_image_tree(tmp_path, classes=2, per_class=2, parts={"train": 2})
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
    rows = [f"{file},train,{n // 2},c{n // 2}" for n, file in enumerate(files)]
    for extra, match in (
        (f"{files[0]},test,0,c0", "again, after line 2"),
        (f"./{files[0]},test,0,c0", "again, after line 2"),
        (f"{files[0]},train,1,c1", "multi-label"),
        (f"./{files[0]},train,1,c1", "multi-label"),
    ):
        (tmp_path / "index.csv").write_text("\n".join(["file,split,label,class", *rows, extra]) + "\n")
        check_refused(tmp_path, match)


def test_a_file_listed_through_a_linked_folder_is_the_same_file(tmp_path):
    """It would be trained on and scored."""
    write_image_tree(tmp_path, classes=2, per_class=2)
    (tmp_path / "copy").symlink_to(tmp_path / "class0")
    rows = [f"class{n}/00{k}.png,train,{n},c{n}" for n in (0, 1) for k in (0, 1)] + ["copy/000.png,test,0,c0"]
    (tmp_path / "index.csv").write_text("\n".join(["file,split,label,class", *rows]) + "\n")
    check_refused(tmp_path, "line 6 lists copy/000.png again, after line 2")
