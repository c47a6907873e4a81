"""A picture to the input size: whole, or with the very pixels of timm's evaluation transform."""

import math

from PIL import Image

from ttctune.backbone.description import InputDescription
from ttctune.errors import DataError

#: Pictures with more pixels are refused; the limit above which Pillow suspects an attack.
MAX_PIXELS = 178_956_970

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
    # timm chooses one of two at random here, which no evaluation can repeat.
    "random": Image.Resampling.BICUBIC,
}


def check_description(description: InputDescription) -> None:
    """Refuse a description that names no known way to resize.

    Raises:
        DataError: An unknown filter, crop mode or way to resize, or a size or crop share that makes no sense.
    """
    for setting, value, known in (
        ("interpolation", description.interpolation, tuple(FILTERS)),
        ("crop_mode", description.crop_mode, ("center", "squash", "border")),
        ("resize", description.resize, ("squash", "crop")),
    ):
        if value not in known:
            raise DataError(f"{setting} is {value!r}", f"one of {', '.join(known)}", "correct the input description")
    if min(description.height, description.width, description.channels) < 1 or not 0 < description.crop_share <= 1:
        size = f"{description.height} x {description.width} pixels"
        given = f"input of {size}, crop share {description.crop_share:g}"
        raise DataError(given, "positive sizes and a share in (0, 1]", "correct the input description")


def resize(image: Image.Image, description: InputDescription, fill: float | tuple[int, ...]) -> Image.Image:
    """Bring a picture to the input size.

    Args:
        image: Mode "L" or "RGB".
        description: The size, and how to reach it.
        fill: Colour of the border that `crop_mode = "border"` may add, 0..255.

    Returns:
        A picture of the same mode, height x width.

    Raises:
        DataError: The picture is so long and thin that resizing it would fill the memory.
    """
    target = (description.width, description.height)
    method = FILTERS[description.interpolation]
    if description.resize == "squash":
        return image.resize(target, method)
    scaled = _scaled_size(image.size, description)
    if scaled[0] * scaled[1] > MAX_PIXELS:
        given = f"a picture of {image.width} x {image.height} pixels resized to {scaled[0]} x {scaled[1]}"
        raise DataError(given, f"at most {MAX_PIXELS} pixels", "cut the picture, or use resize squash")
    border = description.crop_mode == "border"
    return _center_crop_or_pad(image.resize(scaled, method), target, fill if border else 0)


def _scaled_size(size: tuple[int, int], description: InputDescription) -> tuple[int, int]:
    """Width and height before the crop, rounded as timm and torchvision round them."""
    wide, high = (math.floor(side / description.crop_share) for side in (description.width, description.height))
    if description.crop_mode == "squash":
        return wide, high
    if description.crop_mode == "center" and wide == high:
        long = int(wide * max(size) / min(size))
        return (wide, long) if size[0] <= size[1] else (long, wide)
    ratios = (size[1] / high, size[0] / wide)
    ratio = max(ratios) if description.crop_mode == "border" else min(ratios)
    return max(1, round(size[0] / ratio)), max(1, round(size[1] / ratio))


def _center_crop_or_pad(image: Image.Image, target: tuple[int, int], fill: float | tuple[int, ...]) -> Image.Image:
    missing = [max(0, wanted - side) for wanted, side in zip(target, image.size, strict=True)]
    if any(missing):
        padded = Image.new(image.mode, (image.width + missing[0], image.height + missing[1]), fill)
        padded.paste(image, (missing[0] // 2, missing[1] // 2))
        image = padded
    left, top = (round((side - wanted) / 2.0) for side, wanted in zip(image.size, target, strict=True))
    return image.crop((left, top, left + target[0], top + target[1]))
