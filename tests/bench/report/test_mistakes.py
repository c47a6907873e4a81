"""Counts of confusions, and examples of mistakes, against records written by hand."""

import base64
import io
import os

import numpy as np
import pytest
from PIL import Image
from tests.bench.records import record

from ttctune.bench.record import packed, packed_names
from ttctune.bench.report.mistakes import CLASSES, EXAMPLES, PIXELS, confusions_of, examples_of
from ttctune.bench.report.runs import Run

FILES = ["a.png", "b.png", "c.png", "d.png"]


def run(labels, predictions, seed=0, classes=("cat", "dog", "eel"), files=FILES):
    return Run(
        (
            record(
                seed=seed,
                classes=classes,
                labels=packed(np.array(labels)),
                predictions=packed(np.array(predictions)),
                files=None if files is None else packed_names(list(files)),
            ),
        )
    )


TWO_SEEDS = [run([0, 0, 1, 2], [0, 1, 1, 0]), run([0, 0, 1, 2], [0, 1, 0, 0], seed=1)]


def test_confusions_are_counted_over_seeds():
    found = confusions_of(TWO_SEEDS)
    assert found.names == ("cat", "dog", "eel") and found.left_out == 0
    assert found.counts.tolist() == [[2, 2, 0, 0], [1, 1, 0, 0], [2, 0, 0, 0]]
    assert found.most == (("cat", "dog", 2, 4), ("eel", "cat", 2, 2), ("dog", "cat", 1, 2))


def test_of_many_classes_those_with_most_mistakes_are_shown_and_the_rest_is_counted():
    classes = tuple(f"class {n}" for n in range(50))
    labels = np.repeat(np.arange(50), 2)
    predictions = np.where(labels >= 50 - CLASSES, 0, labels)
    found = confusions_of([run(labels, predictions, classes=classes, files=None)])
    assert found.names == classes[-CLASSES:] and found.left_out == 50 - CLASSES
    assert found.counts[:, -1].tolist() == [2] * CLASSES and not found.counts[:, :-1].any()


def test_examples_come_from_every_class_first_and_then_by_how_often_they_are_wrong():
    found = examples_of(TWO_SEEDS, None)
    assert [(e.file, e.truth, e.answer, e.seeds, e.picture) for e in found] == [
        ("b.png", "cat", "dog", 2, None),
        ("d.png", "eel", "cat", 2, None),
        ("c.png", "dog", "cat", 1, None),
    ]


def test_there_are_few_examples_and_none_without_names():
    many = run(np.zeros(40), np.ones(40), files=[f"{n:02}.png" for n in range(40)])
    assert len(examples_of([many], None)) == EXAMPLES
    assert examples_of([run([0, 1], [1, 0], files=None)], None) == []


def test_seeds_that_saw_other_images_are_counted_together():
    found = examples_of([TWO_SEEDS[0], run([0, 1], [1, 0], seed=1, files=["b.png", "x.png"])], None)
    assert [(e.file, e.seeds) for e in found] == [("b.png", 2), ("d.png", 1), ("x.png", 1)]


def test_a_picture_is_found_below_another_name_of_its_task(tmp_path):
    (tmp_path / "caltech").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "caltech/b.png")
    (of_vtab,) = run([0], [1], files=["b.png"]).records
    (example,) = examples_of([Run((of_vtab.model_copy(update={"task": "caltech101"}),))], tmp_path)
    assert example.picture is not None


def test_a_picture_is_found_below_its_task_and_made_small(tmp_path):
    (tmp_path / "digits").mkdir()
    Image.new("RGB", (600, 300), "red").save(tmp_path / "digits/b.png")
    Image.new("L", (10, 10)).save(tmp_path / "d.png")
    (tmp_path / "c.png").write_text("no picture")
    pictures = [example.picture for example in examples_of(TWO_SEEDS, tmp_path)]
    assert pictures[2] is None
    sizes = [Image.open(io.BytesIO(base64.b64decode(p.partition(",")[2]))).size for p in pictures[:2]]
    assert sizes == [(PIXELS, PIXELS // 2), (PIXELS, PIXELS)]


@pytest.mark.parametrize("how", ["dots", "absolute", "link"])
def test_nothing_outside_of_the_root_gets_into_a_page(tmp_path, how):
    root, secret = tmp_path / "root", tmp_path / "secret.png"
    root.mkdir()
    Image.new("RGB", (8, 8)).save(secret)
    name = {"dots": "../secret.png", "absolute": str(secret), "link": "link.png"}[how]
    if how == "link":
        os.symlink(secret, root / "link.png")
    (example,) = examples_of([run([0], [1], files=[name])], root)
    assert example.file == name and example.picture is None


def test_a_deep_picture_is_shown_as_the_model_sees_it(tmp_path):
    (tmp_path / "digits").mkdir()
    Image.fromarray(np.full((8, 8), 40 << 8, np.uint16)).save(tmp_path / "digits/b.png")
    picture = next(example.picture for example in examples_of(TWO_SEEDS, tmp_path) if example.file == "b.png")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))))
    assert abs(shown.mean() - 40) < 2
