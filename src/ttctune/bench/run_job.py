"""One job, from the images of a task to a record."""

import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ttctune.adapted import BATCH
from ttctune.backbone.model import Backbone
from ttctune.backbone.opening import open_backbone
from ttctune.bench.grid import Conditions, Job
from ttctune.bench.legacy import LEGACY, BestEpoch
from ttctune.bench.record import Normalisation, Protocol, Record, packed, packed_names
from ttctune.bench.suites import TaskData
from ttctune.errors import DivergedError, TtcError
from ttctune.evaluation import outputs_of
from ttctune.images import ImageSet, open_evaluation_images
from ttctune.run import Run, prepare, settle
from ttctune.training.checkpoint import Checkpoint
from ttctune.training.device import find_device
from ttctune.training.kept_memory import freed_memory_kept
from ttctune.training.precision import by_hand
from ttctune.training.progress import Reporter
from ttctune.version import __version__

#: Libraries that a result may depend on, by the names of their distributions.
LIBRARIES = ("torch", "torchvision", "timm", "peft", "accelerate", "numpy", "pillow")

#: Decoded images to score are kept up to this size in each job; more are decoded whenever they are looked at.
SCORED_BYTES = 1 << 30

#: Called with the share of the training that lies behind, 0 to 1.
Advance = Callable[[float], None]


@dataclass
class Listener(Reporter):
    """Keeps the epochs of a training, and passes on how far it is; prints nothing.

    Attributes:
        epochs: In all.
        advance: Told after each epoch.
        look: Called after each epoch with the number of epochs behind.
        history: One row an epoch: stage, epoch, loss, accuracy, seconds.
    """

    quiet: bool = True
    epochs: int = 1
    advance: Advance = lambda share: None
    look: Callable[[int], None] = lambda epochs: None
    history: list[dict[str, Any]] = field(default_factory=list)

    def epoch(self, title: str, loss: float, accuracy: float, seconds: float) -> None:
        """Keep an epoch, whose title is like "tune 3/18"."""
        stage, _, number = title.rpartition(" ")
        row = {"stage": stage, "epoch": int(number.partition("/")[0])}
        self.history.append(row | {"loss": loss, "accuracy": accuracy, "seconds": seconds})
        self.look(len(self.history))
        self.advance(min(1.0, len(self.history) / self.epochs))


def record_of(job: Job, conditions: Conditions, advance: Advance = lambda share: None) -> Record:
    """Do a job; what makes it fail is in its record, so that no job is lost and none ends another."""
    try:
        place = find_device(conditions.device, conditions.threads)
        with freed_memory_kept(place):
            return _done(job, conditions, place, advance)
    except TtcError as error:
        return failed(job, conditions, str(error), diverged=isinstance(error, DivergedError))
    except Exception as error:  # a fault of ours, or of a library: the grid goes on, and its end names it
        return failed(job, conditions, f"{type(error).__name__}: {error} ({_place_of(error)})")


def failed(job: Job, conditions: Conditions, reason: str, *, diverged: bool = False) -> Record:
    """The record of a job that has no result."""
    reason = reason.encode(errors="backslashreplace").decode()  # names of files need not be Unicode, a record is
    return Record(**_about(job, conditions), failed=" ".join(reason.split())[:1000], diverged=diverged)


@lru_cache(maxsize=1)
def opened(model: str, weights: Path | None) -> Backbone:
    """The backbone, which no method changes, so all jobs of a process share it."""
    return open_backbone(model, weights)


