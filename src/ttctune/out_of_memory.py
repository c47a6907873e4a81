"""Knowing the many ways in which lack of memory is said. Imports nothing, for it is asked when memory is short."""

#: Texts of PyTorch, oneDNN, cuBLAS and cuDNN, C++, the threads of Python and the loader of libraries.
SIGNS = (
    "allocate memory",
    "out of memory",
    "not enough memory",
    "bad_alloc",
    "alloc_failed",
    "could not create a primitive",
    "can't start new thread",
    "failed to map segment",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, of the machine, the device, or a limit on this process."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in SIGNS)
