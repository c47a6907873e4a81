"""Where a run computes; accelerate knows what the machine has."""

import re

import torch
import torch.nn.functional as F
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from ttctune.errors import RecipeError, TrainingError
from ttctune.launcher import launch
from ttctune.machine import MOST_THREADS


def find_device(device: str = "auto", threads: int | None = None) -> torch.device:
    """Choose the device and set the number of threads.

    Of several processes of a launcher each gets the next GPU of its machine; without GPUs all compute on the CPU.

    Args:
        device: "auto" (CUDA, else MPS, else the CPU), "cpu", "cuda", "cuda:1" or "mps".
        threads: Threads of the CPU; None leaves torch's choice.

    Raises:
        RecipeError: The device is unknown, not there, or one that several processes cannot share; or threads are no
            number that can be meant.
        TrainingError: It is an Apple GPU on which this torch computes wrong gradients.
    """
    if threads is not None:
        if not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
            raise RecipeError(f"threads = {threads!r}", f"a whole number from 1 to {MOST_THREADS}", "change --threads")
        torch.set_num_threads(threads)
    known = re.fullmatch(r"(auto|cpu|mps|cuda)|cuda:(\d{1,3})", device) if isinstance(device, str) else None
    if known is None:
        raise RecipeError(f"device {device!r}", "auto, cpu, cuda, cuda:N or mps", "change --device")
    kind = device.partition(":")[0]
    if kind == "cuda" and torch.cuda.device_count() <= int(known[2] or 0):
        raise RecipeError(f"device {device!r}", "a CUDA device on this machine", "use --device auto or cpu")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise RecipeError(f"device {device!r}", "an Apple GPU on this machine", "use --device auto or cpu")
    if launch().count > 1:
        return _one_of_several(device, kind)
    found: torch.device = PartialState().device if kind == "auto" else torch.device(device)
    if found.type == "mps":
        check_norm_gradients(found)
    return found


def check_norm_gradients(device: torch.device) -> None:
    """Refuse a device that returns unwritten memory as the gradients of a LayerNorm whose input needs none.

    The first norm of stage 1 is such a one. MPS did so before pytorch/pytorch#183893.

    Raises:
        TrainingError: They are wrong.
    """
    x = torch.tensor([[1.0, 3.0], [2.0, -2.0]], device=device)
    scale, shift = (torch.full((2,), value, device=device, requires_grad=True) for value in (1.0, 0.0))
    found = torch.autograd.grad(F.layer_norm(x, (2,), scale, shift).square().sum(), (scale, shift))
    right = torch.tensor([[4.0, 4.0], [0.0, 0.0]])  # the rows, normalised, are (-1, 1) and (1, -1)
    if not torch.allclose(torch.stack(found).cpu(), right, atol=1e-3):
        given = f"torch {torch.__version__} computes wrong gradients of LayerNorm on {device}"
        raise TrainingError(given, "a version that does not", "update torch, or use --device cpu")


def _one_of_several(device: str, kind: str) -> torch.device:
    here = launch()
    if kind == "auto":
        asked_for_cpu = parse_flag_from_env("ACCELERATE_USE_CPU")  # accelerate launch --cpu
        kind = "cuda" if torch.cuda.is_available() and not asked_for_cpu else "cpu"
    elif kind == "mps" or ":" in device:
        given = f"device {device!r} for each of {here.count} processes"
        raise RecipeError(given, "auto, cuda (each process gets a GPU of its own) or cpu", "change --device")
    if kind == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", here.local_rank % torch.cuda.device_count())  # a launcher may show each its own only
