"""Tasks found in folders, and the images of one job."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from tests.bench.vtab_tree import COUNTS, write_vtab_task, write_vtab_tree
from tests.images.pictures import describe, write_image_tree
from tests.images.shards import sample, write_tar

from models import tiny
from run_helpers import short
from ttctune.bench.suites import VTAB, Task, VtabTask, data_of, tasks_of
from ttctune.bench.suites.splits import few_of_each, fold_of_each
from ttctune.errors import DataError
from ttctune.images import open_images
from ttctune.run import prepare
from ttctune.training.device import find_device
from ttctune.training.progress import Reporter


def write_packed(folder: Path) -> Path:
    """A shard of ten images of two classes."""
    write_tar(folder / "train-0.tar", [member for i in range(10) for member in sample(f"{i}", i % 2, seed=i)])
    return folder


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return write_vtab_tree(tmp_path_factory.mktemp("vtab"))


@pytest.fixture
def task(tmp_path) -> Task:
    """A task of four classes in VTAB's layout; the images are of three."""
    folder = write_vtab_task(tmp_path / "kitti", {"train": 20, "val": 10, "test": 6}, 3)
    return Task("kitti", "structured", 4, folder)


class TestTasks:
    """Which tasks a suite has."""

    @pytest.mark.usefixtures("small")
    def test_vtab_has_its_19_in_order_with_groups_and_classes(self, tree):
        tasks = tasks_of("vtab", tree)
        assert [task.name for task in tasks] == list(VTAB)
        assert {(t.name, t.group, t.classes, t.path.name) for t in tasks} >= {("dtd", "natural", 47, "dtd")}

    def test_missing_tasks_are_all_named(self, tree, tmp_path):
        root = shutil.copytree(tree, tmp_path / "some", ignore=shutil.ignore_patterns("kitti", "dtd"))
        with pytest.raises(DataError, match=r"lacks 2 of the 19 tasks of VTAB: dtd, kitti; .*ttctune vtab check"):
            tasks_of("vtab", root)

    def test_lists_of_another_length_are_refused_and_the_first_named(self, tree, monkeypatch):
        sizes = {"train": COUNTS["train"], "val": COUNTS["val"], "test": COUNTS["test"] + 1}
        monkeypatch.setattr(VtabTask, "sizes", property(lambda row: sizes))
        said = r"cifar/test.txt has 12 images, and 18 more lists; expected 13; `ttctune vtab check .*` names all"
        with pytest.raises(DataError, match=said):
            tasks_of("vtab", tree)

    @pytest.mark.usefixtures("small")
    def test_one_list_for_train_and_val_has_the_length_of_both(self, tree, tmp_path):
        root = shutil.copytree(tree, tmp_path / "joined")
        (root / "kitti" / "train800.txt").unlink()
        (root / "kitti" / "val200.txt").unlink()
        assert len(tasks_of("vtab", root)) == len(VTAB)
        both = root / "kitti" / "train800val200.txt"
        both.write_text(both.read_text().partition("\n")[2])
        with pytest.raises(DataError, match=r"train800val200.txt has 23 images; expected 24"):
            tasks_of("vtab", root)

    def test_every_folder_with_images_is_a_task_however_they_lie_in_it(self, tmp_path):
        write_image_tree(tmp_path / "trees", 2, 2)
        write_vtab_task(tmp_path / "lists", COUNTS, 2)
        write_packed(tmp_path / "packed")
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes" / "ideas.txt").write_text("none yet")
        (tmp_path / "readme.md").write_text("x")
        tasks = tasks_of("folder", tmp_path)
        assert [(t.name, t.group, t.classes) for t in tasks] == [
            (n, "none", None) for n in ("lists", "packed", "trees")
        ]

    def test_an_index_beside_the_tasks_says_their_groups(self, tmp_path):
        for name in ("a", "b"):
            write_image_tree(tmp_path / name, 2, 2)
        (tmp_path / "index.csv").write_text("task,group\nb,aerial\n\n")
        assert [(t.name, t.group) for t in tasks_of("folder", tmp_path)] == [("a", "none"), ("b", "aerial")]

    @pytest.mark.parametrize(
        ("text", "said"),
        [("task,group\nb,x\n", "'b'"), ("task,group\na\n", "line 2"), ("name,kind\na,x\n", "name,kind"),
         ("task,group\na,x\na,y\n", "line 3"), ("task,group\na,\n", "line 2"),
         ('task,group\n"a' + "," * 200_000, "index.csv: field larger")],
    )  # fmt: skip
    def test_an_index_that_cannot_be_is_refused(self, tmp_path, text, said):
        write_image_tree(tmp_path / "a", 2, 2)
        (tmp_path / "index.csv").write_text(text)
        with pytest.raises(DataError, match=said):
            tasks_of("folder", tmp_path)

    def test_a_task_that_no_record_can_name_is_refused(self, tmp_path):
        write_image_tree(tmp_path / "t\udce9", 2, 2)
        with pytest.raises(DataError, match=r"a task 't\\udce9'.*rename its folder"):
            tasks_of("folder", tmp_path)

    @pytest.mark.parametrize("suite", ["vtab", "folder"])
    @pytest.mark.parametrize("kind", ["absent", "file", "empty"])
    def test_a_root_without_tasks_is_refused_by_name(self, tmp_path, suite, kind):
        root = tmp_path / "root"
        if kind == "file":
            root.write_text("x")
        if kind == "empty":
            root.mkdir()
        with pytest.raises(DataError, match="root"):
            tasks_of(suite, root)

    def test_an_unknown_suite_is_refused(self, tree):
        with pytest.raises(DataError, match="'vtabs'; expected vtab or folder"):
            tasks_of("vtabs", tree)


