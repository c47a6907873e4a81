"""Where a method errs: which classes it takes for which, and which images it gets wrong under most seeds."""

import base64
import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ImageOps

from ttctune.bench.report.runs import Run
from ttctune.bench.suites.vtab import VTAB
from ttctune.errors import DataError
from ttctune.images import decode_whole

#: Classes of a confusion matrix, examples of a task, and the side of their pictures in pixels.
CLASSES, EXAMPLES, PIXELS = 20, 8, 128


@dataclass(frozen=True)
class Confusions:
    """What was answered for which class, over all seeds.

    Attributes:
        names: Of the classes shown: those with the most wrong answers, in label order.
        counts: Shown classes x (shown classes, and a last column of all others).
        left_out: How many classes are not shown.
        most: The most frequent mistakes: true class, answer, images, images of that class.
    """

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    left_out: int
    most: tuple[tuple[str, str, int, int], ...]


@dataclass(frozen=True)
class Example:
    """An image that was answered wrongly.

    Attributes:
        file: Its name.
        truth: Its class.
        answer: What was answered most often.
        seeds: Under how many seeds wrongly.
        picture: A data URL; None where pictures are left out or the file is not found.
    """

    file: str
    truth: str
    answer: str
    seeds: int
    picture: str | None


def confusions_of(runs: Sequence[Run], most: int = 5) -> Confusions:
    """Count answers over the seeds of one method on one task."""
    classes = runs[0].records[0].classes
    counts = np.zeros((len(classes), len(classes)), np.int64)
    for run in runs:
        np.add.at(counts, (run.labels, run.predictions), 1)
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    shown = np.sort(np.argsort(-wrong.sum(1), kind="stable")[:CLASSES])
    others = np.delete(counts[shown], shown, axis=1).sum(1, keepdims=True)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [(int(k) // len(classes), int(k) % len(classes)) for k in order]
    return Confusions(
        names=tuple(classes[k] for k in shown),
        counts=np.hstack([counts[shown][:, shown], others]),
        left_out=len(classes) - len(shown),
        most=tuple((classes[a], classes[b], int(wrong[a, b]), int(counts[a].sum())) for a, b in pairs if wrong[a, b]),
    )


def examples_of(runs: Sequence[Run], root: Path | None) -> list[Example]:
    """Images wrong under most seeds, one of each class as far as they go; none where images have no names.

    Args:
        runs: The seeds of one method on one task.
        root: Where images lie; None leaves pictures out.
    """
    classes = runs[0].records[0].classes
    wrong: dict[str, list[int]] = defaultdict(list)
    labels: dict[str, int] = {}
    for run in runs:
        for file, label, answer in zip(run.files or (), run.labels.tolist(), run.predictions.tolist(), strict=False):
            labels[file] = label
            wrong[file] += [answer] * (answer != label)
    order = sorted((file for file in labels if wrong[file]), key=lambda file: (-len(wrong[file]), file))
    seen: Counter[int] = Counter()
    turns = {}
    for file in order:
        turns[file] = seen[labels[file]]
        seen[labels[file]] += 1
    examples = []
    for file in sorted(order, key=lambda file: (turns[file], -len(wrong[file])))[:EXAMPLES]:
        truth, answer = classes[labels[file]], classes[Counter(wrong[file]).most_common(1)[0][0]]
        picture = None if root is None else _picture(root, runs[0].task, file)
        examples.append(Example(file, truth, answer, len(wrong[file]), picture))
    return examples


def _picture(root: Path, task: str, file: str) -> str | None:
    """A small JPEG as a data URL, of a file below the task's folder in `root`, or below `root`."""
    names = (task, *(VTAB[task].aliases if task in VTAB else ()))
    for path in (*(root / name / file for name in names), root / file):
        if path.resolve().is_relative_to(root.resolve()) and path.is_file():
            break
    else:
        return None
    try:
        small = ImageOps.contain(decode_whole(path, str(path)).convert("RGB"), (PIXELS, PIXELS))
    except DataError:
        return None
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
