"""The harness of `kills.py`, whole: at least a hundred kills, ten in every phase."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).with_name("kills.py")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="sees the calls of a process through /proc")
def test_a_hundred_kills_and_refused_writes_lose_nothing():
    done = subprocess.run([sys.executable, str(KILLS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| ([a-z][^|]+) \| (\d+) \| (\d+) \| \d+ \| \d+ \| (\d+) \|", done.stdout, re.MULTILINE)
    kills = {phase: int(count) for phase, _, _, count in rows}
    assert sum(kills.values()) >= 100 and min(kills.values()) >= 10
    assert {"checkpoint", "history", "adapter", "swap of old and new", "merge", "save"} <= kills.keys()
    assert all(int(killed) and int(terminated) for _, killed, terminated, _ in rows)
