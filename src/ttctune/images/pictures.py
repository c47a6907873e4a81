"""What counts as one picture, and sequences of them that are read only when asked for."""

from abc import abstractmethod
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, overload

import numpy as np
import torch
from PIL import Image

from ttctune.errors import DataError


class FileSlice(NamedTuple):
    """A picture's file that lies inside a larger file.

    Attributes:
        path: The larger file.
        offset: Of the first byte.
        size: In bytes.
    """

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """The bytes.

        Raises:
            OSError: The larger file cannot be read, or has become too short.
        """
        with open(self.path, "rb", buffering=0) as file:
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) < self.size:
            raise OSError(f"{self.path} has become shorter")
        return content


#: One picture: a file, a part of one, a PIL image, or a uint8 array of H x W (grey) or H x W x C.
Picture: TypeAlias = Path | FileSlice | Image.Image | np.ndarray[Any, Any]

_KINDS = "a path, a PIL image, or a uint8 (or float in [0, 1]) array or tensor"


class LazyPictures(Sequence[Picture]):
    """Pictures that are made only when they are asked for, and not kept."""

    @abstractmethod
    def picture(self, index: int) -> Picture:
        """One picture, by its position."""

    def name(self, index: int) -> str:
        """What to call a picture in a message."""
        return f"image {index}"

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> "Chosen": ...
    def __getitem__(self, index: int | slice) -> "Picture | Chosen":
        if isinstance(index, slice):
            return Chosen(self, range(*index.indices(len(self))))
        return self.picture(index)


class Chosen(LazyPictures):
    """Some pictures of a longer sequence, in a given order."""

    def __init__(self, pictures: Sequence[Picture], indices: Sequence[int]) -> None:
        self._pictures, self._indices = pictures, array("q", indices)

    def __len__(self) -> int:
        return len(self._indices)

    def picture(self, index: int) -> Picture:
        """The picture at that position of the choice."""
        return self._pictures[self._indices[index]]

    def name(self, index: int) -> str:
        """As the longer sequence calls it."""
        return picture_name(self._pictures, self._indices[index])


class Joined(LazyPictures):
    """The pictures of one sequence, then those of another."""

    def __init__(self, first: Sequence[Picture], second: Sequence[Picture]) -> None:
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def picture(self, index: int) -> Picture:
        """The picture at that position of both together."""
        pictures, index = self._find(index)
        return pictures[index]

    def name(self, index: int) -> str:
        """As the sequence that holds it calls it."""
        return picture_name(*self._find(index))

    def _find(self, index: int) -> tuple[Sequence[Picture], int]:
        behind = range(len(self))[index] - len(self._first)
        return (self._second, behind) if behind >= 0 else (self._first, behind + len(self._first))


class FilePictures(LazyPictures):
    """Image files; of each its name alone is kept, a tenth of what a Path takes."""

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    def picture(self, index: int) -> Picture:
        """The file's path."""
        return Path(self._names[index])

    def name(self, index: int) -> str:
        """The file's path."""
        return self._names[index]


def picture_bytes(picture: Picture) -> bytes:
    """What a digest of a picture is taken over: the bytes of its file, or mode, size and pixels.

    Raises:
        OSError: The file cannot be read.
    """
    if isinstance(picture, Path):
        return picture.read_bytes()
    if isinstance(picture, FileSlice):
        return picture.read()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    return f"{image.mode} {image.size} ".encode() + image.tobytes()


def picture_name(pictures: Sequence[Picture], index: int) -> str:
    """What to call one picture of a sequence in a message: its path, or its number in what was given."""
    if isinstance(pictures, LazyPictures):
        return pictures.name(index)
    if isinstance(pictures, list) and isinstance(pictures[index], (str, Path)):
        return str(pictures[index])
    return f"image {index}"


