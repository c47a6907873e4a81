"""Every picture decoded once, into memory or, when there are too many, into a file."""

import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from ttctune.backbone.description import InputDescription
from ttctune.errors import DataError, FolderError
from ttctune.images.decoding_ahead import GoodPictures, Progress, Skipped, decoded
from ttctune.images.pictures import Picture
from ttctune.images.resizing import check_description


def decode_all(
    pictures: Sequence[Picture],
    description: InputDescription,
    *,
    budget_bytes: int,
    folder: Path | None = None,
    skip_bad: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
    name: str = "images",
) -> tuple[Tensor, list[Skipped]]:
    """Decode pictures once, in order.

    Args:
        pictures: Paths, PIL images or uint8 arrays; each is asked for once.
        description: Size, channels, and the way to resize.
        budget_bytes: Up to this size the result is in memory; beyond, it is a memory-mapped file.
        folder: Where that file is written, as `<name>.uint8`; None takes a temporary file that ends with the
            process.
        skip_bad: Leave out pictures that cannot be read, instead of stopping at the first.
        threads: Threads that decode; None takes one per core, eight at most.
        progress: Called with (done, total) after each picture, from the calling thread.
        name: Name of the file, without its ending.

    Returns:
        uint8, N x C x height x width, and the pictures left out.

    Raises:
        DataError: A picture cannot be read, or none can, or there are none.
        FolderError: The file cannot be written; what was written of it is gone.
    """
    check_description(description)
    if not pictures:
        raise DataError("there are no images", "at least one", "add images")
    shape = (description.channels, description.height, description.width)
    with closing(decoded(pictures, description, threads=threads)) as stream:
        good = GoodPictures(stream, len(pictures), skip_bad, progress)
        if decoded_bytes(len(pictures), description) <= budget_bytes:
            return _into_memory(good, (len(pictures), *shape)), good.skipped
        return _into_file(good, (len(pictures), *shape), folder, name), good.skipped


def decoded_bytes(pictures: int, description: InputDescription) -> int:
    """What so many decoded pictures take."""
    return pictures * description.channels * description.height * description.width


def _into_memory(good: GoodPictures, shape: tuple[int, ...]) -> Tensor:
    try:
        images = torch.empty(shape, dtype=torch.uint8)
    except (RuntimeError, MemoryError):
        given = f"{shape[0]} images take {math.prod(shape) / 1e9:.1f} GB, more than the memory that is free"
        advice = "lower --cache-mb, or use --streaming to keep none"
        raise DataError(given, "a smaller set or less memory for images", advice) from None
    count = 0
    for image in good:
        images[count] = image
        count += 1
    return images[:count]


def _into_file(good: GoodPictures, shape: tuple[int, ...], folder: Path | None, name: str) -> Tensor:
    where = folder or Path(tempfile.gettempdir())
    try:
        where.mkdir(parents=True, exist_ok=True)
        _check_room(where, math.prod(shape))
        if folder is None:
            with tempfile.TemporaryFile() as unnamed:
                return _write(good, unnamed, shape)
        # Another process may be reading an earlier file of this name, so it is replaced, never overwritten.
        handle, unfinished = tempfile.mkstemp(dir=folder, prefix=f"{name}.", suffix=".part")
        try:
            with open(handle, "w+b") as file:
                images = _write(good, file, shape)
            os.replace(unfinished, folder / f"{name}.uint8")
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise
        return images
    except DataError:
        raise
    except OSError as error:
        given = f"decoded images cannot be written to {where} ({error.strerror or error})"
        advice = "free some space, raise --cache-mb to keep them in memory, or use --streaming to keep none"
        raise FolderError(given, "a writable folder with enough free space", advice) from None


def _check_room(folder: Path, needed: int) -> None:
    """Refuse at once what would fill the disk after an hour of decoding."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"they take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free")


def _write(good: GoodPictures, file: IO[bytes], shape: tuple[int, ...]) -> Tensor:
    count = 0
    # Written, not mapped: a full disk kills a process that writes through a map.
    for image in good:
        file.write(image.numpy().data)
        count += 1
    file.flush()
    # Copy on write, because torch wants memory that it may write to; the file itself never changes.
    mapped = np.memmap(file, dtype=np.uint8, mode="c", shape=(count, *shape[1:]))  # type: ignore[call-overload]
    return torch.from_numpy(mapped)