def _done(job: Job, conditions: Conditions, place: torch.device, advance: Advance) -> Record:
    torch.manual_seed(job.seed)
    method, recipe = conditions.method(job), conditions.recipe(job)
    listener = Listener(epochs=recipe.align_epochs + recipe.tune_epochs, advance=advance)
    data = conditions.data(job)
    legacy = LEGACY[conditions.legacy] if conditions.legacy else None
    backbone = opened(conditions.model, conditions.weights)
    backbone = legacy.applied(backbone) if legacy else backbone
    run = prepare(backbone, data.data, recipe, None, place, listener, None, workers=conditions.threads)
    settle(run, Checkpoint())
    best = None
    if legacy and legacy.every:
        early = _scored(data, run, conditions.threads)
        best = BestEpoch(legacy.every, lambda: _guesses(_logits(run, early)), early.labels.numpy())
        listener.look = best.look
    start = time.perf_counter()
    parameters = method.train(run)
    seconds = time.perf_counter() - start
    scored = _scored(data, run, conditions.threads)
    logits = _logits(run, scored)
    guesses = _guesses(logits)
    guesses = best.better_than(guesses) if best else guesses
    losses = F.cross_entropy(logits.double(), scored.labels, reduction="none")
    kept = {"sites": [*run.recipe.sites], "gates": [*run.recipe.gates]}
    return Record(
        **_about(job, conditions),
        settings={name: kept.get(name, value) for name, value in conditions.settings(job).items()},
        protocol=_protocol(run, conditions, data),
        classes=run.images.classes,
        accuracy=float((guesses == scored.labels.numpy()).mean()),
        parameters=parameters,
        head_parameters=run.attachment.parameter_counts()["head"],
        seconds=seconds,
        history=tuple(listener.history),
        labels=packed(scored.labels.numpy()),
        predictions=packed(guesses),
        losses=None if legacy else packed(losses.numpy(), "<f2"),
        files=packed_names([*data.names]),
        importance={name: packed(scores.cpu().numpy(), "<f2") for name, scores in run.state.importance.items()} or None,
        selection={site.name: tuple(t.channels.tolist()) for site, t in run.attachment.tunings.items()} or None,
    )


def _about(job: Job, conditions: Conditions) -> dict[str, Any]:
    return {
        "suite": conditions.suite,
        "task": job.task.name,
        "group": job.task.group,
        "split": job.split,
        "fold": job.fold,
        "method": job.method,
        "seed": job.seed,
        "epochs": conditions.epochs,
        "trials": job.trials,
        "chosen_by": job.chosen_by,
    }


def _scored(data: TaskData, run: Run, threads: int) -> ImageSet:
    """The images to score, which nothing has read before this."""
    trainer = run.trainer
    images, _, _ = open_evaluation_images(
        data.scored, trainer.description, run.images.classes, cache_bytes=SCORED_BYTES, threads=threads
    )
    return images


def _logits(run: Run, images: ImageSet) -> torch.Tensor:
    trainer = run.trainer
    batches = (pictures for pictures, _ in images.batches(BATCH))
    plan = by_hand(trainer.scoring_precision.format, trainer.device)
    return torch.cat([*outputs_of(trainer.model, batches, trainer.description, plan)])


def _guesses(logits: torch.Tensor) -> "np.ndarray[Any, Any]":
    return logits.argmax(1).numpy()


def _protocol(run: Run, conditions: Conditions, data: TaskData) -> Protocol:
    trainer, description, backbone = run.trainer, run.trainer.description, run.attachment.backbone
    device = trainer.device
    return Protocol(
        image_size=(description.height, description.width),
        resize=description.resize,
        normalisation=Normalisation(mean=description.mean, std=description.std),
        precision=trainer.precision.format,
        threads=torch.get_num_threads(),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        epochs=conditions.epochs,
        model=backbone.name,
        backbone_digest=backbone.digest,
        data_digest=data.digest,
        versions=versions(),
        legacy=conditions.legacy,
        shots=conditions.shots,
    )


def versions() -> dict[str, str]:
    """Of ttctune, Python, and the libraries that pictures and tensors go through; those that are not here left out."""
    found = {"ttctune": __version__, "python": platform.python_version()}
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[library] = version(library)
    return found


def _place_of(error: Exception) -> str:
    """File and line where an unexpected error came from."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "place unknown"
    return f"{Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno}"
