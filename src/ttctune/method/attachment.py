"""How an adapter is attached: a copy of the backbone's structure, with the trained modules in their places.

The copy shares every frozen tensor with the backbone. The norms get parameters of their own, the head is new, and a
site's layer is replaced by a module that holds layer, selection and map: an ordinary model, to which `state_dict`,
`.to()`, `deepcopy`, data parallel and export do what they always do. The adapter is a view of its trained tensors.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from ttctune.backbone.model import Backbone, Site, head_names, replace, structural_copy
from ttctune.errors import BackboneError
from ttctune.method.alignment import new_head, release_norms
from ttctune.method.channels import FORMS, ChannelMap, ChannelRows
from ttctune.method.gates import ChannelGates
from ttctune.method.selection import Selection
from ttctune.method.tuned_linear import TunedLinear
from ttctune.method.tuned_stream import TunedStream
from ttctune.out_of_memory import is_out_of_memory


@dataclass
class Attachment:
    """A model being adapted, and where its trained modules are.

    Attributes:
        backbone: What was handed over.
        model: The adapted copy: normalised float images N x C x H x W -> logits N x classes.
        norms: Name -> trained norm.
        heads: Name -> trained head.
        tunings: Site -> map or rows; empty until `tune`.
        gates: Site -> scale and shift of every channel; empty until `gate`.
    """

    backbone: Backbone
    model: nn.Module
    norms: dict[str, nn.Module]
    heads: dict[str, nn.Linear]
    tunings: dict[Site, ChannelMap | ChannelRows] = field(default_factory=dict)
    gates: dict[Site, ChannelGates] = field(default_factory=dict)

    def tune(self, sites: Iterable[Site], selection: Selection, form: str, gates: Iterable[str] = ()) -> None:
        """Put a map or rows at every site that has chosen channels, and gates at sites of these kinds.

        All are still without effect.
        """
        for site in sites:
            if site.name not in selection:
                continue
            place = self.model.get_submodule(site.path)
            channels = selection[site.name]
            if site.kind == "stream":
                like = next(place.parameters())
                tuning: ChannelMap | ChannelRows = ChannelMap(channels, like, has_bias=True)
                replace(self.model, site.path, TunedStream(place, cast(ChannelMap, tuning)))
            else:
                layer = cast(nn.Linear | nn.Conv2d, place)
                tuning = FORMS[form](channels, layer.weight, site.has_bias)
                replace(self.model, site.path, TunedLinear(layer, tuning))
            self.model.get_submodule(site.path).train(place.training)
            self.tunings[site] = tuning
        self.gate(self.backbone.sites(gates))

    def gate(self, sites: Iterable[Site]) -> None:
        """Put gates, still without effect, behind every channel of these sites; after `tune`."""
        for site in sites:
            layer = cast(nn.Linear | nn.Conv2d | TunedLinear, self.model.get_submodule(site.path))
            if not isinstance(layer, TunedLinear):
                layer = TunedLinear(layer).train(layer.training)
                replace(self.model, site.path, layer)
            layer.gates = self.gates[site] = ChannelGates(layer.layer.weight, site.has_bias)

    @property
    def adapter(self) -> nn.Module:
        """The trained tensors and the selections, named as in the adapter's file; a view, not a copy."""
        adapter = nn.Module()
        for site, tuning in self.tunings.items():
            _put(adapter, f"sites.{site.name}", tuning)
        for site, gates in self.gates.items():
            _put(adapter, f"gates.{site.name}", gates)
        for name, norm in self.norms.items():
            _put(adapter, f"norms.{name}", norm)
        for name, head in self.heads.items():
            _put(adapter, _head_key(name, self.heads), head)
        return adapter

    def parameter_counts(self) -> dict[str, int]:
        """Trained parameters of the channels, the norms and the head."""
        parts: dict[str, Iterable[nn.Module]] = {
            "channels": (*self.tunings.values(), *self.gates.values()),
            "norms": self.norms.values(),
            "head": self.heads.values(),
        }
        return {part: sum(p.numel() for m in modules for p in m.parameters()) for part, modules in parts.items()}


def attach(backbone: Backbone, classes: int, *, image_size: tuple[int, int] | None = None, seed: int = 0) -> Attachment:
    """Copy the backbone's structure, free its norms, give it a new head.

    Args:
        backbone: Stays as it is, in every bit and attribute.
        classes: Outputs of the new head.
        image_size: Height and width in pixels, where it differs from the backbone's own.
        seed: Of the head's weights.

    Raises:
        BackboneError: The model cannot take pictures of that size.
    """
    model = structural_copy(backbone.model)
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in model.parameters()):
        model = model.float()
    if image_size is not None and image_size != (backbone.input.height, backbone.input.width):
        _resize_input(model, image_size, backbone)
    model.reset_classifier(classes)  # type: ignore[operator]
    norms = release_norms(model, backbone.norms())
    heads = new_head(model, head_names(model), seed)
    return Attachment(backbone, model.eval(), norms, heads)


def load_adapter(attachment: Attachment, tensors: Mapping[str, Tensor]) -> None:
    """Write trained values into the adapter, whose selections must be those of `tensors`."""
    adapter = attachment.adapter
    adapter.load_state_dict(dict(tensors), strict=True)


def _resize_input(model: nn.Module, size: tuple[int, int], backbone: Backbone) -> None:
    """Interpolate the position embeddings, and see one blank picture of that size go through."""
    own = f"{backbone.input.height} x {backbone.input.width}"
    given, settable = f"image_size {size[0]} x {size[1]}", hasattr(model, "set_input_size")
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if settable and patch is not None and any(s % p for s, p in zip(size, patch, strict=True)):
        raise BackboneError(given, f"multiples of the patch size, {patch[0]} x {patch[1]}", "change --image-size")
    try:
        if settable:
            model.set_input_size(img_size=size)  # type: ignore[operator]
        like = next(model.parameters())
        with torch.no_grad():
            model.eval()(torch.zeros(1, backbone.input.channels, *size, dtype=like.dtype, device=like.device))
    except (AssertionError, RuntimeError, ValueError, ZeroDivisionError) as error:
        if is_out_of_memory(error):
            raise
        stride = _stride(model)
        fitting = f"multiples of {stride}, as {own} is" if settable and stride else f"{own}, this model's only size"
        raise BackboneError(given, fitting, "change or drop --image-size") from error


def _stride(model: nn.Module) -> int:
    """Pixels of the picture to one position of the last feature map; 0 where the model does not say."""
    stages: Sequence[Mapping[str, Any]] = getattr(model, "feature_info", None) or ()  # type: ignore[assignment]
    return int(stages[-1].get("reduction", 0)) if stages else 0


def _head_key(name: str, heads: Mapping[str, nn.Linear]) -> str:
    return "head" if len(heads) == 1 else name


def _put(root: nn.Module, path: str, module: nn.Module) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        if parent not in root._modules:
            root.add_module(parent, nn.Module())
        root = cast(nn.Module, root._modules[parent])
    root.add_module(name, module)
