"""Freed memory stays with the process while a CPU computes, for the next activation.

glibc asks the system for every block above 32 MB anew and hands it back when it is freed. The system fills each page
with zeros when it is first written to, which can take longer than computing what goes into it
(docs/results/kept-memory.md). CUDA needs none of this: torch keeps its memory itself.
"""

import ctypes
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch

_NAMES = ("trim_threshold", "mmap_threshold", "mmap_max")
# malloc.h of glibc
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
#: glibc's own number of blocks, and the thresholds at which its adaptation ends.
_USUAL = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20}

_lock = Lock()
_inside = 0


@contextmanager
def freed_memory_kept(device: torch.device) -> Iterator[None]:
    """Keep what is freed until the outermost such block ends; then hand it back to the system.

    Does nothing where torch computes elsewhere, the C library is not glibc, the environment sets one of its thresholds
    already (by MALLOC_..._ or GLIBC_TUNABLES), or the process's memory is limited (ulimit -v): what is kept may not fit
    the next block, so a little more is needed.
    """
    malloc = _glibc() if device.type == "cpu" else None
    if malloc is None:
        yield
        return
    _enter(malloc)
    try:
        yield
    finally:
        _leave(malloc)


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None)
    limited = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    return library if hasattr(library, "gnu_get_libc_version") and not limited and not _set_by_hand() else None


def _set_by_hand() -> bool:
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return any(f"MALLOC_{name.upper()}_" in os.environ or f"malloc.{name}" in tunables for name in _NAMES)


def _enter(malloc: ctypes.CDLL) -> None:
    global _inside
    with _lock:
        _inside += 1
        if _inside == 1:
            _set(malloc, _KEPT)


def _leave(malloc: ctypes.CDLL) -> None:
    global _inside
    with _lock:
        _inside -= 1
        if _inside == 0:
            _set(malloc, _USUAL)
            malloc.malloc_trim(0)


def _set(malloc: ctypes.CDLL, values: dict[int, int]) -> None:
    for name, value in values.items():
        malloc.mallopt(name, value)
