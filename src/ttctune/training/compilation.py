"""Whether torch.compile can work here, and what to say where it does not."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ttctune.errors import TrainingError
from ttctune.wording import first_line

#: Device -> the variable that names a compiler, and the usual ones: of C++ for kernels on the CPU, of C for what
#: launches those on CUDA.
COMPILERS = {"cpu": ("CXX", "g++", "clang++"), "cuda": ("CC", "gcc", "clang")}


def compiler_found(device: torch.device) -> bool:
    """Whether there is a compiler for a device; none serves other devices than the CPU and CUDA."""
    variable, *usual = COMPILERS.get(device.type, ("",))
    names = [os.environ.get(variable, ""), *usual]
    return any(shutil.which(name) for name in names if name)


@contextmanager
def compile_errors() -> Iterator[None]:
    """Turn a compiler's failure into one line.

    Raises:
        TrainingError: torch.compile failed.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        given = f"torch.compile failed ({first_line(error)})"
        raise TrainingError(given, "a model that compiles", "leave --compile out") from error
