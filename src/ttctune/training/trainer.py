"""The loop: batches, loss, gradients, steps; the same for every stage and every method."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttctune.backbone.description import InputDescription
from ttctune.backbone.model import Backbone
from ttctune.errors import DivergedError, TrainingError, TtcError
from ttctune.images.augmentation import Augmentation
from ttctune.images.batches import ImageSet, epoch_order
from ttctune.images.normalisation import normalise
from ttctune.out_of_memory import is_out_of_memory
from ttctune.recipe import Recipe
from ttctune.training.compilation import compile_errors
from ttctune.training.last_block import read_tokens_only
from ttctune.training.optimizer import Optimizer
from ttctune.training.precision import Precision, attention
from ttctune.training.processes import Processes
from ttctune.training.progress import Reporter
from ttctune.training.schedule import Schedule, warmup_steps
from ttctune.training.stage import Group
from ttctune.training.stochastic_depth import Draws, stochastic_depth

T = TypeVar("T")


def image_loss(logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    """Cross-entropy of each image (N), with label smoothing and class weights."""
    return F.cross_entropy(logits.float(), labels, weights, reduction="none", label_smoothing=smoothing)


@dataclass(frozen=True)
class Share:
    """What one process computes of a batch.

    Attributes:
        pictures: uint8, not normalised; may be none.
        labels: int64.
        batch: Images of the whole batch, over which the loss is a mean.
        depth: float32, images x branches, in [0, 1); decides which branches are left out.
        seed: Of other random numbers of the forward pass, mixed with the number of the part; None draws on.
    """

    pictures: Tensor
    labels: Tensor
    batch: int
    depth: Tensor
    seed: int | None = None


@dataclass
class Trainer:
    """Trains groups of parameters of one model on one set of images.

    Attributes:
        model: Normalised images -> logits.
        backbone: For the names of its blocks.
        images: The training images.
        classes: Number of classes.
        description: Of the pictures the model takes.
        recipe: Batch size, loss, augmentation, clipping, schedule.
        device: Where it computes.
        reporter: Told of each step and epoch.
        precision: How the arithmetic is done; may be set anew before training.
        accumulation: Parts a process computes its share of a batch in; grows when memory runs out.
        compile: Run the model through torch.compile.
        processes: Those among which every batch is divided.
    """

    model: nn.Module
    backbone: Backbone
    images: ImageSet
    classes: int
    description: InputDescription
    recipe: Recipe
    device: torch.device
    reporter: Reporter
    precision: Precision = field(default_factory=lambda: Precision("fp32"))
    accumulation: int = 1
    compile: bool = False
    processes: Processes = field(default_factory=Processes)

    def __post_init__(self) -> None:
        self.model.to(self.device)
        self.accumulation = self.recipe.accumulation
        weights = None
        if self.recipe.class_weights:
            counts = torch.bincount(self.images.labels, minlength=self.classes).clamp(min=1)
            weights = (len(self.images) / (self.classes * counts)).to(self.device)
        self.loss: Callable[[Tensor, Tensor], Tensor] = partial(
            image_loss, weights=weights, smoothing=self.recipe.label_smoothing
        )
        self.augment: Callable[[Tensor], Tensor] = Augmentation(
            self.recipe.flip, self.recipe.crop, self.recipe.randaugment
        )
        self.draws = Draws()
        self.inputs: Callable[[Tensor], Tensor] = partial(normalise, description=self.description, device=self.device)

    def train(
        self,
        title: str,
        groups: list[Group],
        epochs: int,
        *,
        salt: int = 0,
        done: int = 0,
        optimizer_state: Mapping[str, Tensor] | None = None,
        after_epoch: Callable[[int, dict[str, Any], dict[str, Tensor]], None] | None = None,
    ) -> None:
        """Train for `epochs` epochs with warm-up and cosine.

        Args:
            title: Name of the stage, for people and for the history.
            groups: What is trained; anything else must be frozen already or is not touched.
            epochs: Passes over the images in all.
            salt: Keeps the random numbers of different stages apart.
            done: Epochs that lie behind, when going on from a checkpoint.
            optimizer_state: The optimiser's tensors after those epochs.
            after_epoch: Called with epochs done, the history row and the optimiser's tensors.

        Raises:
            DivergedError: A loss or a parameter is not finite.
            TrainingError: Memory ran out at one image a part.
            TtcError: Another process met an error, or is lost.
        """
        optimizer = Optimizer(groups, self.precision.format == "fp16", self.device.type)
        if optimizer_state:
            optimizer.load(optimizer_state)
        steps = epochs * self.steps_per_epoch
        schedule = Schedule(steps, warmup_steps(self.recipe.warmup_epochs, self.steps_per_epoch, steps))
        with ExitStack() as stack:
            stack.enter_context(_only(self.model, optimizer.parameters))
            stack.enter_context(attention(self.model, self.precision.fused_attention))
            self.draws = stack.enter_context(stochastic_depth(self.model, self.backbone, self.recipe.drop_path))
            stack.enter_context(read_tokens_only(self.model, self.backbone))
            stack.enter_context(torch.random.fork_rng([self.device] if self.device.type == "cuda" else []))
            stack.callback(self.model.eval)
            model: nn.Module = self.model
            if self.compile:
                stack.enter_context(compile_errors())
                model = torch.compile(model)  # type: ignore[assignment]
            for epoch in range(done, epochs):
                start = time.perf_counter()
                label = f"{title} {epoch + 1}/{epochs}"
                loss, accuracy = self._epoch(model, optimizer, schedule, label, salt, epoch)
                seconds = time.perf_counter() - start
                self.accumulation = max(self.processes.gather(self.accumulation))  # a checkpoint holds one number
                self.reporter.epoch(label, loss, accuracy, seconds)
                row = {
                    "stage": title,
                    "epoch": epoch + 1,
                    "loss": loss,
                    "accuracy": accuracy,
                    "images_per_second": len(self.images) / seconds,
                    "learning_rates": optimizer.rates,
                    "seconds": seconds,
                }
                if after_epoch is not None:
                    after_epoch(epoch + 1, row, optimizer.tensors())

    @cached_property
    def _first_batch(self) -> tuple[Tensor, Tensor]:
        """Decoded once: what a probe measures is the step."""
        return next(iter(self.images.batches(self.recipe.batch_size, order=None)))

    def probe(self, groups: list[Group], precision: Precision, *, split: bool = True) -> float:
        """Forward and backward on this process's share of the first batch, without an update; returns the mean loss.

        Where memory runs out, the share is split for good, or with `split = False` the error goes on.
        """
        pictures, labels = self._first_batch
        share = self._share(pictures, labels, torch.empty(len(labels), 0))
        set_training(self.model)
        optimizer = Optimizer(groups, False, self.device.type)
        compute = self._gradients if split else self._gradients_at_once
        try:
            with (
                _only(self.model, optimizer.parameters),
                attention(self.model, precision.fused_attention),
                read_tokens_only(self.model, self.backbone),
            ):
                total, _ = compute(self.model, optimizer, precision, share)
        finally:
            self.model.eval()
            optimizer.forget()
        return total / max(1, len(share.labels))

    def within_memory(self, compute: Callable[[], T], images: int) -> T:
        """Run `compute`, again with batches of `images` images in twice as many parts whenever memory runs out.

        Raises:
            TrainingError: Memory ran out at one image a part.
        """
        while True:
            try:
                return compute()
            except TtcError:
                raise  # of another process, and not to be taken for this one's
            except (MemoryError, RuntimeError) as error:
                self._check_divisible(error, images)
            # outside of the handler, whose traceback would keep the tensors of the attempt alive
            self._split_further(images)

    def scoring_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's training images in order, normalised and not augmented, with their labels, on the device."""
        mine = torch.arange(len(self.images))[self.processes.share(len(self.images))]
        for pictures, labels in self.images.batches(max(1, self.largest_share // self.accumulation), order=mine):
            yield self.inputs(pictures), labels.to(self.device)

    @property
    def steps_per_epoch(self) -> int:
        """Batches an epoch, the last of which may be short."""
        return -(-len(self.images) // self.recipe.batch_size)

    @property
    def largest_share(self) -> int:
        """Images of a full batch that fall to one process at most."""
        return -(-self.recipe.batch_size // self.processes.count)

    @property
    def scoring_precision(self) -> Precision:
        """As for training, but float32 where small gradients would vanish for want of a loss scale."""
        return Precision("fp32") if self.precision.format == "fp16" else self.precision

    def _epoch(
        self, model: nn.Module, optimizer: Optimizer, schedule: Schedule, label: str, salt: int, epoch: int
    ) -> tuple[float, float]:
        """One pass over the images; returns mean loss and accuracy."""
        set_training(model)
        order = epoch_order(len(self.images), _mix(self.recipe.seed, salt), epoch)
        sums = torch.zeros(3, dtype=torch.float64)
        for step, (pictures, labels) in enumerate(self.images.batches(self.recipe.batch_size, order=order)):
            optimizer.set_share(schedule.share(epoch * self.steps_per_epoch + step))
            seed = _mix(self.recipe.seed, salt, epoch, step)
            torch.manual_seed(seed)
            # both are cut afterwards: each process draws for the whole batch
            pictures, depth = self.augment(pictures), torch.rand(len(labels), self.draws.branches)
            share = self._share(pictures, labels, depth, seed)
            found = torch.tensor(self._gradients(model, optimizer, self.precision, share), dtype=torch.float64)
            self.processes.sum_([*optimizer.gradients(), found])
            loss, right = found.tolist()
            if not math.isfinite(loss):
                raise self._diverged(f"a loss of {loss}")
            optimizer.step(self.recipe.gradient_clip)
            sums += torch.tensor([loss, right, len(labels)], dtype=torch.float64)
            self.reporter.step(label, len(labels), float(sums[0] / sums[2]), float(sums[1] / sums[2]))
        if not all(torch.isfinite(parameter).all() for parameter in optimizer.parameters):
            raise self._diverged("parameters that are not finite")
        return float(sums[0] / sums[2]), float(sums[1] / sums[2])

    def _diverged(self, found: str) -> DivergedError:
        rate = self.recipe.learning_rate
        return DivergedError(
            f"{found} at learning rate {rate:g} in {self.precision.format}",
            "finite numbers",
            f"start again with --learning-rate {rate / 3:.2g}, --gradient-clip 1 or --precision fp32 "
            "(and --overwrite, if this run has a folder)",
        )

    def _share(self, pictures: Tensor, labels: Tensor, depth: Tensor, seed: int | None = None) -> Share:
        mine = self.processes.share(len(labels))
        seed = None if seed is None else _mix(seed, self.processes.rank)
        return Share(pictures[mine], labels[mine], len(labels), depth[mine], seed)

    def _gradients(
        self, model: nn.Module, optimizer: Optimizer, precision: Precision, share: Share
    ) -> tuple[float, float]:
        """A share's part of the gradients of the batch's mean loss; returns its summed loss and its right answers."""
        return self.within_memory(
            lambda: self._gradients_at_once(model, optimizer, precision, share), len(share.labels)
        )

    def _gradients_at_once(
        self, model: nn.Module, optimizer: Optimizer, precision: Precision, share: Share
    ) -> tuple[float, float]:
        optimizer.forget()
        if not len(share.labels):
            return 0.0, 0.0
        loss_sum, right = 0.0, 0.0
        parts = min(self.accumulation, len(share.labels))
        cut = (share.pictures.chunk(parts), share.labels.chunk(parts), share.depth.chunk(parts))
        for number, (pictures, labels, depth) in enumerate(zip(*cut, strict=True)):
            if share.seed is not None:
                torch.manual_seed(_mix(share.seed, number))  # a retry in smaller parts draws as if it were the first
            self.draws.numbers = depth.to(self.device)
            inputs = self.inputs(pictures)
            targets = labels.to(self.device)
            with precision.forward_context(self.device):
                logits = model(inputs)
            loss = self.loss(logits, targets).sum()
            optimizer.scaler.scale(loss / share.batch).backward()
            loss_sum += float(loss.detach())
            right += float((logits.detach().argmax(1) == targets).sum())
        return loss_sum, right

    def _check_divisible(self, error: Exception, images: int) -> None:
        if not is_out_of_memory(error):
            raise error
        if self.accumulation >= images:
            size = f"{self.description.height} x {self.description.width}"
            raise TrainingError(
                f"memory ran out with one image of {size} pixels at a time",
                "room for one image's activations",
                "try a smaller --image-size or model, or a machine with more memory",
            ) from error

    def _split_further(self, images: int) -> None:
        self.accumulation = min(2 * self.accumulation, images)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.reporter.say(
            f"memory ran out: batches of {images} are now computed in {self.accumulation} parts "
            f"of {-(-images // self.accumulation)} (same effective batch)"
        )


@contextmanager
def _only(model: nn.Module, trained: list[nn.Parameter]) -> Iterator[None]:
    """Gradients for these parameters alone."""
    chosen = {id(parameter) for parameter in trained}
    frozen = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def set_training(model: nn.Module) -> None:
    """Training mode, but frozen statistics stay as they are."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def _mix(*parts: int) -> int:
    """A seed from several numbers, the same on every machine."""
    value = 0
    for part in parts:
        value = (value * 1_000_003 + part + 1) % (2**31 - 1)
    return value
