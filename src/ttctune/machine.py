"""What this process may use of the machine: cores and memory, with the limits of its container."""

import contextlib
import math
import os
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
#: Nobody means more threads than this, and far more of them would end the process.
MOST_THREADS = 1024
#: Instructions that make training on a CPU fast, as Linux names them.
FAST_INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may keep busy: by its affinity, and by its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        numbers = [number for file in files for number in _numbers(cgroup / file)]
        if len(numbers) == 2 and min(numbers) > 0:
            cores = int(min(cores, numbers[0] / numbers[1]))
    return max(1, cores)


def available_memory(cgroup: Path = CGROUP) -> int:
    """Bytes that this process may still take, by the machine and by its container's limit."""
    free = int(psutil.virtual_memory().available)
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        values = (*_numbers(cgroup / limit), *_numbers(cgroup / used))
        if len(values) == 2 and math.isfinite(values[0]):
            free = min(free, max(0, int(values[0] - values[1])))
    return free


def fast_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Which of `FAST_INSTRUCTIONS` the CPU has; none where the system does not say."""
    with contextlib.suppress(OSError):
        lines = cpuinfo.read_text().splitlines()
        words = {word for line in lines if line.lower().startswith(("flags", "features")) for word in line.split()}
        return tuple(name for name in FAST_INSTRUCTIONS if name in words)
    return ()


def _numbers(file: Path) -> tuple[float, ...]:
    """The numbers in a file of the kernel, "max" being infinity; none where there is no such file."""
    try:
        return tuple(math.inf if word == "max" else float(word) for word in file.read_text().split())
    except (OSError, ValueError):
        return ()
