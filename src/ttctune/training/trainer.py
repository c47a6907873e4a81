"""The loop: batches, loss, gradients, steps; the same for every stage and every method."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ttctune.backbone.description import InputDescription
from ttctune.backbone.model import Backbone
from ttctune.errors import TrainingError
from ttctune.images.augmentation import Augmentation
from ttctune.images.batches import LabelledImages, epoch_order
from ttctune.recipe import Recipe
from ttctune.training.device import Place
from ttctune.training.precision import Precision, attention
from ttctune.training.progress import Reporter
from ttctune.training.schedule import rate_share, warmup_steps
from ttctune.training.stage import Group
from ttctune.training.stochastic_depth import stochastic_depth

#: What PyTorch says when the CPU's memory is used up.
OUT_OF_MEMORY = ("allocate memory", "bad_alloc", "not enough memory", "out of memory")


def normalise(images: Tensor, description: InputDescription, device: torch.device) -> Tensor:
    """uint8 N x C x H x W in 0..255 -> float32 N x C x H x W on the device, by the model's mean and std."""
    mean = torch.tensor(description.mean, device=device).view(-1, 1, 1)
    std = torch.tensor(description.std, device=device).view(-1, 1, 1)
    return images.to(device, non_blocking=True).to(torch.float32).div_(255).sub_(mean).div_(std)


