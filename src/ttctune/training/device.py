"""Where a run computes; accelerate knows what the machine has."""

import os
import re

import torch
from accelerate import PartialState

from ttctune.errors import RecipeError


def find_device(device: str = "auto", threads: int | None = None) -> torch.device:
    """Choose the device and set the number of threads.

    Args:
        device: "auto" (CUDA, else MPS, else the CPU), "cpu", "cuda", "cuda:1" or "mps".
        threads: Threads of the CPU; None leaves torch's choice.

    Raises:
        RecipeError: The device is unknown or not there, or this is one of several processes of a launcher.
    """
    if threads is not None:
        if threads < 1:
            raise RecipeError(f"threads = {threads}", "at least 1", "change --threads")
        torch.set_num_threads(threads)
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise RecipeError(f"one of {processes} processes", "a single process", "start it without a launcher")
    known = re.fullmatch(r"(auto|cpu|mps|cuda)|cuda:(\d{1,3})", device)
    if known is None:
        raise RecipeError(f"device {device!r}", "auto, cpu, cuda, cuda:N or mps", "change --device")
    kind = device.partition(":")[0]
    if kind == "cuda" and torch.cuda.device_count() <= int(known[2] or 0):
        raise RecipeError(f"device {device!r}", "a CUDA device on this machine", "use --device auto or cpu")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise RecipeError(f"device {device!r}", "an Apple GPU on this machine", "use --device auto or cpu")
    if kind != "auto":
        return torch.device(device)
    found: torch.device = PartialState().device
    return found
