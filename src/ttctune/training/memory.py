"""How much memory a run has taken so far."""

import resource
import sys

import torch


def peak_memory(device: torch.device) -> int:
    """Bytes at the peak: of the device's allocator on CUDA, of the whole process elsewhere."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit
