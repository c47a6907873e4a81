"""Which of timm's architectures belong to a family that can be adapted, by name alone."""

import re
from functools import cache

import ttctune.backbone.embedded
import ttctune.torchvision_operators  # noqa: F401  (before timm)

import timm  # isort: skip

from ttctune.backbone.families import FAMILIES


@cache
def supported_architectures() -> dict[str, tuple[str, ...]]:
    """Title of each family -> names of timm's architectures, sorted; nothing is built or fetched."""
    return {
        family.title: tuple(
            sorted(
                name
                for module, pattern in family.architectures.items()
                for name in timm.list_models(module=module)
                if re.fullmatch(pattern, name)
            )
        )
        for family in FAMILIES
    }
