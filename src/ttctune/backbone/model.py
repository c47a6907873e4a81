"""A model as the method sees it: blocks, sites, norms, and a copy that shares its tensors."""

import copy
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeGuard

import torch
from torch import nn

from ttctune.backbone.description import InputDescription
from ttctune.backbone.families import FAMILIES, NORMS, Family
from ttctune.errors import BackboneError, SiteError

#: Norms that stage 1 leaves alone, for the message where a model has no others.
_OTHER_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)


@dataclass(frozen=True)
class Site:
    """One place whose output channels can be tuned.

    Attributes:
        block: Ordinal of the block, from 0.
        kind: "attn", "mlp", "qkv", "fc1" or "stream".
        path: Full name of the layer (for `stream`: of the norm whose input is the stream).
        width: Number of channels.
        inputs: Number of input features of the layer; 0 for `stream`.
        axis: Dimension of the output that holds the channels: the last, or 1 where the layer is a 1 x 1 convolution.
        has_bias: Whether the layer adds a bias.
    """

    block: int
    kind: str
    path: str
    width: int
    inputs: int
    axis: int
    has_bias: bool

    @property
    def name(self) -> str:
        """`<block>.<kind>`, as in the adapter's file."""
        return f"{self.block}.{self.kind}"


@dataclass(frozen=True)
class Backbone:
    """The pre-trained model a person hands over, never changed, and what is known about it.

    Attributes:
        model: The module itself.
        name: timm name, "local-dir:FOLDER", or "module:CLASS" for a module of one's own.
        digest: SHA-256 of its tensors, without the head, before any resize or cast.
        input: The pictures it was trained on.
    """

    model: nn.Module
    name: str
    digest: str
    input: InputDescription

    @cached_property
    def family(self) -> Family:
        """The row of the table of families that describes it."""
        return family_of(self.model)

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """Full names of the blocks, in order."""
        return block_names(self.model, self.family)

    def norms(self) -> tuple[str, ...]:
        """Full names of every LayerNorm or RMSNorm that has a scale."""
        return norm_names(self.model)

    def sites(self, kinds: Iterable[str]) -> tuple[Site, ...]:
        """The sites of the given kinds in every block, in order of depth.

        Raises:
            SiteError: There is no such kind, or a block has no such layer.
        """
        kinds = tuple(kinds)
        return tuple(self._site(i, block, kind) for i, block in enumerate(self.blocks) for kind in kinds)

    def _site(self, index: int, block: str, kind: str) -> Site:
        if kind not in self.family.kinds:
            raise SiteError(
                f"site {kind!r} in {self.family.title}",
                f"one of {', '.join(self.family.kinds)}",
                "choose other --sites or --gates",
            )
        if kind == "stream":
            path = f"{block}.{self.family.stream}"
            width = int(self.model.get_submodule(path).weight.numel())  # type: ignore[operator]
            return Site(index, kind, path, width, 0, -1, has_bias=False)
        path = f"{block}.{self.family.sites[kind]}"
        layer = find(self.model, path)
        if not is_linear(layer):
            raise SiteError(
                f"site {kind!r}: {self.name} has {_described(self.model, path)} at {path}",
                "one linear layer or 1 x 1 convolution",
                "choose other --sites or --gates",
            )
        outputs, inputs = layer.weight.shape[:2]
        axis = 1 if isinstance(layer, nn.Conv2d) else -1
        return Site(index, kind, path, outputs, inputs, axis, has_bias=layer.bias is not None)


def name_of(model: "str | nn.Module | Backbone") -> str:
    """What a model is called in records: timm name, "local-dir:FOLDER", or "module:CLASS" for a module of one's own."""
    if isinstance(model, Backbone):
        return model.name
    return model if isinstance(model, str) else f"module:{type(model).__name__}"


