"""The processes of one run: each computes its share of every batch, and they stay equal by exchanging sums.

Before each exchange the processes tell each other whether all is well. One that meets an error says so in place of
its next exchange, whichever that is for the others, and all leave with that error: nobody waits for one who is gone.
"""

import atexit
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ttctune.errors import ProcessError, RecipeError, TtcError
from ttctune.launcher import launch
from ttctune.wording import counted, first_line

T = TypeVar("T")

#: One that has not answered for so long counts as lost. Decoding all images may differ by minutes between machines.
TIMEOUT = timedelta(minutes=30)
#: What a launcher sets beside WORLD_SIZE.
MEETING = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass
class Processes:
    """This process among those of a run. With a single one every method returns at once.

    Attributes:
        rank: Number of this process, 0 to count - 1.
        count: How many processes there are.
        agreed: The error with which all leave, once there is one.
    """

    rank: int = 0
    count: int = 1
    agreed: Exception | None = None

    @property
    def main(self) -> bool:
        """Whether this is process 0, which decides, prints and writes."""
        return self.rank == 0

    def share(self, images: int) -> slice:
        """Which of `images` in a row this process computes; sizes differ by one at most, and may be zero."""
        start, stop = (-(-rank * images // self.count) for rank in (self.rank, self.rank + 1))
        return slice(start, stop)

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, equal in every bit on all of them.

        Raises:
            TtcError: Another process met an error, or is lost.
        """
        if self.count == 1:
            return
        kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
        flat = [torch.cat([tensor.reshape(-1) for tensor in alike]) for alike in kinds.values()]
        self._meet()  # what can fail on one process alone lies before it
        with _answers():
            for sums in flat:
                dist.all_reduce(sums, group=None if sums.device.type == "cuda" else _talk())
        for sums, alike in zip(flat, kinds.values(), strict=True):
            for tensor, total in zip(alike, sums.split([t.numel() for t in alike]), strict=True):
                tensor.copy_(total.view_as(tensor))

    def gather(self, value: T) -> list[T]:
        """The value of every process, in their order."""
        if self.count == 1:
            return [value]
        self._meet()
        return self._gathered(value)

    def decide(self, choose: Callable[[], T]) -> T:
        """What process 0 chooses; the others do not choose, and take it."""
        if self.count == 1:
            return choose()
        choice = [choose() if self.main else None]
        self._meet()
        with _answers():
            dist.broadcast_object_list(choice, src=0, group=_talk())
        return choice[0]  # type: ignore[return-value]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Everything that exchanges happens in here: all leave it well, or all with the error of the first to meet one.

        What is thrown from outside to stop a process (an interrupt) passes at once; the others find it lost.

        Raises:
            TtcError: Another process met an error, or is lost.
        """
        try:
            yield
            if self.count > 1:
                self._meet()
        except Exception as error:
            if self.count > 1 and error is not self.agreed and not isinstance(error, ProcessError):
                self._meet(error)
            raise

    def _meet(self, error: Exception | None = None) -> None:
        """Find out whether all are well; all raise the same error where one is not."""
        failures = torch.tensor([float(error is not None)])
        with _answers():
            dist.all_reduce(failures, group=_talk())
        if not failures:
            return
        lines = self._gathered(None if error is None else _for_others(self.rank, error))
        rank, line = next((rank, line) for rank, line in enumerate(lines) if line is not None)
        self.agreed = error if error is not None and rank == self.rank else line
        assert self.agreed is not None
        raise self.agreed

    def _gathered(self, value: T) -> list[T]:
        values: list[Any] = [None] * self.count
        with _answers():
            dist.all_gather_object(values, value, group=_talk())
        return values


def join(device: torch.device) -> Processes:
    """Meet the other processes that the launcher started; a single process where there was none.

    Args:
        device: Where this process computes: exchanges go by gloo, gradients on CUDA by NCCL.

    Raises:
        RecipeError: The launcher does not say where to meet, two processes have the same GPU, or the program had set
            accelerate up otherwise.
        ProcessError: The others do not come.
    """
    launched = launch()
    if launched.count == 1:
        return Processes()
    missing = [name for name in MEETING if name not in os.environ]
    if missing:
        given = f"WORLD_SIZE = {launched.count} without {' and '.join(missing)}"
        raise RecipeError(given, "what a launcher sets", "start it with torchrun, or unset WORLD_SIZE")
    from accelerate import PartialState

    ours, threads = not dist.is_initialized(), torch.get_num_threads()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about threads: --threads, OMP_NUM_THREADS and torch decide
            state = PartialState(cpu=device.type == "cpu", timeout=TIMEOUT)
    except (ValueError, RuntimeError) as error:
        raise ProcessError(
            f"process {launched.rank} of {launched.count} did not meet the others ({_brief(error)})",
            "a launcher such as torchrun, and a network between its processes",
            "start it with torchrun",
        ) from error
    torch.set_num_threads(threads)
    if state.num_processes != launched.count:
        raise RecipeError(
            f"accelerate set up for {state.num_processes} of {launched.count} processes",
            "all of them",
            "start it with torchrun, and let ttctune or the program set accelerate up for all of them",
        )
    if ours:
        atexit.register(_leave)
    processes = Processes(state.process_index, state.num_processes)
    if device.type == "cuda":
        gpus = len(set(processes.gather(str(torch.cuda.get_device_properties(device).uuid))))
        if gpus < processes.count:
            given = f"{processes.count} processes on {counted(gpus, 'GPU')}"
            raise RecipeError(given, "one GPU for each process", "start fewer, or use --device cpu")
    return processes


@cache
def _talk() -> Any:
    """The group for objects and for tensors of the CPU: gloo notices at once when a process dies."""
    return dist.group.WORLD if dist.get_backend() == "gloo" else dist.new_group(backend="gloo", timeout=TIMEOUT)


def _leave() -> None:
    """Threads of a group that is still there when Python ends would abort the process."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def _answers() -> Iterator[None]:
    """Turn the silence of another process into one line.

    Raises:
        ProcessError: An exchange failed.
    """
    try:
        yield
    except RuntimeError as error:
        raise ProcessError(
            f"another process of this run was lost ({_brief(error)})",
            "all of them to go on to the end",
            "start all of them again with --resume",
        ) from error


def _for_others(rank: int, error: Exception) -> TtcError:
    """An error as the other processes raise it; what process 0 met is said as if alone."""
    if not isinstance(error, TtcError):
        given = f"process {rank} failed with {type(error).__name__}: {_brief(error)}"
        return ProcessError(given, "all of them to go on to the end", "mend that, and start all again with --resume")
    return type(error)(f"process {rank}: {error.given}" if rank else error.given, error.expected, error.advice)


def _brief(error: BaseException) -> str:
    """The first line of an error's text, without the place in C++ that leads it."""
    return first_line(error, 1000).rpartition("] ")[2][:200]
