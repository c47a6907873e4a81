"""From a timm name, a local folder or a module to a `Backbone`; together with `saving`, all that imports timm."""

import difflib
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import huggingface_hub
import torch
from torch import nn

import ttctune.backbone.embedded
import ttctune.torchvision_operators  # noqa: F401  (before timm)

import timm  # isort: skip
import timm.data  # isort: skip
import timm.models  # isort: skip

from ttctune.backbone.description import InputDescription
from ttctune.backbone.model import Backbone, family_of, head_names, name_of, tensor_digest
from ttctune.errors import BackboneError, WeightsError
from ttctune.wording import first_line

LOCAL = "local-dir:"


def open_backbone(model: str | nn.Module, weights: str | Path | None = None) -> Backbone:
    """Open the model to adapt.

    Args:
        model: A timm name ("deit_tiny_patch16_224", with or without ".tag"), "local-dir:FOLDER" (a folder in
            timm's format), or a timm module.
        weights: A .safetensors, .pth, .pt or .bin file to load instead of timm's hub.

    Returns:
        The backbone with its digest and the pictures it wants. A module is handed through, unchanged.

    Raises:
        BackboneError: The name is unknown, the hub cannot be reached, or the family is not supported.
        WeightsError: The weights cannot be read or do not fit.
    """
    if not isinstance(model, str | nn.Module):
        raise BackboneError(
            f"a {type(model).__name__} as model", "a timm name, local-dir:FOLDER or a module", "pass one"
        )
    if isinstance(model, nn.Module):
        if weights is not None:
            raise WeightsError("weights beside a module", "a module that has its weights already", "leave weights out")
        name, module = name_of(model), model
    elif weights is not None:
        name, module = model, _create(model, pretrained=model.startswith(LOCAL))
        _load_weights(module, Path(weights), name)
    else:
        family_of(_create(model, pretrained=False))  # refused before anything is fetched
        name, module = model, _create(model, pretrained=True)
    family_of(module)
    return Backbone(module, name, tensor_digest(module), _input_of(module))


def open_shell(name: str) -> Backbone:
    """A timm model without its weights: on torch's meta device, so that it takes no memory and fetches nothing.

    Raises:
        BackboneError: The name is unknown, or the family is not supported.
    """
    with torch.device("meta"):
        module = _create(name, pretrained=False)
    family_of(module)
    return Backbone(module, name, "", _input_of(module))


def architectures(pattern: str) -> list[str]:
    """Names in timm that match a pattern with wildcards, or contain a part of a name."""
    return list(timm.list_models(pattern if set("*?[") & set(pattern) else f"*{pattern}*"))


def licences(name: str) -> dict[str, str]:
    """Tag of each set of weights on timm's hub -> its licence, as timm states it, or nothing."""
    architecture, _, tag = name.partition(".")
    tagged = [name] if tag else timm.list_pretrained(f"{architecture}.*")
    configs = {full.partition(".")[2]: timm.get_pretrained_cfg(full) for full in tagged}
    return {tag: (config.license if config else None) or "" for tag, config in configs.items()}


def local_folders(name: str) -> list[str]:
    """The folder that a model of this name is read from, or none."""
    return [name.removeprefix(LOCAL)] if name.startswith(LOCAL) else []


def _create(name: str, pretrained: bool) -> nn.Module:
    architecture, _, tag = name.partition(".")
    if name.startswith(LOCAL):
        folder = Path(name.removeprefix(LOCAL))
        if not (folder / "config.json").is_file():
            raise BackboneError(f"{name}", "a folder that holds config.json and model.safetensors", "check the path")
    elif not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        advice = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()"
        raise BackboneError(f"model {name!r}", "a timm name or local-dir:FOLDER", advice)
    elif tag and name not in (tagged := timm.list_pretrained(f"{architecture}.*")):
        known = ", ".join(n.partition(".")[2] for n in tagged) or "none"
        raise BackboneError(f"model {name!r}: tag {tag!r}", f"a tag of {architecture}: {known}", "change --model")
    huggingface_hub.utils.logging.set_verbosity_error()
    try:
        module: nn.Module = timm.create_model(name, pretrained=pretrained)
        return module.eval()
    except Exception as error:  # timm and the hub's client raise many kinds here, and all mean the same to a person
        wanted = "weights that load" if pretrained else "a model that timm can build"
        advice = "check the folder" if name.startswith(LOCAL) else "check the network, or give a file with --weights"
        raise BackboneError(f"model {name!r}: {first_line(error, 300)}", wanted, advice) from error


