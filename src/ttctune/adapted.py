"""What a person holds at the end: a model that predicts, can be measured, merged, and saved in a small folder."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ttctune import adapter_folder
from ttctune.backbone.description import InputDescription
from ttctune.calibration import Calibration
from ttctune.errors import DataError
from ttctune.evaluation import Evaluation, evaluate_logits, outputs_of
from ttctune.images import ImageSet, Picture, as_pictures, decode, open_evaluation_images, picture_name
from ttctune.method.attachment import Attachment
from ttctune.method.merge import merge
from ttctune.model_card import model_card
from ttctune.output_folder import ADAPTER, written_whole
from ttctune.recipe import Recipe
from ttctune.training.precision import by_hand
from ttctune.version import __version__

#: Images a step when predicting.
BATCH = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Adapted:
    """A backbone with an adapter on it.

    Attributes:
        attachment: The adapted copy of the backbone, and the places of what was trained.
        classes: Class names in label order.
        input: The pictures the model takes.
        recipe: The settings it was made with.
        settled: What the run decided itself (precision and why, parts of a batch, device).
        data: Where the images came from, how many, how val was made.
        metrics: What was measured on val.
        importance: Site name -> score of every channel; empty where it was not kept.
        history: One row an epoch.
        calibration: The temperature of its probabilities, and when to abstain, from val.
    """

    attachment: Attachment
    classes: tuple[str, ...]
    input: InputDescription
    recipe: Recipe
    settled: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    importance: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    calibration: Calibration = dataclasses.field(default_factory=Calibration)

    @property
    def model(self) -> nn.Module:
        """Normalised float images N x C x H x W -> logits N x classes; in eval mode."""
        return self.attachment.model

    @property
    def backbone(self) -> nn.Module:
        """The object handed over, as it was."""
        return self.attachment.backbone.model

    @cached_property
    def adapter(self) -> nn.Module:
        """A view whose parameters are exactly the trained tensors, named as in the file."""
        return self.attachment.adapter

    @property
    def selection(self) -> dict[str, Tensor]:
        """Site name -> tuned channels, int64, ascending."""
        return {site.name: tuning.channels.cpu() for site, tuning in self.attachment.tunings.items()}

    @property
    def parameters(self) -> dict[str, int]:
        """Trained parameters of the channels, the norms and the head."""
        return self.attachment.parameter_counts()

    @property
    def val_unseen(self) -> bool:
        """Whether no run that this one went on from can have trained on its val, as far as records tell."""
        return bool(self.settled.get("warm_start", {}).get("val_unseen", True))

    def logits(self, images: Any, precision: str = "fp32") -> Tensor:
        """Logits of pictures.

        Args:
            images: Pictures, as for `predict`, or an `ImageSet`.
            precision: "fp32", "bf16" or "fp16".

        Returns:
            float32, N x classes, on the CPU.

        Raises:
            DataError: A picture cannot be read, or an array can be one picture as well as many.
            RecipeError: No such precision.
        """
        return torch.cat([torch.empty(0, len(self.classes)), *self._outputs(self._batches(images), precision)])

    def predict(self, images: Any, precision: str = "fp32") -> np.ndarray:
        """Probabilities of pictures, at the temperature that was fitted on val.

        Args:
            images: A picture or a list of them: paths, PIL images, arrays (H x W x C, C x H x W or H x W; uint8, or
                float in [0, 1]). An array by itself is one picture (H x W x C or H x W) or, as in training, many of
                them (N x H x W x C, N x C x H x W or N x H x W); C x H x W is refused, as it may be C grey ones.
            precision: "fp32", "bf16" or "fp16".

        Returns:
            float32 array, N x classes; rows sum to 1.

        Raises:
            DataError: A picture cannot be read, or an array can be one picture as well as many.
            RecipeError: No such precision.
        """
        return self.calibration.probabilities(self.logits(images, precision)).numpy()

    def embed(self, images: Any, precision: str = "fp32") -> np.ndarray:
        """Features of pictures: what the head reads, after pooling and the last norm.

        Args:
            images: Pictures, as for `predict`.
            precision: "fp32", "bf16" or "fp16".

        Returns:
            float32 array, N x D, with D the inputs of the head.

        Raises:
            DataError: A picture cannot be read, or an array can be one picture as well as many.
            RecipeError: No such precision.
        """
        outputs = self._outputs(self._batches(images), precision, self._features)
        return torch.cat([torch.empty(0, self.features), *outputs]).numpy()

    def predict_files(
        self, files: Sequence[Picture], precision: str = "fp32", *, skip_bad: bool = False
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Probabilities of image files, a batch at a time, so that any number of them fits in memory.

        Args:
            files: Paths of images.
            precision: "fp32", "bf16" or "fp16".
            skip_bad: Leave out files that cannot be read.

        Yields:
            The position of each file that was read, with its float32 probabilities.

        Raises:
            DataError: A file cannot be read, and `skip_bad` is not given.
        """
        for positions, logits in self._of_files(files, precision, skip_bad):
            yield from zip(positions, self.calibration.probabilities(logits).numpy(), strict=True)

    def embed_files(
        self, files: Sequence[Picture], precision: str = "fp32", *, skip_bad: bool = False
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Features of image files, a batch at a time; arguments and errors are those of `predict_files`.

        Yields:
            The position of each file that was read, with its float32 features (D).
        """
        for positions, features in self._of_files(files, precision, skip_bad, self._features):
            yield from zip(positions, features.numpy(), strict=True)

    @property
    def features(self) -> int:
        """D, the features that the head reads."""
        return next(iter(self.attachment.heads.values())).in_features

    def _features(self, images: Tensor) -> Tensor:
        model: Any = self.model
        features: Tensor = model.forward_head(model.forward_features(images), pre_logits=True)
        return features

    def _batches(self, images: Any) -> Iterator[Tensor]:
        """uint8 batches of pictures, or of images that are decoded already."""
        if isinstance(images, ImageSet):
            return (pictures for pictures, _ in images.batches(BATCH))
        pictures = as_pictures(images, self.input.channels)
        chunks = (pictures[start : start + BATCH] for start in range(0, len(pictures), BATCH))
        return (torch.stack([decode(p, self.input) for p in chunk]) for chunk in chunks)

    def _outputs(
        self, batches: Iterable[Tensor], precision: str, compute: Callable[[Tensor], Tensor] | None = None
    ) -> Iterator[Tensor]:
        plan = by_hand(precision, next(self.model.parameters()).device)
        return outputs_of(self.model, batches, self.input, plan, compute)

    def _of_files(
        self,
        files: Sequence[Picture],
        precision: str,
        skip_bad: bool,
        compute: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Positions of the files that could be read, and the outputs for them, a batch at a time."""
        for start in range(0, len(files), BATCH):
            images: dict[int, Tensor] = {}
            for position, file in enumerate(files[start : start + BATCH], start):
                try:
                    images[position] = decode(file, self.input, name=picture_name(files, position))
                except DataError:
                    if not skip_bad:
                        raise
            if images:
                (outputs,) = self._outputs([torch.stack(list(images.values()))], precision, compute)
                yield list(images), outputs

    def evaluate(
        self,
        data: Any,
        *,
        precision: str = "fp32",
        skip_bad: bool = False,
        abstain: float | None = None,
        workers: int | None = None,
    ) -> Evaluation:
        """Measure on labelled images: the test part where there is one, else val, else all.

        On the very data it was trained on, without a val part of its own, the images that were held out are read.

        Args:
            data: Folder, (images, labels), or data set.
            precision: "fp32", "bf16" or "fp16".
            skip_bad: Leave unreadable images out, and count them.
            abstain: A threshold (0 to 1) to measure beside those chosen on val: below this probability, no answer.
            workers: Threads that decode images; None takes one per core, eight at most.

        Raises:
            DataError: The data cannot be read, or has classes the model does not know.
        """
        images, part, skipped = open_evaluation_images(
            data,
            self.input,
            self.classes,
            held_out=self.data.get("held_out"),
            skip_bad=skip_bad,
            streaming=self.recipe.streaming,
            cache_bytes=self.recipe.cache_mb << 20,
            threads=workers,
        )
        if part == "held-out val" and not self.val_unseen:
            part += ", maybe with images that the earlier run was trained on"
        return self.evaluate_images(images, part, skipped=skipped, precision=precision, abstain=abstain)

    def evaluate_images(
        self,
        images: ImageSet,
        part: str,
        *,
        skipped: int = 0,
        precision: str = "fp32",
        abstain: float | None = None,
    ) -> Evaluation:
        """Measure on images that are open already."""
        further = () if abstain is None else (abstain,)
        logits = self.logits(images, precision)
        return evaluate_logits(logits, images.labels, self.classes, part, skipped, self.calibration, further)

    def merge(self) -> nn.Module:
        """A new plain module of the backbone's own classes with equal outputs, sharing nothing with it.

        Raises:
            MergeError: The adapter acts on the residual stream.
        """
        return merge(self.attachment)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the adapter folder, whole or not at all.

        Args:
            folder: Absent or empty; with `overwrite`, an adapter there is replaced in one step.
            overwrite: Replace an adapter.

        Raises:
            FolderError: The folder is taken, or cannot be written.
        """
        with written_whole(Path(folder), overwrite=overwrite, replaces=ADAPTER) as made:
            self.write_files(made)

    def write_files(self, folder: Path) -> None:
        """Write the adapter's files into a folder that this process owns."""
        tensors = adapter_folder.to_disk(self.adapter.state_dict(), self.recipe.adapter_dtype)
        record = self.record()
        adapter_folder.write(folder, record, tensors, self.importance, self.history, model_card(record))

    def record(self) -> dict[str, Any]:
        """What adapter.json holds, but for the format number and the digests."""
        import timm

        backbone = self.attachment.backbone
        return {
            "backbone": {"name": backbone.name, "digest": backbone.digest},
            "classes": self.classes,
            "input": dataclasses.asdict(self.input),
            "recipe": self.recipe.model_dump(mode="json"),
            "settled": dict(self.settled),
            "data": dict(self.data),
            "parameters": self.parameters,
            "metrics": dict(self.metrics),
            "calibration": self.calibration.model_dump(mode="json"),
            "versions": {
                "ttctune": __version__,
                "torch": torch.__version__,
                "timm": timm.__version__,
            },
        }
