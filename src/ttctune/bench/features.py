"""What is frozen costs once: the inputs of the head are computed in one pass, and the head is trained on them.

Of the methods that are compared, only the linear probe leaves a part of the backbone as it is for which this pays:
every other one changes something in the first block.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ttctune.errors import FolderError
from ttctune.evaluation import outputs_of
from ttctune.files import replaced
from ttctune.images import ImageSet
from ttctune.run import Run
from ttctune.training.precision import attention
from ttctune.training.trainer import Trainer, set_training


@dataclass(frozen=True, eq=False)
class Features(ImageSet):
    """What the head reads of each image, in the order of the images.

    Attributes:
        values: float32, N x D.
        labels: int64, N.
    """

    values: Tensor
    labels: Tensor

    def digest(self) -> str:
        """SHA-256 of values and labels."""
        digest = hashlib.sha256(self.values.numpy().data)
        digest.update(self.labels.numpy().data)
        return digest.hexdigest()

    def _batches(self, size: int, order: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self)) if order is None else order
        for chosen in order.split(size):
            yield self.values[chosen], self.labels[chosen]


class FeatureTrainer(Trainer):
    """The same loop, for a model that takes features instead of pictures."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.augment = lambda features: features
        self.inputs = lambda features: features.to(self.device)


def trainer_on_features(run: Run, folder: Path | None = None) -> Trainer:
    """A trainer of the head alone on features, which gives what the run's own trainer would, to rounding.

    Args:
        run: Prepared; its head is the one that is trained.
        folder: Where features are kept; None keeps them in memory. The files in it stay within the recipe's
            `cache_mb`: the least recently used give way.

    Returns:
        The run's own trainer where features would not be the same in each epoch; the reason is told to the reporter.

    Raises:
        FolderError: The folder cannot be written.
    """
    trainer, reason = run.trainer, _obstacle(run)
    if reason:
        trainer.reporter.say(f"features are computed anew in every epoch: {reason}")
        return trainer
    features = Features(_kept(run, folder) if folder else _computed(run), trainer.images.labels)
    return FeatureTrainer(
        _head(run),
        trainer.backbone,
        features,
        trainer.classes,
        trainer.description,
        trainer.recipe,
        trainer.device,
        trainer.reporter,
        trainer.precision,
    )


def _head(run: Run) -> nn.Linear:
    return next(iter(run.attachment.heads.values()))


def _obstacle(run: Run) -> str:
    """Why the head cannot be trained on features that were computed once; "" where it can."""
    recipe, trainer = run.recipe, run.trainer
    random = [name for name in ("flip", "crop", "randaugment", "drop_path") if getattr(recipe, name)]
    if random:
        return f"{' and '.join(random)} change{'s' * (len(random) == 1)} them"
    if len(run.attachment.heads) > 1:
        return "the model has several heads"
    if trainer.processes.count > 1:
        return "several processes share the images"
    if _size(run) > recipe.cache_mb << 20:
        return f"they take more than {recipe.cache_mb} MB"
    alike = trainer.within_memory(lambda: _head_tells_all(run), recipe.batch_size)
    return "" if alike else "the model does more in training than feed its head"


def _head_tells_all(run: Run) -> bool:
    """Whether, on the first images, the model in training gives what its head makes of its inputs in evaluation."""
    trainer = run.trainer
    size = max(1, trainer.recipe.batch_size // trainer.accumulation)
    pictures, _ = next(iter(trainer.images.batches(size)))
    inputs = trainer.inputs(pictures)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(attention(trainer.model, trainer.precision.fused_attention))
        stack.enter_context(trainer.precision.forward_context(trainer.device))
        stack.callback(trainer.model.eval)
        features = _inputs_of_head(run, inputs)
        if features.shape != (len(pictures), _head(run).in_features):
            return False
        expected = _head(run)(features)
        set_training(trainer.model)
        return torch.allclose(trainer.model(inputs), expected, rtol=1e-3, atol=1e-4)


def _inputs_of_head(run: Run, images: Tensor) -> Tensor:
    """What the head reads of normalised images."""
    seen: list[Tensor] = []
    handle = _head(run).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        run.trainer.model(images)
    finally:
        handle.remove()
    return seen[0]


def _rows(run: Run) -> Iterator[Tensor]:
    """float32 features of each batch of images, in their order."""
    trainer = run.trainer
    pictures = (pictures for pictures, _ in trainer.images.batches(trainer.recipe.batch_size))
    return outputs_of(
        trainer.model, pictures, trainer.description, trainer.precision, lambda images: _inputs_of_head(run, images)
    )


def _size(run: Run) -> int:
    return len(run.trainer.images) * _head(run).in_features * 4


def _computed(run: Run) -> Tensor:
    values = np.empty((len(run.trainer.images), _head(run).in_features), np.float32)
    start = 0
    for rows in _rows(run):
        values[start : start + len(rows)] = rows.numpy()
        start += len(rows)
    return torch.from_numpy(values)


def _kept(run: Run, folder: Path) -> Tensor:
    """Features from a file in `folder`, which is written first where it is not there or damaged."""
    path = folder / f"features-{_key(run)}.npy"
    shape = (len(run.trainer.images), _head(run).in_features)
    values = _read(path, shape)
    if values is not None:
        return values
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _make_room(folder, (run.recipe.cache_mb << 20) - _size(run))
        return _written(path, run, shape)
    except OSError as error:
        if isinstance(error, FolderError):
            raise
        given = f"features cannot be kept in {folder} ({error.strerror or error})"
        raise FolderError(given, "a folder to write into", "choose another") from error


def _written(path: Path, run: Run, shape: tuple[int, int]) -> Tensor:
    """Compute the features into the file, and map it."""
    own = path.with_name(f"{path.stem}.{os.getpid()}")  # another job may be writing the same features
    with replaced(own) as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)  # type: ignore[arg-type]
        for rows in _rows(run):
            file.write(rows.numpy().tobytes())
    values = _read(own, shape)  # before others see it, who might remove it to make room
    if values is None:
        raise FolderError(f"{own} cannot be read back", "the features just written", "check the disk")
    os.replace(own, path)
    return values


def _read(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """The features in a file, mapped; None where there are none, or not these."""
    try:
        # copy on write, because torch wants memory that it may write to; the file itself never changes
        values = np.load(path, mmap_mode="c", allow_pickle=False)
        os.utime(path)
    except (OSError, ValueError, EOFError):
        return None
    return torch.from_numpy(values) if values.shape == shape and values.dtype == np.float32 else None


def _make_room(folder: Path, left: int) -> None:
    """Remove the least recently used features until the others take no more than `left` bytes."""
    known: list[tuple[float, int, Path]] = []
    for file in folder.glob("features-*"):
        with suppress(FileNotFoundError):  # another job makes room too
            known.append((file.stat().st_mtime, file.stat().st_size, file))
    for _, size, file in sorted(known, reverse=True):
        left -= size
        if left < 0:
            file.unlink(missing_ok=True)


def _key(run: Run) -> str:
    """All that the bits of the features depend on."""
    trainer = run.trainer
    known = {
        "backbone": run.attachment.backbone.digest,
        "images": trainer.images.digest(),
        "input": dataclasses.asdict(trainer.description),
        "precision": [trainer.precision.format, trainer.precision.fused_attention],
        "batch": trainer.recipe.batch_size,
        "device": trainer.device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:24]