def _load_weights(module: nn.Module, file: Path, name: str) -> None:
    state = _without_heads(module, _read_weights(file))
    own = _without_heads(module, module.state_dict())
    if not _fits(own, state):
        convert = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
        if convert is not None:
            # foreign tensors make timm's filters fail in many ways; what is wrong is said below, with names
            with suppress(KeyError, RuntimeError, ValueError, AttributeError, TypeError):
                state = _without_heads(module, convert(dict(state), module))
    missing = sorted(own.keys() - state.keys())
    surplus = sorted(state.keys() - own.keys())
    wrong = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
    for problem, keys in (
        ("lacks", missing),
        ("has another shape of", wrong),
        ("has beyond the model", surplus),
    ):
        if keys:
            raise WeightsError(
                f"weights {file}: the file {problem} {len(keys)} tensors ({', '.join(keys[:3])}, ...)"
                if len(keys) > 3
                else f"weights {file}: the file {problem} {', '.join(keys)}",
                f"the {len(own)} tensors of {name}",
                "check --model and --weights",
            )
    module.load_state_dict({**module.state_dict(), **state})


def _read_weights(file: Path) -> dict[str, torch.Tensor]:
    if not file.is_file():
        raise WeightsError(f"weights {file}", "a file", "check the path")
    try:
        state = timm.models.load_state_dict(str(file), weights_only=True)
    except Exception as error:  # the readers of torch and safetensors raise a dozen kinds for a file of rubbish
        reason = str(error).partition(".")[0].strip() or type(error).__name__
        raise WeightsError(
            f"weights {file}: {reason[:200]}",
            "a whole .safetensors or PyTorch file of tensors",
            "fetch it again",
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(v, torch.Tensor) for v in state.values()) or not state:
        raise WeightsError(f"weights {file}: no tensors in it", "named tensors", "give a checkpoint of the model")
    return dict(state)


def _without_heads(module: nn.Module, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    heads = tuple(f"{name}." for name in head_names(module))
    return {k: v for k, v in state.items() if not k.startswith(heads)}


def _fits(own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> bool:
    return own.keys() == state.keys() and all(own[k].shape == state[k].shape for k in own)


def _input_of(module: nn.Module) -> InputDescription:
    config = timm.data.resolve_model_data_config(module)
    size = _own_size(module) or config["input_size"][1:]
    channels = next((m.in_channels for m in module.modules() if isinstance(m, nn.Conv2d)), len(config["mean"]))
    return InputDescription(
        height=int(size[0]),
        width=int(size[1]),
        mean=_for_channels(config["mean"], channels),
        std=_for_channels(config["std"], channels),
        interpolation=config["interpolation"],
        crop_share=float(config["crop_pct"]),
        crop_mode=config["crop_mode"],
    )


def _own_size(module: nn.Module) -> tuple[int, int] | None:
    """Height and width that a model was built for, where it says so itself."""
    for place in (getattr(module, "patch_embed", None), module):
        if (size := getattr(place, "img_size", None)) is not None:
            return int(size[0]), int(size[1])
    if hasattr(module, "tokens_spatial_shape"):  # Hiera
        shape, stride = module.tokens_spatial_shape, module.patch_stride
        return shape[0] * stride[0], shape[1] * stride[1]  # type: ignore[index,operator,return-value]
    return None


def _for_channels(colours: Sequence[float], channels: int) -> tuple[float, ...]:
    """Statistics of as many channels as the model takes, from those of three colours.

    As timm adapts the weights of the first layer: one channel stands for all colours, more repeat them in turn.
    """
    if channels == 1:
        return (float(statistics.fmean(colours)),)
    return tuple(float(colours[i % len(colours)]) for i in range(channels))
