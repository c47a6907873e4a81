"""Freed memory is used again within the block, and given back behind it; in fresh processes, whose heap is in order."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable

import pytest

from ttctune.training import kept_memory

SCRIPT = """
import json, resource, statistics, sys
from itertools import pairwise
from pathlib import Path
import torch
from ttctune.training.kept_memory import freed_memory_kept

LARGE, device = 64 << 20, torch.device(sys.argv[1])

def faults():
    "Pages filled by writing to a large tensor, each freed before the next: the median, once the heap has its size."
    counts = []
    for _ in range(50):
        torch.ones(LARGE, dtype=torch.uint8)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    return statistics.median(after - before for before, after in pairwise(counts[30:]))

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / LARGE

found = {"outside": faults()}
with freed_memory_kept(device):
    found["inside"] = faults()
    with freed_memory_kept(device):
        pass
    found["behind an inner block"] = faults()
    torch.ones(8 * LARGE, dtype=torch.uint8)
    found["held inside"] = held()
found["held behind"] = held()
try:
    with freed_memory_kept(device):
        torch.ones(8 * LARGE, dtype=torch.uint8)
        found["held before an error"] = held()
        raise ValueError
except ValueError:
    found["held behind an error"] = held()
print(json.dumps(found))
"""

pytestmark = pytest.mark.skipif(kept_memory._glibc() is None, reason="no glibc, or it is set up by hand")


def _found(device: str, before: Callable[[], None] | None = None, **settings: str) -> dict[str, float]:
    command, environment = [sys.executable, "-c", SCRIPT, device], os.environ | settings
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, preexec_fn=before)
    return json.loads(done.stdout)


def test_a_large_tensor_takes_the_place_of_the_one_before_until_the_outermost_block_ends():
    found = _found("cpu")
    assert found["outside"] > 20
    assert found["inside"] < found["outside"] / 10
    assert found["behind an inner block"] < found["outside"] / 10
    assert found["held behind"] < found["held inside"] - 7
    assert found["held behind an error"] < found["held before an error"] - 7


@pytest.mark.parametrize(
    ("device", "settings"),
    [
        ("cuda", {}),
        ("cpu", {"MALLOC_MMAP_MAX_": "1000"}),
        ("cpu", {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=65536"}),
    ],
)
def test_another_device_and_settings_of_a_person_s_own_leave_malloc_as_it_is(device, settings):
    found = _found(device, **settings)
    assert found["inside"] > found["outside"] / 2 > 10


def test_where_memory_is_limited_none_is_kept():
    found = _found("cpu", before=lambda: resource.setrlimit(resource.RLIMIT_AS, (64 << 30, resource.RLIM_INFINITY)))
    assert found["inside"] > found["outside"] / 2 > 10


def test_other_settings_of_malloc_do_not_count():
    found = _found("cpu", MALLOC_ARENA_MAX="2", GLIBC_TUNABLES="glibc.malloc.arena_max=2")
    assert found["inside"] < found["outside"] / 10
