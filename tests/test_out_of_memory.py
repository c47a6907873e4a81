"""Lack of memory is told from other errors."""

import pytest
import torch

from ttctune.out_of_memory import is_out_of_memory

SHORT = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    RuntimeError("could not create a primitive"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("can't start new thread"),
    RuntimeError("MPS backend out of memory (MPS allocated: 5.05 GB)"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ImportError("libx.so: cannot allocate memory in static TLS block"),
]
OTHER = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    RuntimeError("Expected all tensors to be on the same device"),
    ImportError("No module named 'timm'"),
    ValueError("memory format option is only supported by strided tensors"),
]


@pytest.mark.parametrize("error", SHORT, ids=str)
def test_lack_of_memory_is_known_in_every_wording(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHER, ids=str)
def test_other_errors_are_not_taken_for_it(error):
    assert not is_out_of_memory(error)