def image_loss(logits: Tensor, labels: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    """Cross-entropy of each image (N), with label smoothing and class weights."""
    return F.cross_entropy(logits.float(), labels, weights, reduction="none", label_smoothing=smoothing)


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
        place: Device and processes.
        reporter: Told of each step and epoch.
        precision: How the arithmetic is done; may be set anew before training.
        accumulation: Parts each batch is computed in; grows when memory runs out.
        compile: Run the model through torch.compile.
    """

    model: nn.Module
    backbone: Backbone
    images: LabelledImages
    classes: int
    description: InputDescription
    recipe: Recipe
    place: Place
    reporter: Reporter
    precision: Precision = field(default_factory=lambda: Precision("fp32"))
    accumulation: int = 1
    compile: bool = False

    def __post_init__(self) -> None:
        self.model.to(self.place.device)
        self.accumulation = self.recipe.accumulation
        weights = None
        if self.recipe.class_weights:
            counts = torch.bincount(self.images.labels, minlength=self.classes).clamp(min=1)
            weights = (len(self.images) / (self.classes * counts)).to(self.place.device)
        self.loss: Callable[[Tensor, Tensor], Tensor] = partial(
            image_loss, weights=weights, smoothing=self.recipe.label_smoothing
        )
        self.augment = Augmentation(self.recipe.flip, self.recipe.crop, self.recipe.randaugment)

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
            TrainingError: The loss is not finite, or memory ran out at one image a part.
        """
        trained = [p for group in groups for p in group.parameters.values()]
        frozen = [p for p in self.model.parameters() if p.requires_grad and not any(p is t for t in trained)]
        optimizer = _optimizer(groups)
        if optimizer_state:
            _load_optimizer(optimizer, groups, optimizer_state)
        rates = [group["lr"] for group in optimizer.param_groups]
        scaler = torch.amp.GradScaler(self.place.device.type, enabled=self.precision.format == "fp16")
        steps = -(-len(self.images) // self.recipe.batch_size)
        warmup = warmup_steps(self.recipe.warmup_epochs, steps, epochs * steps)
        with ExitStack() as stack:
            for parameter in frozen:
                parameter.requires_grad_(False)
                stack.callback(parameter.requires_grad_, True)
            stack.enter_context(attention(self.model, self.precision.fused_attention))
            stack.enter_context(stochastic_depth(self.model, self.backbone, self.recipe.drop_path))
            stack.callback(self.model.eval)
            model = self._wrapped()
            for epoch in range(done, epochs):
                start = time.perf_counter()
                _set_training(model)
                torch.manual_seed(_mix(self.recipe.seed, salt, epoch))
                sums = torch.zeros(3, dtype=torch.float64)
                order = epoch_order(len(self.images), _mix(self.recipe.seed, salt), epoch)
                label = f"{title} {epoch + 1}/{epochs}"
                for step, (pictures, labels) in enumerate(self.images.batches(self.recipe.batch_size, order=order)):
                    share = rate_share(epoch * steps + step, epochs * steps, warmup)
                    for group, rate in zip(optimizer.param_groups, rates, strict=True):
                        group["lr"] = rate * share
                    sums += self._step(model, optimizer, scaler, trained, pictures, labels)
                    loss, accuracy = float(sums[0] / sums[2]), float(sums[1] / sums[2])
                    self.reporter.step(label, len(labels), loss, accuracy)
                seconds = time.perf_counter() - start
                self.reporter.epoch(label, loss, accuracy, seconds)
                row = {
                    "stage": title,
                    "epoch": epoch + 1,
                    "loss": loss,
                    "accuracy": accuracy,
                    "images_per_second": len(self.images) / seconds,
                    "learning_rates": {g.name: r for g, r in zip(groups, _last_rates(optimizer, groups), strict=True)},
                    "seconds": seconds,
                }
                if after_epoch is not None:
                    after_epoch(epoch + 1, row, _optimizer_tensors(optimizer, groups))

    def probe(self, groups: list[Group], precision: Precision) -> float:
        """Forward and backward on the first batch without an update; returns the mean loss."""
        pictures, labels = next(iter(self.images.batches(self.recipe.batch_size, order=None)))
        trained = [p for group in groups for p in group.parameters.values()]
        _set_training(self.model)
        try:
            with attention(self.model, precision.fused_attention):
                scaler = torch.amp.GradScaler(self.place.device.type, enabled=False)
                total, _ = self._forward_backward(self.model, pictures, labels, precision, scaler, len(labels))
        finally:
            self.model.eval()
            for parameter in trained:
                parameter.grad = None
        return total / len(labels)

    def scoring_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The training images in order, normalised and not augmented, with their labels, on the device."""
        for pictures, labels in self.images.batches(self.recipe.batch_size // self.accumulation, order=None):
            yield normalise(pictures, self.description, self.place.device), labels.to(self.place.device)

    @property
    def scoring_precision(self) -> Precision:
        """As for training, but float32 where small gradients would vanish for want of a loss scale."""
        return Precision("fp32") if self.precision.format == "fp16" else self.precision

    def _wrapped(self) -> nn.Module:
        model: nn.Module = self.model
        if self.compile:
            model = torch.compile(model)  # type: ignore[assignment]
        if self.place.processes > 1:
            model = DistributedDataParallel(model)
        return model

    def _step(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: Any,
        trained: list[nn.Parameter],
        pictures: Tensor,
        labels: Tensor,
    ) -> Tensor:
        pictures = self.augment(pictures)
        own = self.place.share(pictures), self.place.share(labels)
        while True:
            try:
                loss, right = self._forward_backward(model, *own, self.precision, scaler, len(labels))
                break
            except (MemoryError, RuntimeError) as error:
                optimizer.zero_grad()
                self._split_further(error, len(labels))
        sums = self.place.total(torch.tensor([loss, right, len(own[1])], dtype=torch.float64))
        if not torch.isfinite(sums[0]):
            rate = self.recipe.learning_rate
            raise TrainingError(
                f"a loss of {float(sums[0])} at learning rate {rate:g} in {self.precision.format}",
                "a finite loss",
                f"try --learning-rate {rate / 3:.2g}, --gradient-clip 1, or --precision fp32",
            )
        scaler.unscale_(optimizer)
        if self.recipe.gradient_clip:
            torch.nn.utils.clip_grad_norm_(trained, self.recipe.gradient_clip)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return sums

    def _forward_backward(
        self,
        model: nn.Module,
        pictures: Tensor,
        labels: Tensor,
        precision: Precision,
        scaler: torch.amp.GradScaler,
        batch: int,
    ) -> tuple[float, float]:
        """Gradients of this process's part of a batch; returns its summed loss and its right answers."""
        loss_sum, right = 0.0, 0.0
        parts = min(self.accumulation, len(labels))
        for part, part_labels in zip(pictures.chunk(parts), labels.chunk(parts), strict=True):
            inputs = normalise(part, self.description, self.place.device)
            targets = part_labels.to(self.place.device)
            with precision.forward_context(self.place.device):
                logits = model(inputs)
            loss = self.loss(logits, targets).sum()
            # data parallel averages gradients, so each process counts its part as if it were all
            scaler.scale(loss * (self.place.processes / batch)).backward()
            loss_sum += float(loss.detach())
            right += float((logits.detach().argmax(1) == targets).sum())
        return loss_sum, right

    def _split_further(self, error: Exception, images: int) -> None:
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and not any(text in str(error).lower() for text in OUT_OF_MEMORY):
            raise error
        if self.accumulation * 2 > images:
            size = f"{self.description.height} x {self.description.width}"
            raise TrainingError(
                f"memory ran out with one image of {size} pixels at a time",
                "room for one image's activations",
                "try a smaller --image-size or model, or a machine with more memory",
            ) from error
        self.accumulation *= 2
        if self.place.device.type == "cuda":
            torch.cuda.empty_cache()
        self.reporter.say(
            f"memory ran out: batches of {images} are now computed in {self.accumulation} parts "
            f"of {-(-images // self.accumulation)} (same effective batch)"
        )


def _set_training(model: nn.Module) -> None:
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


def _split(group: Group) -> list[tuple[dict[str, nn.Parameter], float]]:
    matrices = {n: p for n, p in group.parameters.items() if p.ndim > 1}
    vectors = {n: p for n, p in group.parameters.items() if p.ndim <= 1}
    return [(part, decay) for part, decay in ((matrices, group.decay), (vectors, 0.0)) if part]


def _optimizer(groups: list[Group]) -> torch.optim.AdamW:
    settings = [
        {
            "params": list(part.values()),
            "lr": group.rate,
            "weight_decay": decay,
            "names": list(part),
            "of": group.name,
        }
        for group in groups
        for part, decay in _split(group)
    ]
    return torch.optim.AdamW(settings, fused=True)


def _last_rates(optimizer: torch.optim.Optimizer, groups: list[Group]) -> list[float]:
    by_name = {settings["of"]: float(settings["lr"]) for settings in optimizer.param_groups}
    return [by_name[group.name] for group in groups]


def _optimizer_tensors(optimizer: torch.optim.Optimizer, groups: list[Group]) -> dict[str, Tensor]:
    return {
        f"{name}/{key}": value
        for settings in optimizer.param_groups
        for name, parameter in zip(settings["names"], settings["params"], strict=True)
        for key, value in optimizer.state[parameter].items()
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, groups: list[Group], tensors: Mapping[str, Tensor]) -> None:
    for settings in optimizer.param_groups:
        for name, parameter in zip(settings["names"], settings["params"], strict=True):
            optimizer.state[parameter] = {
                key: tensors[f"{name}/{key}"].clone().to(parameter.device if key != "step" else "cpu")
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
