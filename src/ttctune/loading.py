"""An adapter folder, opened: the adapted model again, or one line that says what is wrong with the folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from ttctune import adapter_folder
from ttctune.adapted import Adapted
from ttctune.adapter_folder import Record
from ttctune.backbone.description import InputDescription
from ttctune.backbone.model import Backbone, Site
from ttctune.backbone.opening import open_backbone
from ttctune.errors import AdapterError
from ttctune.method.attachment import Attachment, attach, load_adapter
from ttctune.out_of_memory import is_out_of_memory
from ttctune.recipe import Recipe
from ttctune.training.device import find_device


def load(
    folder: str | Path,
    model: str | nn.Module | None = None,
    weights: str | Path | None = None,
    *,
    device: str = "cpu",
) -> Adapted:
    """Open an adapter folder.

    Args:
        folder: Made by `fit` or `save`.
        model: The backbone, where it was a module of your own or has moved; else opened by its name.
        weights: A weights file for the backbone, instead of timm's hub.
        device: Where the model goes: "cpu", "cuda", "mps" or "auto".

    Returns:
        The adapted model, in eval mode, with the outputs it had when saved.

    Raises:
        AdapterError: The folder is damaged, too new, or belongs to another backbone.
        BackboneError: The backbone cannot be opened.
    """
    folder = Path(folder)
    record = adapter_folder.read_record(folder)
    tensors = adapter_folder.read_tensors(folder, record)
    if model is None and record.backbone.name.startswith("module:"):
        raise AdapterError(
            f"{folder} was made on a model of your own ({record.backbone.name})",
            "that model",
            "pass it as model=",
        )
    backbone = open_backbone(model if model is not None else record.backbone.name, weights)
    record.backbone.check(backbone, str(folder))
    attachment, description, recipe = _rebuild(folder, record, backbone, tensors)
    attachment.model.float().to(find_device(device))
    return Adapted(
        attachment,
        record.classes,
        description,
        recipe,
        record.settled,
        record.data,
        record.metrics,
        adapter_folder.read_importance(folder, record),
        adapter_folder.read_history(folder, record),
        record.calibration,
    )


def _rebuild(
    folder: Path, record: Record, backbone: Backbone, tensors: Mapping[str, Tensor]
) -> tuple[Attachment, InputDescription, Recipe]:
    try:
        description = InputDescription.from_json(record.input)
        recipe = Recipe(**record.recipe)
        _check_ends(description, backbone, record.classes, tensors)
        attachment = attach(backbone, len(record.classes), image_size=(description.height, description.width))
        selection = adapter_folder.selection_of(tensors)
        sites = backbone.sites(recipe.sites)
        for name, channels in selection.items():
            _check_channels(name, channels, sites)
        if selection:  # else the run ended after the alignment
            attachment.tune(sites, selection, recipe.form, recipe.gates)
        load_adapter(attachment, tensors)
    except AdapterError:
        raise
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:300]
        raise AdapterError(
            f"{folder} does not fit its own record ({reason})", "the folder as it was saved", "fetch it again"
        ) from error
    return attachment, description, recipe


def _check_ends(
    description: InputDescription, backbone: Backbone, classes: Sequence[str], tensors: Mapping[str, Tensor]
) -> None:
    """Before anything is made of the sizes that the record states."""
    if description.channels != backbone.input.channels:
        raise ValueError(f"pictures of {description.channels} channels, a backbone of {backbone.input.channels}")
    heads = [tensor for name, tensor in tensors.items() if name.startswith("head")]
    if not heads or any(not head.ndim or len(head) != len(classes) for head in heads):
        raise ValueError(f"{len(classes)} classes, but no head of as many")


def _check_channels(name: str, channels: Tensor, sites: Sequence[Site]) -> None:
    site = next((s for s in sites if s.name == name), None)
    if site is None:
        raise AdapterError(f"channels for site {name}", "a site of the recipe", "fetch the folder again")
    ascending = channels.ndim == 1 and bool((channels.diff() > 0).all())
    if not ascending or not len(channels) or not 0 <= int(channels[0]) <= int(channels[-1]) < site.width:
        raise AdapterError(
            f"channels of site {name} out of order or range",
            f"0 to {site.width - 1}, ascending",
            "fetch it again",
        )
