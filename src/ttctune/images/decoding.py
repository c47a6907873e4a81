"""One picture to one uint8 tensor of the input's size."""

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile, ImageOps
from torch import Tensor

from ttctune.backbone.description import InputDescription
from ttctune.errors import DataError, FolderError
from ttctune.images.pictures import FileSlice, Picture, to_picture
from ttctune.images.resizing import MAX_PIXELS, check_description, resize
from ttctune.out_of_memory import is_out_of_memory

# Some other formats that Pillow knows start programs, or fetch files that they name.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_EXPECTED = "a whole JPEG, PNG, BMP, GIF, WebP, TIFF or PPM picture"
_ADVICE = "replace it or take it out, or skip bad pictures (skip_bad)"
_DEEP_GREY = ("I", "F")
#: What the machine fails with, however good the picture is.
_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT)
ORIENTATION = ExifTags.Base.Orientation


def decode(picture: Any, description: InputDescription, *, name: str | None = None) -> Tensor:
    """Decode and resize one picture.

    The rotation that EXIF notes is applied; of an animation the first frame is taken. For a model of three
    colours every picture becomes RGB as Pillow's `convert("RGB")` makes it, which is what timm and
    torchvision do: grey is repeated, CMYK is converted, and an alpha channel is dropped, not blended. For a
    model of one channel it becomes grey. Grey pictures of 16 bits, and of 32 bits holding 16, are scaled from
    0..65535 to 0..255; grey pictures of floats that lie in [0, 1] from there. Any other number of channels
    can only come from arrays that have as many.

    Args:
        picture: A path, a PIL image (left unchanged), or an array or tensor, uint8 or float in [0, 1], of
            H x W, H x W x C or C x H x W.
        description: Size, channels, and the way to resize.
        name: What to call the picture in a message; None takes its path.

    Returns:
        uint8, C x height x width.

    Raises:
        DataError: The picture is missing, damaged, cut short, empty, too large, or has the wrong number of
            channels.
        FolderError: The machine fails to read it: too many files are open, or the disk is damaged.
    """
    if name is None:
        name = str(picture) if isinstance(picture, (str, Path)) else "the picture"
    return decode_picture(to_picture(picture, name, description.channels), description, name)


def decode_picture(picture: Picture, description: InputDescription, name: str) -> Tensor:
    """As `decode`, for a picture that `to_picture` has given: arrays are uint8, channels last."""
    check_description(description)
    with _read_strictly(name):
        if isinstance(picture, np.ndarray):
            return _decode_array(picture, description, name)
        with _opened(picture, name) as image:
            return _finish(image, description, name)


def decode_whole(picture: Picture, name: str) -> Image.Image:
    """A picture at its own size, in mode "L" where it is stored as grey, else "RGB"; otherwise as `decode` makes it.

    Raises:
        DataError: The picture is missing, damaged, cut short, empty or too large.
    """
    with _read_strictly(name):
        if isinstance(picture, np.ndarray):
            picture = Image.fromarray(picture)
        with _opened(picture, name) as image:
            grey = image.mode in ("1", "L", *_DEEP_GREY) or image.mode.startswith("I;")
            return _plain(image, "L" if grey else "RGB").copy()


@contextmanager
def _read_strictly(name: str) -> Iterator[None]:
    """Within, whatever goes wrong with a picture is one error that names it."""
    try:
        with strict_pillow():
            yield
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{name} does not exist", "an image file", "check the path") from None
    except Exception as error:
        if is_out_of_memory(error):
            raise
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            given = f"{name} cannot be opened ({error.strerror})"
            raise FolderError(given, "a machine that reads it", "repair that and start again") from None
        reason = " ".join(str(error).split())[:120] or "no reason given"
        given = f"{name} cannot be read ({type(error).__name__}: {reason})"
        raise DataError(given, _EXPECTED, _ADVICE) from None


