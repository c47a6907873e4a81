"""Labelled images, and the batches made of them."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ttctune.errors import DataError

_WORD = (1 << 64) - 1


class ImageSet(ABC):
    """Images and their labels, in one order; where the images are is the business of each kind.

    Attributes:
        labels: int64, N.
    """

    labels: Tensor

    def __len__(self) -> int:
        return self.labels.shape[0]

    @abstractmethod
    def digest(self) -> str:
        """SHA-256 of labels and decoded images, to know them again; the same for every kind."""

    def batches(self, size: int, *, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through the images once.

        Args:
            size: Images per batch; the last batch may be smaller.
            order: int64 positions to visit, in this order; None visits all as they are.

        Yields:
            uint8 images B x C x H x W, not normalised, and int64 labels B.

        Raises:
            DataError: The size is below 1, or an image that was good has become unreadable.
        """
        if size < 1:
            raise DataError(f"batch size {size}", "at least 1", "choose a larger one")
        return self._batches(size, order)

    @abstractmethod
    def _batches(self, size: int, order: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]: ...


@dataclass(frozen=True, eq=False)
class LabelledImages(ImageSet):
    """Decoded images and their labels.

    Attributes:
        images: uint8, N x C x H x W; not normalised.
        labels: int64, N.

    Raises:
        DataError: The lengths differ, or a tensor has another shape or dtype.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != torch.uint8 or images.ndim != 4:
            given = f"images are {images.dtype} of shape {tuple(images.shape)}"
            raise DataError(given, "uint8 of shape N x C x H x W", "convert them")
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            given = f"labels are {labels.dtype} of shape {tuple(labels.shape)}"
            raise DataError(given, f"int64 of shape ({images.shape[0]},)", "give one label per image")

    def digest(self) -> str:
        """SHA-256 of labels and images."""
        digest = digest_of(self.images)
        digest.update(self.labels.numpy().data)
        return digest.hexdigest()

    def _batches(self, size: int, order: Tensor | None) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self) if order is None else len(order), size):
            chosen = slice(start, start + size) if order is None else order[start : start + size]
            yield self.images[chosen], self.labels[chosen]


def digest_of(images: Iterable[Tensor]) -> "hashlib._Hash":
    """SHA-256 of images, one after the other; labels come behind, as only then it is known which images are good."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(image.contiguous().numpy().data)
    return digest


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """The order of one epoch, a function of its arguments alone.

    Args:
        n: Number of images.
        seed: Seed of the run.
        epoch: Number of the epoch.

    Returns:
        A permutation of 0..n-1, int64.
    """
    return torch.randperm(n, generator=mixed_generator(seed, epoch))


def mixed_generator(seed: int, stream: int) -> torch.Generator:
    """A random generator of its own for each pair of numbers, on the CPU.

    Args:
        seed: Any integer.
        stream: Any integer, such as an epoch or a class.

    Returns:
        A generator whose state depends on the two numbers only.
    """
    # Seed 0 at epoch 1 must not be seed 1 at epoch 0: splitmix64, twice.
    state = _splitmix64(_splitmix64(seed & _WORD) ^ (stream & _WORD))
    return torch.Generator().manual_seed(state >> 1)


def _splitmix64(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _WORD
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _WORD
    return value ^ (value >> 31)
