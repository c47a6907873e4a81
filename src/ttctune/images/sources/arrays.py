"""Images and labels in memory: a pair of sequences or arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ttctune.errors import DataError
from ttctune.images.pictures import (
    LazyPictures,
    Picture,
    channel_axis,
    check_values,
    to_bytes,
    to_numpy,
    to_picture,
)
from ttctune.images.sources.labels import plain_labels

_SHAPES = "N x H x W x C, N x C x H x W or N x H x W"


class ArrayPictures(LazyPictures):
    """One array of many images, converted one image at a time.

    Args:
        images: uint8, or float in [0, 1]; N x H x W x C, N x C x H x W or N x H x W (grey).
        name: What to call the array in a message.

    Raises:
        DataError: Another shape, dtype or range.
    """

    def __init__(self, images: "np.ndarray[Any, Any] | torch.Tensor", name: str) -> None:
        array = to_numpy(images)
        if array.ndim not in (3, 4):
            raise DataError(f"{name} have shape {tuple(array.shape)}", _SHAPES, "reshape them")
        check_values(array, name)
        if array.ndim == 4:
            axis = channel_axis(array.shape, isinstance(images, torch.Tensor), name)
            array = np.moveaxis(array, axis, -1)
        self._array = array

    def __len__(self) -> int:
        return int(self._array.shape[0])

    def picture(self, index: int) -> Picture:
        """uint8, H x W or H x W x C."""
        return to_bytes(self._array[index])


def read_pair(pair: tuple[Any, Any], name: str) -> tuple[Sequence[Picture], list[int] | list[str]]:
    """Split `(images, labels)` into pictures and plain labels of equal number.

    Args:
        pair: Images (an array, a tensor, or a sequence of paths, PIL images or arrays) and their labels.
        name: What to call the pair in a message.

    Returns:
        Pictures, and labels that are all integers or all strings.

    Raises:
        DataError: The numbers differ, or a part is not of an accepted kind.
    """
    images, values = pair
    labels = plain_labels(values, f"the labels of {name}")
    pictures: Sequence[Picture]
    if isinstance(images, (np.ndarray, torch.Tensor)) and images.dtype != object:
        pictures = ArrayPictures(images, f"the images of {name}")
    elif isinstance(images, (str, bytes)) or not hasattr(images, "__iter__"):
        given = f"the images of {name} are of type {type(images).__name__}"
        raise DataError(given, f"an array of {_SHAPES}, or a list of paths, PIL images or arrays", "convert them")
    else:
        pictures = [to_picture(image, f"image {i} of {name}") for i, image in enumerate(images)]
    if len(pictures) != len(labels):
        given = f"{name} has {len(pictures)} images and {len(labels)} labels"
        raise DataError(given, "one label per image", "make the two equally long")
    if not labels:
        raise DataError(f"{name} holds no images", "at least one", "add images")
    return pictures, labels
