"""Images decoded anew each time they are used: any number of them, in the memory of a few batches."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from ttctune.backbone.description import InputDescription
from ttctune.errors import DataError
from ttctune.images.batches import ImageSet, digest_of
from ttctune.images.decoding_ahead import GoodPictures, Progress, Skipped, decoded
from ttctune.images.pictures import Picture
from ttctune.images.resizing import check_description
from ttctune.images.sources import PartSource


@dataclass(frozen=True, eq=False)
class StreamedImages(ImageSet):
    """Images that are read and decoded whenever a batch of them is asked for; equal to the decoded ones in every bit.

    While one batch is in use, the next is decoded.

    Attributes:
        pictures: Where they come from.
        labels: int64, N.
        description: Size, channels, and the way to resize.
        threads: Threads that decode, as in `decoded`.
        digest_when_opened: Digest of the images as they were when all were read for the first time.
    """

    pictures: Sequence[Picture]
    labels: Tensor
    description: InputDescription
    threads: int | None
    digest_when_opened: str

    def digest(self) -> str:
        """SHA-256 of labels and decoded images, that of `LabelledImages`, from when they were opened."""
        return self.digest_when_opened

    def _batches(self, size: int, order: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self)) if order is None else order
        turns = map(int, order)
        stream = decoded(self.pictures, self.description, order=turns, threads=self.threads, ahead=size)
        with closing(stream):
            for start in range(0, len(order), size):
                chosen = order[start : start + size]
                yield torch.stack([_good(picture) for picture in islice(stream, len(chosen))]), self.labels[chosen]


def _good(picture: Tensor | DataError) -> Tensor:
    if isinstance(picture, DataError):
        raise picture
    return picture


def stream(
    part: PartSource,
    description: InputDescription,
    *,
    skip_bad: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[StreamedImages, list[Skipped]]:
    """Read and decode every picture once, keep none: bad ones are found before training, and the digest is known.

    This costs one pass over the images, of the many that training makes, and leaves the same images, labels and
    digest as keeping them would. A picture that goes bad later is an error where it is met.

    Args:
        part: Pictures and labels.
        description: Size, channels, and the way to resize.
        skip_bad: Leave out pictures that cannot be read, instead of stopping at the first.
        threads: Threads that decode; None takes one per core, eight at most.
        progress: Called with (done, total) after each picture, from the calling thread.

    Returns:
        The images, and the pictures left out.

    Raises:
        DataError: A picture cannot be read, or none can, or there are none.
    """
    check_description(description)
    if not len(part):
        raise DataError("there are no images", "at least one", "add images")
    with closing(decoded(part.pictures, description, threads=threads)) as pictures:
        good = GoodPictures(pictures, len(part), skip_bad, progress)
        digest = digest_of(good)
    part = part.without(index for index, _ in good.skipped)
    labels = torch.tensor(part.labels, dtype=torch.int64)
    digest.update(labels.numpy().data)
    return StreamedImages(part.pictures, labels, description, threads, digest.hexdigest()), good.skipped
