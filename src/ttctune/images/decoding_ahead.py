"""Pictures decoded by threads, in the order asked for, a few ahead of the one in use."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

from torch import Tensor

from ttctune.backbone.description import InputDescription
from ttctune.errors import DataError
from ttctune.images.decoding import decode_picture, strict_pillow
from ttctune.images.pictures import Picture, picture_name
from ttctune.machine import MOST_THREADS, usable_cores

#: Called as pictures get ready: how many are done, and how many there are.
Progress: TypeAlias = Callable[[int, int], None]
#: Position of a picture that was left out, and why.
Skipped: TypeAlias = tuple[int, str]


def default_threads() -> int:
    """One thread per core that this process may use, eight at most."""
    return min(8, usable_cores())


def decoded(
    pictures: Sequence[Picture],
    description: InputDescription,
    *,
    order: Iterable[int] | None = None,
    threads: int | None = None,
    ahead: int = 0,
) -> Generator[Tensor | DataError, None, None]:
    """Decode pictures in order.

    Threads, not processes: Pillow lets other threads run while it decodes and resizes, so they are as fast, start
    at once, copy nothing, and end with the process however it ends.

    Args:
        pictures: Where they come from; each is asked for when its turn is near.
        description: Size, channels, and the way to resize.
        order: Positions to decode; None takes all as they are.
        threads: Threads that decode; None takes one per core, eight at most. With one, each picture is decoded in
            the calling thread when it is asked for.
        ahead: Pictures that may be ready before they are asked for; at least four for each thread.

    Yields:
        uint8, C x height x width; or, in its place, the error of a picture that cannot be read.

    Raises:
        DataError: Fewer than one thread, or more than can be meant.
    """
    threads = default_threads() if threads is None else threads
    if not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
        expected = f"a whole number from 1 to {MOST_THREADS}"
        raise DataError(f"threads {threads!r}", expected, "leave it out for one per core")
    positions = iter(range(len(pictures)) if order is None else order)
    return _decoded(pictures, description, positions, threads, max(ahead, 4 * threads))


def _decoded(
    pictures: Sequence[Picture], description: InputDescription, positions: Iterator[int], threads: int, ahead: int
) -> Generator[Tensor | DataError, None, None]:
    def one(index: int) -> Tensor | DataError:
        try:
            return decode_picture(pictures[index], description, picture_name(pictures, index))
        except DataError as error:
            return error

    with strict_pillow():
        if threads == 1:
            yield from map(one, positions)
            return
        waiting: deque[Future[Tensor | DataError]] = deque()
        pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        try:
            for index in positions:
                # Pictures that are ready but not yet used take memory: stay a few ahead, no more.
                if len(waiting) == ahead:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(one, index))
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


class GoodPictures:
    """The good ones of decoded pictures; the others are counted, or the first of them is raised.

    Args:
        decoded: Pictures, and errors in the places of others.
        total: How many of both.
        skip_bad: Leave out pictures that cannot be read, instead of stopping at the first.
        progress: Called with (done, total) after each picture, from the calling thread.

    Attributes:
        skipped: The pictures left out so far.
    """

    def __init__(
        self, decoded: Iterable[Tensor | DataError], total: int, skip_bad: bool, progress: Progress | None
    ) -> None:
        self._decoded, self._total, self._skip_bad, self._progress = decoded, total, skip_bad, progress
        self.skipped: list[Skipped] = []

    def __iter__(self) -> Iterator[Tensor]:
        """Go through them once.

        Raises:
            DataError: A picture cannot be read, and none may be left out; or none can be read.
        """
        for index, result in enumerate(self._decoded):
            if isinstance(result, Tensor):
                yield result
            elif self._skip_bad:
                self.skipped.append((index, str(result)))
            else:
                raise result
            if self._progress is not None:
                self._progress(index + 1, self._total)
        if len(self.skipped) == self._total:
            given = f"none of the {self._total} images can be read; the first: {self.skipped[0][1]}"
            raise DataError(given, "at least one good image", "check the files")
