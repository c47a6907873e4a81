"""What every test shares: operators before timm, one thread, a fixed seed."""

import ttctune.torchvision_operators  # noqa: F401  isort: skip  (before anything imports timm or torchvision)

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same random state."""
    torch.manual_seed(0)