def to_picture(thing: Any, name: str, channels: int | None = None) -> Picture:
    """Bring one image, in any accepted form, to one of the kinds of picture.

    Args:
        thing: A path (string or Path), a slice of a file, a PIL image, or an array or tensor: uint8, or float in
            [0, 1]; H x W, H x W x C or C x H x W.
        name: What to call it in a message.
        channels: How many channels are expected, where that is known; an array's last axis of that length
            holds them.

    Returns:
        A Path, a slice of a file, a PIL image, or a uint8 array of H x W or H x W x C.

    Raises:
        DataError: It is something else, or its values or shape make no sense.
    """
    if isinstance(thing, (str, Path)):
        return Path(thing)
    if isinstance(thing, Image.Image | FileSlice):
        return thing
    if not isinstance(thing, (np.ndarray, torch.Tensor)):
        raise DataError(f"{name} is of type {type(thing).__name__}", _KINDS, "convert it")
    array = to_numpy(thing)
    check_values(array, name)
    if array.ndim == 3 and array.shape[-1] == channels and not isinstance(thing, torch.Tensor):
        return to_bytes(array)
    if array.ndim == 3:
        array = np.moveaxis(array, channel_axis(array.shape, isinstance(thing, torch.Tensor), name), -1)
    elif array.ndim != 2:
        raise DataError(f"{name} has shape {tuple(array.shape)}", "H x W, H x W x C or C x H x W", "reshape it")
    return to_bytes(array)


def as_pictures(images: Any, channels: int) -> Sequence[Picture]:
    """Pictures one by one: of a list, of an array as arrays to train on are read, or the one that is given.

    Args:
        images: A picture, a list of them, or an array of many.
        channels: How many channels the model takes.

    Raises:
        DataError: The array can be one picture, C x H x W, as well as that many grey ones.
    """
    if isinstance(images, np.ndarray | torch.Tensor) and images.dtype != object:
        many = _is_stack(images, channels)
    else:
        many = isinstance(images, list | tuple | np.ndarray)
    return images if many else [images]


def _is_stack(array: "np.ndarray[Any, Any] | torch.Tensor", channels: int) -> bool:
    """Four dimensions are many pictures; three are one, channels last (H x W x C), or many grey ones (N x H x W)."""
    shape = tuple(array.shape)
    if len(shape) != 3 or shape[-1] in (1, 3, 4, channels):
        return len(shape) == 4
    if shape[0] in (3, 4, channels) and shape[0] != 1:
        raise DataError(
            f"images of shape {shape} that are one picture C x H x W or {shape[0]} grey ones",
            "N x C x H x W or N x H x W x C",
            "give images[None] for one picture, images[..., None] for grey ones",
        )
    return True


def to_numpy(array: "np.ndarray[Any, Any] | torch.Tensor") -> "np.ndarray[Any, Any]":
    """The same values as a numpy array on the CPU; bfloat16 becomes float32."""
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu()
        return (array.float() if array.dtype == torch.bfloat16 else array).numpy()
    return array


def check_values(array: "np.ndarray[Any, Any]", name: str) -> None:
    """Refuse arrays that are neither uint8 nor float in [0, 1].

    Raises:
        DataError: Another dtype, or floats outside the range or not finite.
    """
    if array.dtype == np.uint8 or array.size == 0:
        return
    expected = "uint8 in 0..255 or floats in [0, 1]"
    if array.dtype.kind != "f":
        raise DataError(f"{name} has dtype {array.dtype}", expected, "convert the values")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0.0 and high <= 1.0):
        advice = "scale the values, and leave normalisation out: the model's own is applied later"
        raise DataError(f"{name} has floats from {low:g} to {high:g}", expected, advice)


def channel_axis(shape: tuple[int, ...], first_preferred: bool, name: str) -> int:
    """Which of the last three axes holds the colour channels.

    One of 1, 3 or 4 entries does; where both ends would, the last (the first for tensors) is taken. Failing
    that, the end that is shorter than both other axes.

    Args:
        shape: Shape of an image or of a batch; only its last three entries count.
        first_preferred: Look at C x H x W before H x W x C.
        name: What to call the array in a message.

    Returns:
        -3 or -1.

    Raises:
        DataError: No axis can be told to be the channels.
    """
    ends = (-3, -1) if first_preferred else (-1, -3)
    for axis in ends:
        if shape[axis] in (1, 3, 4):
            return axis
    for axis in ends:
        if shape[axis] < min(shape[-2], shape[-4 - axis]):
            return axis
    raise DataError(f"{name} has shape {tuple(shape)}", "channels first or last", "reshape it")


def to_bytes(array: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Floats in [0, 1] to uint8, rounded to the nearest; uint8 passes unchanged."""
    if array.dtype == np.uint8:
        return array
    scaled: np.ndarray[Any, Any] = np.rint(array.astype(np.float32) * 255.0).astype(np.uint8)
    return scaled
