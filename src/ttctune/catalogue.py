"""The models of timm that can be adapted, each looked at without its weights."""

from collections.abc import Iterable

import torch

from ttctune.backbone.architectures import supported_architectures
from ttctune.backbone.model import Backbone, Site, head_names
from ttctune.backbone.opening import architectures, licences, open_shell
from ttctune.backbone.recommended import Architecture
from ttctune.backbone.verification import acting_kinds
from ttctune.errors import BackboneError
from ttctune.recipe import SITE_KINDS


def candidates(pattern: str) -> list[str]:
    """Names of architectures that match and belong to a family.

    Args:
        pattern: With wildcards, or a part of the name.

    Raises:
        BackboneError: timm has none such, or none of a family.
    """
    found = architectures(pattern)
    listed = {name for family in supported_architectures().values() for name in family}
    known = [name for name in found if name in listed]
    if not known:
        given = f"{found[0]}, of a family that is not supported" if found else f"no model of timm matches {pattern!r}"
        raise BackboneError(given, "a model that can be adapted", "see `ttctune models`, or try `ttctune models vit`")
    return known


def supported(names: Iterable[str]) -> list[Architecture]:
    """What is known about each architecture that can be adapted; the others are left out.

    Raises:
        BackboneError: None can; the message says why not the last.
    """
    found, refused = [], None
    for name in names:
        try:
            found.append(describe(name))
        except BackboneError as error:
            refused = error
    if refused and not found:
        raise refused
    return found


def describe(name: str) -> Architecture:
    """What is known about a model of timm, with or without a tag. Nothing is fetched.

    Raises:
        BackboneError: The name is unknown, or the model cannot be adapted.
    """
    backbone = open_shell(name)
    picture = (backbone.input.channels, backbone.input.height, backbone.input.width)
    sites = _sites(backbone, picture)
    if not sites:
        raise BackboneError(f"{name}: no layer whose channels can be tuned", "at least one", "choose another model")
    heads = tuple(f"{head}." for head in head_names(backbone.model))
    return Architecture(
        name=name,
        family=backbone.family.title,
        pixels=picture[1:],
        parameters=sum(p.numel() for n, p in backbone.model.named_parameters() if not n.startswith(heads)),
        widths=tuple(sorted({site.width for site in sites if site.kind in ("attn", "mlp")})),
        blocks=len(backbone.blocks),
        sites=tuple(dict.fromkeys(site.kind for site in sites)),
        weights=licences(name),
    )


def _sites(backbone: Backbone, picture: tuple[int, int, int]) -> list[Site]:
    """Every site that the model has and calls."""
    with torch.device("meta"):
        kinds = acting_kinds(backbone, backbone.model, SITE_KINDS, picture)
    return [site for kind in kinds for site in backbone.sites((kind,))]
