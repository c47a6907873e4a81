"""Whether the sites of a model act as the method supposes."""

from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttctune.backbone.model import Backbone, Site, is_linear
from ttctune.errors import SiteError


def verify_sites(model: nn.Module, sites: Iterable[Site], picture: tuple[int, int, int]) -> None:
    """See every site acting once, on one blank picture.

    Args:
        model: Before any map is attached.
        sites: What is going to be tuned.
        picture: Channels, height and width.

    Raises:
        SiteError: A layer is never called (some families use its weight directly, and a map there would silently do
            nothing), its output does not hold the channels where the family's row says, is something else than W x + b
            of its weight, or is changed in place by what follows, which the backward pass of a gate could not bear;
            or layer or weight stand in another place too, which would change with it.
    """
    sites = tuple(sites)
    _check_used_once(model, sites)
    seen = _look(model, sites, picture)
    for site in sites:
        _check(site, seen.get(site.name), model)


@dataclass(frozen=True)
class _Seen:
    """What a site gave in one forward pass: its output, the output's version then, and whether it is W x + b."""

    output: Tensor
    version: int
    plain: bool


def _look(model: nn.Module, sites: Iterable[Site], picture: tuple[int, int, int]) -> dict[str, _Seen]:
    """One forward pass; a site that is not called is not in the result."""
    seen: dict[str, _Seen] = {}

    def see_stream(name: str, _: nn.Module, positional: tuple[Tensor, ...]) -> None:
        seen[name] = _Seen(positional[0], positional[0]._version, plain=True)

    def see_layer(
        name: str, layer: nn.Module, positional: tuple[Tensor, ...], named: dict[str, Tensor], y: Tensor
    ) -> None:
        x, *_ = (*positional, *named.values())
        seen[name] = _Seen(y, y._version, not is_linear(layer) or _is_w_x_plus_b(layer, x, y))

    like = next(model.parameters())
    mode = model.training
    with ExitStack() as stack:
        for site in sites:
            layer = model.get_submodule(site.path)
            handle = (
                layer.register_forward_pre_hook(partial(see_stream, site.name))
                if site.kind == "stream"
                else layer.register_forward_hook(partial(see_layer, site.name), with_kwargs=True)
            )
            stack.callback(handle.remove)
        stack.callback(model.train, mode)
        with torch.no_grad():
            model.eval()(torch.zeros(1, *picture, dtype=like.dtype, device=like.device))
    return seen


def _check(site: Site, seen: _Seen | None, model: nn.Module) -> None:
    family = type(model).__name__
    if seen is None:
        raise _unfit(
            f"site {site.kind!r}: {family} never calls {site.path}, it uses its weight directly",
            "a layer that is called",
        )
    if seen.output.shape[site.axis] != site.width:
        raise _unfit(
            f"site {site.name}: output of shape {tuple(seen.output.shape)}",
            f"{site.width} channels in dimension {site.axis}",
        )
    if not seen.plain:
        layer = type(model.get_submodule(site.path)).__name__
        raise _unfit(f"site {site.name}: a {layer} that is no plain W x + b", "a linear layer")
    if site.kind != "stream" and seen.output._version != seen.version:
        raise _unfit(f"site {site.name}: {family} changes its output in place", "an output that stays")


def _unfit(given: str, expected: str) -> SiteError:
    return SiteError(given, expected, "choose other --sites or --gates")


def _is_w_x_plus_b(layer: nn.Linear | nn.Conv2d, x: Tensor, y: Tensor) -> bool:
    if y.is_meta:
        return True
    plain = F.linear if isinstance(layer, nn.Linear) else F.conv2d
    expected = plain(x.float(), layer.weight.float(), None if layer.bias is None else layer.bias.float())
    if not expected.isfinite().all():
        return True  # which training will find, and say better
    return y.shape == expected.shape and bool((y - expected).abs().max() <= 1e-2 * expected.abs().max())


def _check_used_once(model: nn.Module, sites: Iterable[Site]) -> None:
    layers = {site: model.get_submodule(site.path) for site in sites if site.kind != "stream"}
    at = Counter(map(id, layers.values()))
    uses: Counter[int] = Counter()
    for module in model.modules():
        uses.update(map(id, module._modules.values()))
        uses.update(map(id, module._parameters.values()))
    for site, layer in layers.items():
        if at[id(layer)] > 1 or any(uses[id(part)] > 1 for part in (layer, *layer.parameters())):
            raise _unfit(
                f"site {site.name}: {site.path}, or a parameter of it, stands in another place of the model too",
                "a layer of its own",
            )


def acting_kinds(
    backbone: Backbone, model: nn.Module, kinds: Iterable[str], picture: tuple[int, int, int]
) -> tuple[str, ...]:
    """Of these kinds of site, those at layers that every block has and calls; each once.

    Args:
        backbone: Names the sites.
        model: The backbone's, or a copy of it, before any map is attached.
        kinds: Kinds of site.
        picture: Channels, height and width.
    """
    there: dict[str, tuple[Site, ...]] = {}
    for kind in kinds:
        with suppress(SiteError):
            there[kind] = backbone.sites((kind,))
    if _act(model, [site for sites in there.values() for site in sites], picture):
        return tuple(there)
    return tuple(kind for kind, sites in there.items() if _act(model, sites, picture))


def _act(model: nn.Module, sites: Iterable[Site], picture: tuple[int, int, int]) -> bool:
    try:
        verify_sites(model, sites, picture)
    except SiteError:
        return False
    return True
