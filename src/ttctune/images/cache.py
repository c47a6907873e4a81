"""Every picture decoded once, into memory or, when there are too many, into a file."""

import math
import os
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ttctune.backbone.description import InputDescription
from ttctune.errors import DataError, FolderError
from ttctune.images.decoding import decode_picture, strict_pillow
from ttctune.images.pictures import Picture, picture_name
from ttctune.images.resizing import check_description

#: Called as pictures get ready: how many are done, and how many there are.
Progress: TypeAlias = Callable[[int, int], None]
#: Position of a picture that was left out, and why.
Skipped: TypeAlias = tuple[int, str]


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
    if threads is not None and threads < 1:
        raise DataError(f"threads {threads}", "at least 1", "leave it out for one per core")
    shape = (description.channels, description.height, description.width)
    size = len(pictures) * math.prod(shape)
    with closing(_decoded(pictures, description, threads or default_threads())) as decoded:
        kept = _Kept(decoded, len(pictures), skip_bad, progress)
        if size <= budget_bytes:
            return _into_memory(kept, (len(pictures), *shape)), kept.skipped
        return _into_file(kept, shape, folder, name), kept.skipped


def default_threads() -> int:
    """One thread per core that this process may use, eight at most."""
    affinity = getattr(os, "sched_getaffinity", None)
    return min(8, len(affinity(0)) if affinity else os.cpu_count() or 1)


def _decoded(
    pictures: Sequence[Picture], description: InputDescription, threads: int
) -> Generator[Tensor | DataError, None, None]:
    def one(index: int) -> Tensor | DataError:
        try:
            return decode_picture(pictures[index], description, picture_name(pictures, index))
        except DataError as error:
            return error

    with strict_pillow():
        if threads == 1:
            yield from map(one, range(len(pictures)))
            return
        waiting: deque[Future[Tensor | DataError]] = deque()
        pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        try:
            for index in range(len(pictures)):
                # Pictures that are ready but not yet stored take memory too: stay a few ahead, no more.
                if len(waiting) == 4 * threads:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(one, index))
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


class _Kept:
    """The good pictures of a stream; counts the others, or stops at the first."""

    def __init__(
        self, decoded: Iterator[Tensor | DataError], total: int, skip_bad: bool, progress: Progress | None
    ) -> None:
        self.decoded, self.total, self.skip_bad, self.progress = decoded, total, skip_bad, progress
        self.skipped: list[Skipped] = []

    def __iter__(self) -> Iterator[Tensor]:
        for index, result in enumerate(self.decoded):
            if isinstance(result, Tensor):
                yield result
            elif self.skip_bad:
                self.skipped.append((index, str(result)))
            else:
                raise result
            if self.progress is not None:
                self.progress(index + 1, self.total)
        if len(self.skipped) == self.total:
            given = f"none of the {self.total} images can be read; the first: {self.skipped[0][1]}"
            raise DataError(given, "at least one good image", "check the files")


def _into_memory(kept: _Kept, shape: tuple[int, ...]) -> Tensor:
    try:
        images = torch.empty(shape, dtype=torch.uint8)
    except (RuntimeError, MemoryError):
        given = f"{shape[0]} images take {math.prod(shape) / 1e9:.1f} GB, more than the memory that is free"
        raise DataError(given, "a smaller set or less memory for images", "lower --cache-mb") from None
    count = 0
    for image in kept:
        images[count] = image
        count += 1
    return images[:count]


def _into_file(kept: _Kept, shape: tuple[int, ...], folder: Path | None, name: str) -> Tensor:
    where = folder or Path(tempfile.gettempdir())
    try:
        if folder is None:
            with tempfile.TemporaryFile() as unnamed:
                return _write(kept, unnamed, shape)
        folder.mkdir(parents=True, exist_ok=True)
        # Another process may be reading an earlier file of this name, so it is replaced, never overwritten.
        handle, unfinished = tempfile.mkstemp(dir=folder, prefix=f"{name}.", suffix=".part")
        try:
            with open(handle, "w+b") as file:
                images = _write(kept, file, shape)
            os.replace(unfinished, folder / f"{name}.uint8")
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise
        return images
    except DataError:
        raise
    except OSError as error:
        given = f"decoded images cannot be written to {where} ({error.strerror or error})"
        advice = "free some space, or raise --cache-mb to keep them in memory"
        raise FolderError(given, "a writable folder with enough free space", advice) from None


def _write(kept: _Kept, file: IO[bytes], shape: tuple[int, ...]) -> Tensor:
    count = 0
    # Written, not mapped: a full disk kills a process that writes through a map.
    for image in kept:
        file.write(image.numpy().data)
        count += 1
    file.flush()
    # Copy on write, because torch wants memory that it may write to; the file itself never changes.
    mapped = np.memmap(file, dtype=np.uint8, mode="c", shape=(count, *shape))  # type: ignore[call-overload]
    return torch.from_numpy(mapped)
