"""The tasks of the demo: scikit-learn's digits, and the three that are drawn."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from ttctune.demo.rendered import DRAWINGS, render
from ttctune.errors import DataError

#: A part: uint8 pictures and the name of each one's class.
Part = tuple[np.ndarray, list[str]]


def digits(train: int, val: int, seed: int) -> dict[str, Part]:
    """Handwritten digits of 8 x 8 pixels; the 1,797 images are shuffled by the seed.

    Raises:
        DataError: scikit-learn, which brings them, is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        advice = "pip install scikit-learn, or ttctune with [demo]"
        raise DataError("no scikit-learn", "it, for its digits", advice) from error
    known = load_digits()
    order = np.random.default_rng(seed).permutation(len(known.target))
    images = np.round(known.images * (255 / 16)).astype(np.uint8)
    parts = {"train": order[:train], "val": order[train : train + val]}
    return {name: (images[chosen], [str(label) for label in known.target[chosen]]) for name, chosen in parts.items()}


def drawn(task: str, train: int, val: int, seed: int) -> dict[str, Part]:
    """One of the drawn tasks; no picture is in both parts, nor in those of another seed."""
    _, classes = DRAWINGS[task]
    parts = {"train": render(task, train, 2 * seed), "val": render(task, val, 2 * seed + 1)}
    return {name: (images, [classes[label] for label in labels]) for name, (images, labels) in parts.items()}


#: Name -> a function of the numbers of images to train and to score on, and of a seed.
TASKS: Mapping[str, Callable[[int, int, int], dict[str, Part]]] = {
    "digits": digits,
    **{task: partial(drawn, task) for task in DRAWINGS},
}