def family_of(model: nn.Module) -> Family:
    """The family of a model, by the names of its class and of its blocks' class.

    Raises:
        BackboneError: The model has no LayerNorm, or not just one row of the table fits.
    """
    name = type(model).__name__
    if not norm_names(model):
        kinds = {type(m).__name__ for m in model.modules() if isinstance(m, _OTHER_NORMS)}
        found = f" ({', '.join(sorted(kinds))} instead)" if kinds else ""
        raise BackboneError(
            f"a {name} without LayerNorm{found}", "LayerNorms or RMSNorms, which stage 1 tunes", "choose another model"
        )
    lineage = {cls.__name__ for cls in type(model).__mro__}
    candidates = [row for row in FAMILIES if row.model in lineage]
    fitting = [row for row in candidates if block_names(model, row)]
    if len(fitting) == 1:
        return fitting[0]
    places = {type(m).__name__ for row in candidates for n, m in model.named_modules() if re.fullmatch(row.blocks, n)}
    described = name + (f" with blocks of {', '.join(sorted(places))}" if places else "")
    supported = "; ".join(row.title for row in FAMILIES)
    raise BackboneError(f"a {described}", f"a model of one of these families: {supported}", "choose such a model")


def block_names(model: nn.Module, family: Family) -> tuple[str, ...]:
    """Full names of a model's blocks, in order."""
    modules = model.named_modules()
    return tuple(n for n, m in modules if type(m).__name__ == family.block and re.fullmatch(family.blocks, n))


def is_linear(layer: nn.Module | None) -> TypeGuard[nn.Linear | nn.Conv2d]:
    """Whether a layer is there to compute W x + b at every position, W being its own: a Linear, or a plain convolution.

    A parametrised weight is not its own: it is made of others, and nothing can be folded into it.
    """
    if layer is None or "weight" not in layer._parameters:
        return False
    if type(layer) is nn.Conv2d:  # a subclass may change the weight first, as weight standardisation does
        plain = (layer.kernel_size, layer.stride, layer.groups) == ((1, 1), (1, 1), 1)
        return plain and layer.padding in ((0, 0), "valid", "same")
    return isinstance(layer, nn.Linear)


def _described(model: nn.Module, path: str) -> str:
    """What is at `path` instead of a linear layer; where nothing is, what is beside it."""
    layer = find(model, path)
    if isinstance(layer, nn.Conv2d):
        details = [f"{layer.groups} groups"] if layer.groups > 1 else []
        for name, values, plain in (("stride", layer.stride, 1), ("padding", layer.padding, 0)):
            if not isinstance(values, str) and set(values) != {plain} and layer.kernel_size == (1, 1):
                details.append(f"{name} {_times(values)}")
        return f"{type(layer).__name__} {_times(layer.kernel_size)}" + (f" of {', '.join(details)}" * bool(details))
    if layer is not None:
        return type(layer).__name__ + " whose weight is made of others" * isinstance(layer, nn.Linear)
    parent = find(model, path.rpartition(".")[0])
    beside = [name for name, child in (parent.named_children() if parent else ()) if is_linear(child)]
    return f"nothing ({' and '.join(beside)} instead)" if beside else "nothing"


def find(model: nn.Module, path: str) -> nn.Module | None:
    """The submodule at `path`, or None."""
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def replace(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put `module` in the place called `path`."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def _times(values: Iterable[int]) -> str:
    return " x ".join(map(str, values))


def norm_names(model: nn.Module) -> tuple[str, ...]:
    """Full names of the LayerNorms and RMSNorms that have a scale."""
    return tuple(n for n, m in model.named_modules() if _is_norm(m) and getattr(m, "weight", None) is not None)


def _is_norm(module: nn.Module) -> bool:
    return any(cls.__name__ in NORMS for cls in type(module).__mro__)


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Full names of the classifier's layers: one, or two for distilled models."""
    heads = model.get_classifier()  # type: ignore[operator]
    heads = heads if isinstance(heads, tuple) else (heads,)
    return tuple(n for n, m in model.named_modules() if any(m is head for head in heads))


def tensor_digest(model: nn.Module) -> str:
    """SHA-256 over the names, shapes and float32 bytes of a model's tensors, head left out."""
    heads = tuple(f"{name}." for name in head_names(model))
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name.startswith(heads):
            continue
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        values = tensor.detach().cpu()
        values = values.float() if values.is_floating_point() else values
        digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()


def structural_copy(model: nn.Module) -> nn.Module:
    """A copy of the modules that shares the storage of every parameter, all of it frozen.

    The copy has parameter objects of its own, so that `.to()`, `.double()` or `requires_grad_` on it cannot reach
    the model it was taken from; buffers are copied.
    """
    memo: dict[int, object] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.detach().clone()  # small, and BatchNorm writes into them
    with torch.no_grad():
        return copy.deepcopy(model, memo)
