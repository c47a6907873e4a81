"""A model as the method sees it: blocks, sites, norms, width, and a copy that shares its tensors."""

import copy
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from ttctune.backbone.description import InputDescription
from ttctune.backbone.families import FAMILIES, Family
from ttctune.errors import BackboneError, SiteError


@dataclass(frozen=True)
class Site:
    """One place whose output channels can be tuned.

    Attributes:
        block: Ordinal of the block, from 0.
        kind: "attn", "mlp", "qkv", "fc1" or "stream".
        path: Full name of the layer (for `stream`: of the norm whose input is the stream).
        width: Number of channels.
        inputs: Number of input features of the layer; 0 for `stream`.
        axis: Dimension of the output that holds the channels.
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
        return tuple(n for n, _ in self.model.named_modules() if re.fullmatch(self.family.blocks, n))

    @property
    def width(self) -> int:
        """Channels of the residual stream."""
        return int(self.model.num_features)  # type: ignore[arg-type]

    def norms(self) -> tuple[str, ...]:
        """Full names of every LayerNorm that has a scale."""
        return norm_names(self.model)

    def sites(self, kinds: Iterable[str]) -> tuple[Site, ...]:
        """The sites of the given kinds in every block, in order of depth.

        Raises:
            SiteError: There is no such kind, or a block has no such layer.
        """
        kinds = tuple(kinds)
        return tuple(self._site(i, block, kind) for i, block in enumerate(self.blocks) for kind in kinds)

    def _site(self, index: int, block: str, kind: str) -> Site:
        if kind == "stream":
            if self.family.stream is None:
                raise SiteError(
                    f"site 'stream' in {self.family.title}",
                    "blocks whose second norm reads the residual stream",
                    "choose among attn, mlp, qkv, fc1",
                )
            path = f"{block}.{self.family.stream}"
            return Site(index, kind, path, self.width, 0, self.family.axis, has_bias=False)
        if kind not in self.family.sites:
            known = ", ".join([*self.family.sites, *(["stream"] if self.family.stream else [])])
            raise SiteError(f"site {kind!r}", f"one of {known}", "choose other --sites")
        path = f"{block}.{self.family.sites[kind]}"
        layer = find(self.model, path)
        if not isinstance(layer, nn.Linear):
            found = "nothing" if layer is None else type(layer).__name__
            raise SiteError(
                f"site {kind!r}: {self.name} has {found} at {path}",
                "one linear layer",
                "choose other --sites",
            )
        return Site(index, kind, path, layer.out_features, layer.in_features, self.family.axis, layer.bias is not None)


def family_of(model: nn.Module) -> Family:
    """The family of a model, by the names of its class and of its blocks' class.

    Raises:
        BackboneError: No row of the table fits, or the model has no LayerNorm.
    """
    lineage = {cls.__name__ for cls in type(model).__mro__}
    candidates = [row for row in FAMILIES if row.model in lineage]
    kinds = {type(m).__name__ for row in candidates for n, m in model.named_modules() if re.fullmatch(row.blocks, n)}
    for row in candidates:
        if kinds == {row.block}:
            if not norm_names(model):
                raise BackboneError(
                    f"{type(model).__name__} without LayerNorm",
                    "a model with LayerNorm",
                    "choose another model",
                )
            return row
    described = type(model).__name__ + (f" with blocks of {', '.join(sorted(kinds))}" if kinds else "")
    supported = "; ".join(row.title for row in FAMILIES)
    raise BackboneError(f"a {described}", f"a model of one of these families: {supported}", "choose such a model")


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


def norm_names(model: nn.Module) -> tuple[str, ...]:
    """Full names of the LayerNorms that have a scale; timm's variants are subclasses."""
    return tuple(n for n, m in model.named_modules() if isinstance(m, nn.LayerNorm) and m.weight is not None)


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
