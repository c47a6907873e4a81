"""The last step before the model: bytes to numbers, on the device."""

import torch
from torch import Tensor

from ttctune.backbone.description import InputDescription


def normalise(images: Tensor, description: InputDescription, device: torch.device) -> Tensor:
    """Scale to [0, 1], then by the model's mean and standard deviation.

    Args:
        images: uint8, N x C x H x W.
        description: Of the pictures the model takes.
        device: Where the result goes; only bytes travel there.

    Returns:
        float32, N x C x H x W.
    """
    mean = torch.tensor(description.mean, device=device).view(-1, 1, 1)
    std = torch.tensor(description.std, device=device).view(-1, 1, 1)
    return images.to(device).to(torch.float32).div_(255).sub_(mean).div_(std)