@contextmanager
def _opened(picture: Path | FileSlice | Image.Image, name: str) -> Iterator[Image.Image]:
    """The picture, loaded and upright."""
    if isinstance(picture, Image.Image):
        yield _loaded(picture, name)
        return
    file = picture if isinstance(picture, Path) else BytesIO(picture.read())
    with Image.open(file, formats=_formats()) as image:
        yield _loaded(image, name)


def _loaded(image: Image.Image, name: str) -> Image.Image:
    _check_size(image.size, name)
    image.load()
    return _upright(image)


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    # A Pillow built without WebP fails on its name, whatever the file is.
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _finish(image: Image.Image, description: InputDescription, name: str) -> Tensor:
    if description.channels not in (1, 3):
        given = f"{name} is a picture for a model of {description.channels} channels"
        advice = f"hand over arrays with {description.channels} channels"
        raise DataError(given, "a model of 1 or 3 channels", advice)
    mode = "L" if description.channels == 1 else "RGB"
    fill = tuple(round(255 * mean) for mean in description.mean)
    return _to_tensor(resize(_plain(image, mode), description, fill[0] if mode == "L" else fill))


def _decode_array(array: "np.ndarray[Any, Any]", description: InputDescription, name: str) -> Tensor:
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        given = f"{name} is {array.dtype} of shape {array.shape}"
        raise DataError(given, "uint8 of shape H x W or H x W x C", "convert it")
    _check_size((array.shape[1], array.shape[0]), name)
    channels = array.shape[2] if array.ndim == 3 else 1
    array = array.reshape(*array.shape[:2], channels)
    wanted = description.channels
    if wanted in (1, 3) and channels in (1, 2, 3, 4):
        image = Image.fromarray(np.ascontiguousarray(array[..., 0] if channels == 1 else array))
        return _finish(image, description, name)
    if channels != wanted:
        given = f"{name} has {channels} channels"
        raise DataError(given, f"{wanted}, as many as the model takes", "convert the images")
    planes = [Image.fromarray(np.ascontiguousarray(array[..., c])) for c in range(channels)]
    fills = [round(255 * mean) for mean in description.mean]
    return torch.cat([_to_tensor(resize(plane, description, fill)) for plane, fill in zip(planes, fills, strict=True)])


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise DataError(f"{name} has {width} x {height} pixels", "at least one pixel", _ADVICE)
    if width * height > MAX_PIXELS:
        given = f"{name} has {width} x {height} pixels"
        raise DataError(given, f"at most {MAX_PIXELS}", "make it smaller, or skip bad pictures (skip_bad)")


def _upright(image: Image.Image) -> Image.Image:
    try:
        if image.getexif().get(ORIENTATION, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """Mode "L" or "RGB" from any mode."""
    if image.mode in _DEEP_GREY or image.mode.startswith("I;"):
        image = _deep_grey_to_bytes(image)
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == mode else image.convert(mode)


def _deep_grey_to_bytes(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("pixels that are not finite")
    floats = image.mode == "F"
    if floats and (values.min() < 0.0 or values.max() > 1.0):
        raise ValueError("floating-point pixels outside 0 to 1")
    return Image.fromarray(np.rint(np.clip(values * (255.0 if floats else 255.0 / 65535.0), 0, 255)).astype(np.uint8))


def _to_tensor(image: Image.Image) -> Tensor:
    values = torch.from_numpy(np.array(image))
    return values[None] if values.ndim == 2 else values.permute(2, 0, 1).contiguous()


_lock = Lock()
_users = 0
_before: Any = None


@contextmanager
def strict_pillow() -> Iterator[None]:
    """Within, Pillow prints no warning and fills in no missing rows; nests; many threads may enter.

    Warning filters belong to the process, so the first to enter sets them and the last to leave restores
    them.
    """
    global _users, _before
    with _lock:
        if _users == 0:
            caught = warnings.catch_warnings()
            caught.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
            warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
            _before = caught, ImageFile.LOAD_TRUNCATED_IMAGES
            ImageFile.LOAD_TRUNCATED_IMAGES = False
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                caught, ImageFile.LOAD_TRUNCATED_IMAGES = _before
                caught.__exit__(None, None, None)
