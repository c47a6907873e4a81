"""From data to decoded, labelled images: the one door of this package."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ttctune.backbone.description import InputDescription
from ttctune.images.batches import LabelledImages
from ttctune.images.cache import Progress, decode_all
from ttctune.images.pictures import picture_name
from ttctune.images.sources import PARTS, PartSource, open_source, present_parts
from ttctune.images.sources.hold_out import hold_out

CACHE_BYTES = 4 << 30


@dataclass(frozen=True, eq=False)
class ImageData:
    """Decoded images by part.

    Attributes:
        parts: Those parts that were asked for and exist.
        classes: Class names in label order.
        val_note: Where the val part comes from: "val part of the data", "20 % of train, held out" or "none".
        held_out: Whether val was held out of train.
        skipped_images: One (name, reason) for each image that was left out because it cannot be read.
    """

    parts: dict[str, LabelledImages]
    classes: tuple[str, ...]
    val_note: str
    held_out: bool = False
    skipped_images: tuple[tuple[str, str], ...] = ()

    @property
    def train(self) -> LabelledImages | None:
        """The train part, or None."""
        return self.parts.get("train")

    @property
    def val(self) -> LabelledImages | None:
        """The val part, or None."""
        return self.parts.get("val")

    @property
    def test(self) -> LabelledImages | None:
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
    cache_bytes: int = CACHE_BYTES,
    cache_folder: str | Path | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> ImageData:
    """Find the images of the parts asked for, and decode them; images of other parts are not opened.

    Args:
        data: A folder (with index.csv, VTAB's lists, train/val/test folders, or a folder per class), a pair
            (images, labels), a map-style torch data set, or a mapping of "train", "val" and "test" to the
            last two.
        description: Size, channels, and the way to resize.
        val_fraction: Share of train held out as val where the data has no val part, in [0, 1); 0 holds out
            nothing.
        seed: Decides which images are held out.
        parts: Names of the parts to decode.
        classes: Class names in label order, as an adapter knows them; None finds them in the data.
        skip_bad: Leave out images that cannot be read, instead of stopping at the first.
        cache_bytes: Decoded images up to this many bytes, all parts together, are kept in memory; the rest in
            files.
        cache_folder: Where those files go; None takes temporary files that end with the process.
        threads: Threads that decode; None takes one per core, eight at most.
        progress: Called with (done, total) after each image, total counting all parts.

    Returns:
        The decoded parts.

    Raises:
        DataError: The data, or an image without `skip_bad`, is not as expected.
        FolderError: The cache cannot be written.
    """
    source = open_source(data, val_fraction=val_fraction, seed=seed, parts=parts, classes=classes)
    decoder = _Decoder(description, skip_bad, cache_bytes, cache_folder, threads, progress)
    decoder.total = sum(len(part) for part in source.parts.values())
    decoded = {name: decoder.decode(part, name) for name, part in source.parts.items()}
    return ImageData(decoded, source.classes, source.val_note, source.held_out, tuple(decoder.skipped))


def open_evaluation_images(
    data: Any,
    description: InputDescription,
    classes: tuple[str, ...] | None,
    *,
    held_out: Mapping[str, Any] | None = None,
    skip_bad: bool = False,
    cache_bytes: int = CACHE_BYTES,
    cache_folder: str | Path | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[LabelledImages, str, int]:
    """Decode what an adapter is evaluated on: the test part where there is one, else val, else all images.

    Args:
        data: As in `open_images`.
        description: Size, channels, and the way to resize.
        classes: Class names in label order, as the adapter knows them; None finds them in the data.
        held_out: How images were held out in training ("val_fraction", "seed") and their "digest": where this
            data holds the same images out again, it is the training data, and only those images are
            evaluated.
        skip_bad: Leave out images that cannot be read, instead of stopping at the first.
        cache_bytes: Decoded images up to this many bytes are kept in memory, else in a file.
        cache_folder: Where that file goes; None takes a temporary file that ends with the process.
        threads: Threads that decode; None takes one per core, eight at most.
        progress: Called with (done, total) after each image.

    Returns:
        The images; "test", "val", "held-out val" or "all images"; how many were left out.

    Raises:
        DataError: The data, or an image without `skip_bad`, is not as expected.
        FolderError: The cache cannot be written.
    """
    present = present_parts(data, classes)
    part = next(name for name in reversed(PARTS) if name in present)
    if part == "train" and held_out:
        again = _Decoder(description, skip_bad, cache_bytes, cache_folder, threads, None)
        val = _held_out_again(data, classes, again, held_out)
        if val is not None:
            return val, "held-out val", len(again.skipped)
    source = open_source(data, val_fraction=0.0, parts=(part,), classes=classes)
    decoder = _Decoder(description, skip_bad, cache_bytes, cache_folder, threads, progress)
    decoder.total = len(source.parts[part])
    images = decoder.decode(source.parts[part], part)
    title = "all images" + ", maybe with training images among them" * bool(held_out) if part == "train" else part
    return images, title, len(decoder.skipped)


def _held_out_again(
    data: Any, classes: tuple[str, ...] | None, decoder: "_Decoder", held_out: Mapping[str, Any]
) -> LabelledImages | None:
    """The images that training held out, when this is the data it held them out of."""
    train = open_source(data, val_fraction=0.0, parts=("train",), classes=classes)
    fraction, seed = held_out["val_fraction"], held_out["seed"]
    _, val = hold_out(train.parts["train"], train.classes, fraction, seed, strict=False)
    images = decoder.decode(val, "val") if len(val) else None
    return images if images is not None and images.digest() == held_out["digest"] else None


class _Decoder:
    """Decodes part after part, within one budget of memory."""

    def __init__(
        self,
        description: InputDescription,
        skip_bad: bool,
        cache_bytes: int,
        cache_folder: str | Path | None,
        threads: int | None,
        progress: Progress | None,
    ) -> None:
        self.description, self.skip_bad, self.left_bytes = description, skip_bad, cache_bytes
        self.folder = None if cache_folder is None else Path(cache_folder)
        self.threads, self.progress = threads, progress
        self.done = self.total = 0
        self.skipped: list[tuple[str, str]] = []

    def decode(self, part: PartSource, name: str) -> LabelledImages:
        images, skipped = decode_all(
            part.pictures,
            self.description,
            budget_bytes=self.left_bytes,
            folder=self.folder,
            skip_bad=self.skip_bad,
            threads=1 if part.one_thread else self.threads,
            progress=self._report if self.progress is not None else None,
            name=name,
        )
        if images.numel() <= self.left_bytes:
            self.left_bytes -= images.numel()
        self.done += len(part)
        self.skipped += [(picture_name(part.pictures, index), reason) for index, reason in skipped]
        bad = {index for index, _ in skipped}
        labels = [label for index, label in enumerate(part.labels) if index not in bad]
        return LabelledImages(images, torch.tensor(labels, dtype=torch.int64))

    def _report(self, done: int, _: int) -> None:
        if self.progress is not None:
            self.progress(self.done + done, self.total)
