"""Whether torch.compile can work here, and what to say where it does not."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ttctune.errors import TrainingError


def compiler_found(device: torch.device) -> bool:
    """CUDA brings its own compiler; the CPU needs one for C++ on the PATH or in $CXX."""
    if device.type == "cuda":
        return True
    names = (os.environ.get("CXX", ""), "g++", "clang++")
    return device.type == "cpu" and any(shutil.which(name) for name in names if name)


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
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise TrainingError(
            f"torch.compile failed ({reason})", "a model that compiles", "leave --compile out"
        ) from error
