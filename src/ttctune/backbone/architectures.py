"""What timm offers that can be adapted: names by family at once, and one architecture in detail; no weights."""

import re
from dataclasses import dataclass

import torch

import ttctune.torchvision_operators  # noqa: F401  (before timm)

import timm  # isort: skip

from ttctune.backbone.description import InputDescription
from ttctune.backbone.families import FAMILIES
from ttctune.backbone.model import Backbone, Site
from ttctune.backbone.opening import create, input_of
from ttctune.backbone.verification import verify_sites
from ttctune.errors import SiteError


@dataclass(frozen=True)
class Architecture:
    """One architecture, as built without weights.

    Attributes:
        name: timm name.
        family: Title of its family.
        parameters: Number of parameters, head included.
        blocks: Number of blocks that have sites.
        widths: Kind of site -> the different numbers of channels in the blocks, ascending; a kind that this
            architecture does not offer is left out.
        input: The pictures it wants.
    """

    name: str
    family: str
    parameters: int
    blocks: int
    widths: dict[str, tuple[int, ...]]
    input: InputDescription


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


def describe_architecture(name: str) -> Architecture:
    """Build an architecture on the meta device, without memory or weights, and see what it offers.

    Args:
        name: timm name, with or without a tag.

    Raises:
        BackboneError: There is no such model, or its family is not supported.
    """
    with torch.device("meta"):
        model = create(name.partition(".")[0], pretrained=False)
    pictures = input_of(model)
    backbone = Backbone(model, name, "", pictures)
    offered = {kind: _offered(backbone, kind) for kind in backbone.family.kinds}
    return Architecture(
        name,
        backbone.family.title,
        sum(p.numel() for p in model.parameters()),
        len(backbone.blocks),
        {kind: tuple(sorted({site.width for site in sites})) for kind, sites in offered.items() if sites},
        pictures,
    )


def _offered(backbone: Backbone, kind: str) -> tuple[Site, ...]:
    size = (backbone.input.channels, backbone.input.height, backbone.input.width)
    try:
        sites = backbone.sites((kind,))
        verify_sites(backbone.model, sites, size)
    except SiteError:
        return ()
    return sites
