"""Whether torch.compile can work here."""

import os
import shutil

import torch


def compiler_found(device: torch.device) -> bool:
    """CUDA brings its own compiler; the CPU needs one for C++ on the PATH or in $CXX."""
    if device.type == "cuda":
        return True
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++") if name)