class TestSplits:
    """The images of one job."""

    def test_val_trains_on_train_and_scores_on_val(self, task):
        data = data_of(task, "val")
        assert (len(data.data.parts["train"]), len(data.labels)) == (20, 10)
        assert data.names[0] == "images/val200/000000.png" and data.classes == ("0", "1", "2", "3")

    def test_test_trains_on_train_and_val_and_scores_on_test(self, task):
        data = data_of(task, "test")
        train = data.data.parts["train"]
        folders = Counter(path.parent.name for path in train.pictures)
        assert folders == {"train800": 20, "val200": 10} and len(train.labels) == 30
        assert data.names == tuple(f"images/test/{i:06d}.png" for i in range(6))

    @pytest.mark.parametrize("split", ["val", "cv"])
    def test_the_test_part_and_its_list_stay_closed(self, task, split):
        before = data_of(task, split, 0 if split == "cv" else None).digest
        shutil.rmtree(task.path / "images" / "test")
        (task.path / "test.txt").write_text("rubbish that no reader would accept\n")
        assert data_of(task, split, 0 if split == "cv" else None).digest == before

    def test_folds_are_disjoint_cover_train_and_val_and_leave_what_they_score_out(self, task):
        seen: Counter[str] = Counter()
        for fold in range(5):
            data = data_of(task, "cv", fold)
            trained = {str(path) for path in data.data.parts["train"].pictures}
            assert len(trained) == 24 and len(data.names) == 6
            assert not trained & {str(task.path / name) for name in data.names}
            seen.update(data.names)
        assert len(seen) == 30 and set(seen.values()) == {1}

    def test_folds_are_stratified_seeded_and_of_equal_size(self):
        labels = [i % 7 if i % 3 else 0 for i in range(103)]
        fold = fold_of_each(labels, 4, seed=0)
        assert fold == fold_of_each(labels, 4, seed=0) != fold_of_each(labels, 4, seed=1)
        assert max(Counter(fold).values()) - min(Counter(fold).values()) <= 1
        for label in set(labels):
            counts = Counter(f for f, its in zip(fold, labels, strict=True) if its == label)
            assert max(counts[f] for f in range(4)) - min(counts[f] for f in range(4)) <= 1

    @pytest.mark.parametrize(("split", "fold"), [("val", None), ("cv", 3)])
    def test_shots_are_so_many_of_each_class_and_leave_what_is_scored_alone(self, task, split, fold):
        every, few = data_of(task, split, fold), data_of(task, split, fold, shots=3)
        all_of_each, of_each = (Counter(data.data.parts["train"].labels) for data in (every, few))
        assert of_each == {label: min(3, count) for label, count in all_of_each.items()} and 3 in of_each.values()
        assert few.names == every.names and few.classes == every.classes and few.digest == every.digest

    def test_fewer_shots_are_some_of_more_and_another_draw_has_others(self):
        labels = [i % 7 if i % 3 else 0 for i in range(103)]
        two, five = few_of_each(labels, 2, draw=0), few_of_each(labels, 5, draw=0)
        assert set(two) < set(five) and Counter(labels[i] for i in five) == dict.fromkeys(range(7), 5)
        assert two == few_of_each(labels, 2, draw=0) != few_of_each(labels, 2, draw=1)
        assert few_of_each(labels, 103, draw=0) == list(range(103))

    def test_classes_that_train_lacks_are_still_classes(self, task):
        """A head of four classes, though only three labels occur."""
        assert set(data_of(task, "val").labels) == {0, 1, 2} and len(data_of(task, "val").classes) == 4

    def test_a_run_trains_on_all_that_it_is_given_and_holds_nothing_out(self, task):
        data = data_of(task, "test")
        run = prepare(tiny("vit"), data.data, short(), None, find_device("cpu"), Reporter(quiet=True), None)
        assert len(run.images.train) == 30 and run.images.val is None and len(run.images.classes) == 4
        scored = open_images(data.scored, describe(), parts=("test",)).test
        assert scored.labels.tolist() == data.labels

    def test_the_digest_knows_contents_labels_and_split_but_not_names_or_folds(self, task, tmp_path):
        digest = data_of(task, "cv", 0).digest
        assert digest == data_of(task, "cv", 3).digest == data_of(task, "val").digest
        assert digest != data_of(task, "test").digest
        moved = tmp_path / "moved"
        shutil.copytree(task.path, moved)
        for old in sorted((moved / "images" / "train800").iterdir()):
            old.rename(old.with_name(f"x{old.name}"))
        text = (moved / "train800.txt").read_text()
        (moved / "train800.txt").write_text(text.replace("train800/", "train800/x"))
        same = Task("kitti", "structured", 4, moved)
        assert data_of(same, "val").digest == digest
        (moved / "train800.txt").write_text(text.replace("train800/", "train800/x").replace(".png 1", ".png 2", 1))
        assert data_of(same, "val").digest != digest

    def test_a_folder_without_val_holds_a_fifth_out(self, tmp_path):
        task = Task("shapes", "none", None, write_image_tree(tmp_path / "shapes", 3, 10))
        data = data_of(task, "val")
        assert (len(data.data.parts["train"]), len(data.labels)) == (24, 6)

    def test_shards_serve_as_folders_do(self, tmp_path):
        data = data_of(Task("packed", "none", None, write_packed(tmp_path / "packed")), "cv", 1)
        assert len(data.labels) == 2 and len(data.data.parts["train"]) == 8 and len(data.digest) == 64

    def test_a_list_of_1000_alone_is_no_val_of_200(self, task):
        for name in ("train800", "val200"):
            (task.path / f"{name}.txt").unlink()
        assert len(data_of(task, "test").data.parts["train"]) == 30
        with pytest.raises(DataError, match="no val part"):
            data_of(task, "val")

    @pytest.mark.parametrize(("split", "other"), [("val", "train800"), ("test", "val200"), ("test", "train800")])
    def test_a_file_to_score_on_that_is_trained_on_too_is_refused(self, task, split, other):
        scored = task.path / {"val": "val200.txt", "test": "test.txt"}[split]
        line = (task.path / f"{other}.txt").read_text().splitlines()[3]
        scored.write_text(scored.read_text() + line + "\n")
        with pytest.raises(DataError, match=f"{other}/000003.png"):
            data_of(task, split)

    @pytest.mark.parametrize(
        ("split", "fold", "said"),
        [("train", None, "'train'"), ("val", 0, "fold 0"), ("cv", None, "None"), ("cv", 5, "5"), ("cv", -1, "-1")],
    )
    def test_a_split_or_fold_that_is_none_is_refused(self, task, split, fold, said):
        with pytest.raises(DataError, match=said):
            data_of(task, split, fold)

    def test_more_folds_than_images_are_refused(self, tmp_path):
        task = Task("few", "none", None, write_image_tree(tmp_path / "few", 2, 2))
        with pytest.raises(DataError, match="fewer folds"):
            data_of(task, "cv", 4, folds=6)

    @pytest.mark.parametrize(("line", "said"), [("images/x.png 9", "outside the range"), ("../x.png 0", r"'\.\.'")])
    def test_what_a_list_may_not_say_is_refused_by_name(self, task, line, said):
        (task.path / "images" / "x.png").write_bytes(b"x")
        with (task.path / "val200.txt").open("a") as file:
            file.write(line + "\n")
        with pytest.raises(DataError, match=said) as caught:
            data_of(task, "val")
        assert "val200.txt" in str(caught.value)


def test_a_class_name_that_no_record_can_hold_is_refused_before_anything_is_trained(tmp_path):
    write_image_tree(tmp_path, ("a", "caf\udce9"), 5)
    with pytest.raises(DataError, match=r"class 'caf\\udce9'.*rename"):
        data_of(Task("x", "none", None, tmp_path), "val")
