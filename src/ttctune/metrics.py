"""torchmetrics, imported when it is first needed: that takes seconds, and for most commands in vain."""

from typing import Any

import ttctune.torchvision_operators  # noqa: F401  (before torchmetrics, which imports torchvision)


def classification_metrics() -> Any:
    """Torchmetrics' functions of classification.

    They need libraries that a process may have no memory for. So a run that will measure asks for them before it
    trains.
    """
    from torchmetrics.functional import classification

    return classification
