"""What every test shares: operators before timm, one thread, a fixed seed."""

import ttctune.torchvision_operators  # noqa: F401  isort: skip  (before anything imports timm or torchvision)

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("quick", derandomize=True, deadline=None)
settings.register_profile("thorough", max_examples=6000, deadline=20_000)
settings.load_profile("quick")


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
