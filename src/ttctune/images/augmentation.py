"""Random changes of training images that leave most labels, but not all, as they are."""

from dataclasses import dataclass

import ttctune.torchvision_operators  # noqa: F401  torchvision cannot always be imported without it

# isort: split
import torch
from torch import Tensor
from torchvision.transforms import v2

from ttctune.errors import DataError

#: A crop moves by at most this share of each side.
CROP_SHARE = 8
RANDAUGMENT_OPERATIONS = 2


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a batch, drawn from torch's global generator: `torch.manual_seed` repeats them.

    Attributes:
        flip: Mirror each image left to right with probability 1/2.
        crop: Move each image by up to an eighth of each side; what moves in is the image's own reflection.
        randaugment: Magnitude, 1 to 30, of two random operations per image (torchvision's RandAugment); 0 for
            none.

    Raises:
        DataError: A magnitude outside 0..30.
    """

    flip: bool = False
    crop: bool = False
    randaugment: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.randaugment <= 30:
            given = f"randaugment is {self.randaugment}"
            raise DataError(given, "a magnitude from 1 to 30, or 0 for none", "choose one")

    def __call__(self, images: Tensor) -> Tensor:
        """Change a batch; the tensor handed over stays as it is.

        Args:
            images: uint8, B x C x H x W.

        Returns:
            The same shape and dtype.

        Raises:
            DataError: Another dtype or shape, or RandAugment on images of neither 1 nor 3 channels.
        """
        if images.dtype != torch.uint8 or images.ndim != 4:
            given = f"a batch of {images.dtype} of shape {tuple(images.shape)}"
            raise DataError(given, "uint8 of shape B x C x H x W", "convert it")
        if self.flip:
            images = _flipped(images)
        if self.crop:
            images = _cropped(images)
        if self.randaugment:
            images = _randaugmented(images, self.randaugment)
        return images


def _flipped(images: Tensor) -> Tensor:
    result = images.clone()
    for i in torch.nonzero(torch.rand(len(images)) < 0.5).flatten().tolist():
        result[i] = images[i].flip(-1)
    return result


def _cropped(images: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    rows, columns = height // CROP_SHARE, width // CROP_SHARE
    tops = torch.randint(2 * rows + 1, (len(images),)).tolist()
    lefts = torch.randint(2 * columns + 1, (len(images),)).tolist()
    result = torch.empty_like(images)
    for i, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        # One image at a time stays in the processor's cache; the whole batch at once takes twice as long.
        padded = _reflected(_reflected(images[i], rows, -2), columns, -1)
        result[i] = padded[:, top : top + height, left : left + width]
    return result


def _reflected(images: Tensor, margin: int, axis: int) -> Tensor:
    # Seven times faster than torchvision's reflection of uint8, and equal to it.
    before = images.narrow(axis, min(1, margin), margin).flip(axis)
    after = images.narrow(axis, images.shape[axis] - min(1, margin) - margin, margin).flip(axis)
    return torch.cat([before, images, after], axis)


def _randaugmented(images: Tensor, magnitude: int) -> Tensor:
    if images.shape[1] not in (1, 3):
        given = f"randaugment on images of {images.shape[1]} channels"
        raise DataError(given, "1 or 3 channels", "set randaugment 0")
    change = v2.RandAugment(num_ops=RANDAUGMENT_OPERATIONS, magnitude=magnitude)
    return torch.stack([change(image) for image in images])
