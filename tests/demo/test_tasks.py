"""The demo's tasks: drawn or scikit-learn's, balanced, reproducible, nothing in two parts."""

import numpy as np
import pytest

from ttctune.demo.rendered import DRAWINGS, SIDE, render
from ttctune.demo.tasks import TASKS


@pytest.mark.parametrize("task", DRAWINGS)
def test_a_drawn_task_is_a_function_of_its_seed(task: str) -> None:
    first, labels = render(task, 20, seed=3)
    again, _ = render(task, 20, seed=3)
    other, _ = render(task, 20, seed=4)
    assert first.shape == (20, SIDE, SIDE, 3) and first.dtype == np.uint8 and labels.dtype == np.int64
    assert np.array_equal(first, again)
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("task", DRAWINGS)
def test_the_first_pictures_of_a_larger_set_are_those_of_a_smaller_one(task: str) -> None:
    assert np.array_equal(render(task, 5, 0)[0], render(task, 12, 0)[0][:5])


def test_an_orientation_is_the_angle_of_the_long_axis() -> None:
    pictures, labels = render("orientation", 80, seed=0)
    errors = []
    for picture, label in zip(pictures.astype(float), labels, strict=True):
        border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        contrast = np.abs(picture - border.mean(0)).sum(-1)
        y, x = np.nonzero(contrast > 0.6 * contrast.max())
        (xx, xy), (_, yy) = np.cov(x, y)
        angle = np.degrees(0.5 * np.arctan2(2 * xy, xx - yy))
        errors.append(abs((angle - 22.5 * label + 90) % 180 - 90))
    assert np.median(errors) < 8


@pytest.mark.parametrize("task", TASKS)
def test_parts_have_the_sizes_asked_for_and_share_no_picture(task: str) -> None:
    data = TASKS[task](60, 40, 0)
    pictures = {name: {picture.tobytes() for picture in images} for name, (images, _) in data.items()}
    assert [len(labels) for _, labels in data.values()] == [60, 40]
    assert not pictures["train"] & pictures["val"]


@pytest.mark.parametrize("task", DRAWINGS)
def test_every_class_of_a_drawn_task_comes_equally_often(task: str) -> None:
    _, labels = TASKS[task](72, 72, 0)["train"]
    counts = {labels.count(name) for name in set(labels)}
    assert counts == {72 // len(DRAWINGS[task][1])}
