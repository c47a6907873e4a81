"""Where a run computes: accelerate says which devices and how many processes there are."""

import os
import re
from dataclasses import dataclass

import torch
from accelerate import PartialState

from ttctune.errors import RecipeError


@dataclass(frozen=True)
class Place:
    """Device of this process, and its place among the processes of a data-parallel run."""

    device: torch.device
    rank: int = 0
    processes: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def share(self, batch: torch.Tensor) -> torch.Tensor:
        """This process's part of a global batch."""
        return batch[self.rank :: self.processes]

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over all processes."""
        if self.processes > 1:
            torch.distributed.all_reduce(values)
        return values


def find_place(device: str = "auto", threads: int | None = None) -> Place:
    """Choose the device, join the process group where there is one, set the number of threads.

    Args:
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        threads: Threads of the CPU; None leaves torch's choice.

    Raises:
        RecipeError: The device is unknown or not there.
    """
    if threads is not None:
        if threads < 1:
            raise RecipeError(f"threads = {threads}", "at least 1", "change --threads")
        torch.set_num_threads(threads)
    known = re.fullmatch(r"(auto|cpu|mps|cuda)|cuda:(\d{1,3})", device)
    if known is None:
        raise RecipeError(f"device {device!r}", "auto, cpu, cuda, cuda:N or mps", "change --device")
    kind = device.partition(":")[0]
    if kind == "cuda" and torch.cuda.device_count() <= int(known[2] or 0):
        raise RecipeError(f"device {device!r}", "a CUDA device on this machine", "use --device auto or cpu")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise RecipeError(f"device {device!r}", "an Apple GPU on this machine", "use --device auto or cpu")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 and device != "auto":
        return Place(torch.device(device))
    state = PartialState(cpu=kind == "cpu")
    return Place(state.device, state.process_index, state.num_processes)
