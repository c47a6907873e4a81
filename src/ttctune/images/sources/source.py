"""Where images and labels come from, before any image is opened."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from ttctune.images.pictures import Chosen, Joined, Picture

#: The parts a data set can have, in the order in which they are listed.
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class PartSource:
    """Pictures with their labels; nothing is opened before a picture is asked for.

    Attributes:
        pictures: Paths, PIL images or uint8 arrays.
        labels: One number per picture, an index into the classes.
        one_thread: The pictures come from a person's own code, which must not be called from two threads at
            once.
    """

    pictures: Sequence[Picture]
    labels: list[int]
    one_thread: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def choose(self, indices: Sequence[int]) -> "PartSource":
        """The pictures and labels at some positions, in the order given."""
        return replace(self, pictures=Chosen(self.pictures, indices), labels=[self.labels[i] for i in indices])

    def without(self, indices: Iterable[int]) -> "PartSource":
        """The pictures and labels at all other positions."""
        gone = set(indices)
        return self.choose([i for i in range(len(self)) if i not in gone]) if gone else self

    def joined(self, other: "PartSource") -> "PartSource":
        """These pictures and labels, then the other's."""
        one_thread = self.one_thread or other.one_thread
        return PartSource(Joined(self.pictures, other.pictures), self.labels + other.labels, one_thread)


#: What every reader returns: the parts it was asked for and found, and the class names in label order.
Parts: TypeAlias = tuple[dict[str, PartSource], tuple[str, ...]]


@dataclass(frozen=True)
class Source:
    """A data set as parts.

    Attributes:
        parts: From "train", "val" and "test", those that were asked for and exist.
        classes: Class names in label order.
        val_note: Where the val part comes from: "val part of the data", "20 % of train, held out" or "no val part".
        held_out: Whether val was held out of train.
    """

    parts: dict[str, PartSource]
    classes: tuple[str, ...]
    val_note: str = "no val part"
    held_out: bool = False
