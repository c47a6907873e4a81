"""Adapt a pre-trained vision transformer to your task in two stages, at no cost at inference.

Names are imported when first used, so that `import ttctune` and `ttctune --help` stay instant.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ttctune.version import __version__

if TYPE_CHECKING:
    from ttctune.adapted import Adapted
    from ttctune.backbone.opening import open_backbone
    from ttctune.errors import TtcError
    from ttctune.images import open_images
    from ttctune.loading import load
    from ttctune.recipe import Recipe
    from ttctune.run import adapt

_HOME = {
    "adapt": "ttctune.run",
    "load": "ttctune.loading",
    "Adapted": "ttctune.adapted",
    "Recipe": "ttctune.recipe",
    "open_backbone": "ttctune.backbone.opening",
    "open_images": "ttctune.images",
    "TtcError": "ttctune.errors",
}

__all__ = ["Adapted", "Recipe", "TtcError", "__version__", "adapt", "load", "open_backbone", "open_images"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ttctune' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
