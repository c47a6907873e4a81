"""What every test shares: operators before timm, one thread, a fixed seed."""

import ttctune.torchvision_operators  # noqa: F401  isort: skip  (before anything imports timm or torchvision)

from pathlib import Path

import pytest
import torch
from hypothesis import settings

#: What tests whole commands, runs and pages, several processes or many models; the rest are unit tests (`make unit`).
WHOLE = (
    "backbone/test_embedded.py",
    "backbone/test_families.py",
    "bench/methods/test_table.py",
    "bench/report/test_page.py",
    "bench/test_run_job.py",
    "cli",
    "demo",
    "nothing_lost",
    "test_catalogue.py",
    "test_parallel.py",
    "test_readme.py",
    "test_run.py",
    "test_run_families.py",
    "test_warm_start.py",
    "training/test_processes.py",
)

torch.set_num_threads(1)
settings.register_profile("quick", derandomize=True, deadline=None)
settings.register_profile("thorough", max_examples=6000, deadline=20_000)
settings.load_profile("quick")


def pytest_collection_modifyitems(items) -> None:
    """Mark what lies under `WHOLE`."""
    tests = Path(__file__).parent
    for item in items:
        if any(item.path.is_relative_to(tests / part) for part in WHOLE):
            item.add_marker("whole")


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture
def small(monkeypatch) -> None:
    """As if the tasks of VTAB-1k had as few images as those that tests write."""
    from tests.bench.vtab_tree import COUNTS

    from ttctune.bench.suites import VtabTask

    monkeypatch.setattr(VtabTask, "sizes", property(lambda row: COUNTS))
