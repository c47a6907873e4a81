"""From data to decoded, labelled images: the one door of this package."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ttctune.backbone.description import InputDescription
from ttctune.errors import DataError
from ttctune.images.batches import ImageSet, LabelledImages
from ttctune.images.cache import decode_all, decoded_bytes
from ttctune.images.decoding_ahead import Progress, Skipped
from ttctune.images.pictures import picture_name
from ttctune.images.sources import PARTS, PartSource, Source, open_source, present_parts
from ttctune.images.sources.hold_out import hold_out
from ttctune.images.streaming import stream

CACHE_BYTES = 4 << 30


@dataclass(frozen=True, eq=False)
class ImageData:
    """Images by part, decoded or streamed.

    Attributes:
        parts: Those parts that were asked for and exist.
        classes: Class names in label order.
        val_note: Where the val part comes from: "val part of the data", "20 % of train, held out" or "no val part".
        held_out: Whether val was held out of train.
        skipped_images: One (name, reason) for each image that was left out because it cannot be read.
    """

    parts: dict[str, ImageSet]
    classes: tuple[str, ...]
    val_note: str
    held_out: bool = False
    skipped_images: tuple[tuple[str, str], ...] = ()

    @property
    def train(self) -> ImageSet | None:
        """The train part, or None."""
        return self.parts.get("train")

    @property
    def val(self) -> ImageSet | None:
        """The val part, or None."""
        return self.parts.get("val")

    @property
    def test(self) -> ImageSet | None:
        """The test part, or None."""
        return self.parts.get("test")

    @property
    def skipped(self) -> int:
        """How many images were left out."""
        return len(self.skipped_images)


def open_images(
    data: Any,
    description: InputDescription,
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    parts: Collection[str] = ("train", "val"),
    classes: tuple[str, ...] | None = None,
    skip_bad: bool = False,
    streaming: bool = False,
    cache_bytes: int = CACHE_BYTES,
    cache_folder: str | Path | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> ImageData:
    """Find the images of the parts asked for, and decode them; images of other parts are not opened.

    Args:
        data: A folder (with index.csv, VTAB's lists, shards, train/val/test folders, or a folder per class), one
            shard or a pattern of shards, a pair (images, labels), a map-style torch data set, a mapping of
            "train", "val" and "test" to the last two, or a `Source`, whose parts are taken as they are.
        description: Size, channels, and the way to resize.
        val_fraction: Share of train held out as val where the data has no val part, in [0, 1); 0 holds out
            nothing.
        seed: Decides which images are held out.
        parts: Names of the parts to decode.
        classes: Class names in label order, as an adapter knows them; None finds them in the data.
        skip_bad: Leave out images that cannot be read, instead of stopping at the first.
        streaming: Keep no decoded images: look at each once, and decode it anew whenever it is used.
        cache_bytes: Decoded images up to this many bytes, all parts together, are kept in memory; the rest in
            files.
        cache_folder: Where those files go; None takes temporary files that end with the process.
        threads: Threads that decode; None takes one per core, eight at most.
        progress: Called with (done, total) after each image, total counting all parts.

    Returns:
        The parts.

    Raises:
        DataError: The data, or an image without `skip_bad`, is not as expected; or no train image of a class is left.
        FolderError: The cache cannot be written.
    """
    source = open_source(data, val_fraction=val_fraction, seed=seed, parts=parts, classes=classes)
    folder = None if cache_folder is None else Path(cache_folder)
    decoder = _Decoder(description, skip_bad, cache_bytes, threads, progress, streaming, folder)
    decoder.total = sum(len(part) for part in source.parts.values())
    decoded = {name: decoder.decode(part, name) for name, part in source.parts.items()}
    if decoder.skipped and "train" in decoded:
        _check_every_class_left(source, decoded["train"])
    return ImageData(decoded, source.classes, source.val_note, source.held_out, tuple(decoder.skipped))


def open_evaluation_images(
    data: Any,
    description: InputDescription,
    classes: tuple[str, ...] | None,
    *,
    held_out: Mapping[str, Any] | None = None,
    skip_bad: bool = False,
    streaming: bool = False,
    cache_bytes: int = CACHE_BYTES,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[ImageSet, str, int]:
    """Open what an adapter is evaluated on: the test part where there is one, else val, else all images.

    Args:
        data: As in `open_images`.
        description: Size, channels, and the way to resize.
        classes: Class names in label order, as the adapter knows them; None finds them in the data.
        held_out: How images were held out in training ("val_fraction", "seed") and their "digest": where this
            data holds the same images out again, it is the training data, and only those images are
            evaluated.
        skip_bad: Leave out images that cannot be read, instead of stopping at the first.
        streaming: Keep no decoded images.
        cache_bytes: Decoded images up to this many bytes are kept in memory; more are streamed.
        threads: Threads that decode; None takes one per core, eight at most.
        progress: Called with (done, total) after each image.

    Returns:
        The images; "test", "val", "held-out val" or "all images"; how many were left out.

    Raises:
        DataError: The data, or an image without `skip_bad`, is not as expected.
    """

    def opened(part: PartSource, progress: Progress | None) -> tuple[ImageSet, int]:
        streamed = streaming or decoded_bytes(len(part), description) > cache_bytes
        decoder = _Decoder(description, skip_bad, cache_bytes, threads, progress, streamed)
        decoder.total = len(part)
        return decoder.decode(part, "images"), len(decoder.skipped)

    present = present_parts(data)
    name = next(name for name in reversed(PARTS) if name in present)
    source = open_source(data, val_fraction=0.0, parts=(name,), classes=classes)
    part = source.parts[name]
    if name == "train" and held_out:
        _, val = hold_out(part, source.classes, held_out["val_fraction"], held_out["seed"], strict=False)
        if len(val):
            images, skipped = opened(val, None)
            if images.digest() == held_out["digest"]:
                return images, "held-out val", skipped
    images, skipped = opened(part, progress)
    title = "all images" + ", maybe with training images among them" * bool(held_out) if name == "train" else name
    return images, title, skipped


def _check_every_class_left(source: Source, train: ImageSet) -> None:
    gone = sorted(set(source.parts["train"].labels) - set(train.labels.tolist()))
    if gone:
        raise DataError(
            f"no train image of class {source.classes[gone[0]]!r} can be read",
            "at least one good image per class",
            "repair its images, or take the class out",
        )


class _Decoder:
    """Decodes part after part, within one budget of memory, or opens them as streams."""

    def __init__(
        self,
        description: InputDescription,
        skip_bad: bool,
        cache_bytes: int,
        threads: int | None,
        progress: Progress | None,
        streaming: bool,
        folder: Path | None = None,
    ) -> None:
        self.description, self.skip_bad, self.left_bytes = description, skip_bad, cache_bytes
        self.threads, self.progress, self.streaming, self.folder = threads, progress, streaming, folder
        self.done = self.total = 0
        self.skipped: list[tuple[str, str]] = []

    def decode(self, part: PartSource, name: str) -> ImageSet:
        images, skipped = self._stream(part) if self.streaming else self._keep(part, name)
        self.done += len(part)
        self.skipped += [(picture_name(part.pictures, index), reason) for index, reason in skipped]
        return images

    def _stream(self, part: PartSource) -> tuple[ImageSet, list[Skipped]]:
        return stream(
            part,
            self.description,
            skip_bad=self.skip_bad,
            threads=self._threads(part),
            progress=self._report,
        )

    def _keep(self, part: PartSource, name: str) -> tuple[ImageSet, list[Skipped]]:
        images, skipped = decode_all(
            part.pictures,
            self.description,
            budget_bytes=self.left_bytes,
            folder=self.folder,
            skip_bad=self.skip_bad,
            threads=self._threads(part),
            progress=self._report,
            name=name,
        )
        if images.numel() <= self.left_bytes:
            self.left_bytes -= images.numel()
        labels = part.without(index for index, _ in skipped).labels
        return LabelledImages(images, torch.tensor(labels, dtype=torch.int64)), skipped

    def _threads(self, part: PartSource) -> int | None:
        return 1 if part.one_thread else self.threads

    def _report(self, done: int, _: int) -> None:
        if self.progress is not None:
            self.progress(self.done + done, self.total)
