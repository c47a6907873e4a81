"""Cores and memory, as limited by affinity and by containers of both versions of the kernel's interface."""

import os

import pytest

from ttctune.machine import available_memory, fast_instructions, usable_cores


@pytest.fixture
def kernel(tmp_path):
    """Write files as the kernel shows them."""

    def write(**files):
        for name, text in files.items():
            file = tmp_path / name.replace("__", "/").replace("_DOT_", ".")
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        return tmp_path

    return write


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"cpu_DOT_max": "max 100000\n"}, 8),
        ({"cpu_DOT_max": "250000 100000\n"}, 2),
        ({"cpu_DOT_max": "50000 100000\n"}, 1),
        ({"cpu_DOT_max": "9900000 100000\n"}, 8),
        ({"cpu_DOT_max": "rubbish\n"}, 8),
        ({"cpu__cpu.cfs_quota_us": "-1\n", "cpu__cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu__cpu.cfs_quota_us": "300000\n", "cpu__cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu__cpu.cfs_quota_us": "300000\n"}, 8),
    ],
)
def test_cores_are_those_of_affinity_and_quota(kernel, files, cores):
    assert usable_cores(kernel(**files)) == cores


@pytest.mark.parametrize(
    ("limit", "used", "left"), [("5000000", "2000000", 3_000_000), ("2000000", "5000000", 0), ("max", "1", None)]
)
def test_memory_is_what_the_container_leaves(kernel, limit, used, left):
    whole = available_memory(kernel())
    assert whole > 100_000_000
    for names in (
        ("memory_DOT_max", "memory_DOT_current"),
        ("memory__memory.limit_in_bytes", "memory__memory.usage_in_bytes"),
    ):
        found = available_memory(kernel(**dict(zip(names, (limit, used), strict=True))))
        assert found == left if left is not None else found > whole / 2


def test_instructions_are_read_where_the_system_tells_them(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor : 0\nflags\t\t: fpu avx2 avx512f amx_bf16\nmodel name: avx512_bf16\n")
    assert fast_instructions(tmp_path / "cpuinfo") == ("avx2", "avx512f", "amx_bf16")
    assert fast_instructions(tmp_path / "nothing") == ()
