"""The start of a run from an adapter that is there already, when images or classes were added.

A warm start is a checkpoint before its first epoch: the earlier adapter's tensors, with the head's rows moved to the
places that their classes, known by name, have now. Everything after it is an ordinary run.
"""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from ttctune import adapter_folder
from ttctune.adapted import Adapted
from ttctune.adapter_folder import BackboneRecord, WarmStartRecord
from ttctune.backbone.model import Backbone
from ttctune.backbone.opening import open_backbone
from ttctune.errors import RecipeError
from ttctune.images import ImageData
from ttctune.loading import load
from ttctune.method.attachment import Attachment
from ttctune.recipe import Recipe, flag_of
from ttctune.training.checkpoint import Checkpoint
from ttctune.training.stage import TUNE, stages_of

#: Settings that made the earlier selection, and those that made what the norms were tuned to.
OF_SELECTION, OF_PICTURES = ("sites", "form", "channels", "budget", "gates"), ("image_size", "resize")
#: Said where val was held out anew.
VAL_MAYBE_SEEN = "val may hold images that the earlier run was trained on"
#: Dropped classes that are named in the line about them.
NAMED = 3


class WarmStart:
    """Where a run starts from; opened only when needed, since its own checkpoint later holds all of it.

    Args:
        source: The earlier adapter's folder, or the adapted model itself.
        model: Its backbone, where it was a module of one's own or has moved; else opened by its name.
        weights: A weights file for the backbone, instead of timm's hub.
    """

    def __init__(self, source: str | Path | Adapted, model: str | nn.Module | None, weights: str | Path | None) -> None:
        self.source, self.model, self.weights = source, model, weights

    @property
    def name(self) -> str:
        """What to call it: the folder's name, never its path."""
        return "an adapted model" if isinstance(self.source, Adapted) else Path(self.source).resolve().name

    @cached_property
    def earlier(self) -> Adapted:
        """The earlier adapted model.

        Raises:
            AdapterError: The folder is damaged or missing, or the model is not the one it was made on.
            BackboneError: The backbone cannot be opened.
        """
        if not isinstance(self.source, Adapted):
            return load(self.source, self.model, self.weights)
        if self.model is not None:
            own = self.source.attachment.backbone
            record = BackboneRecord(name=own.name, digest=own.digest)
            record.check(open_backbone(self.model, self.weights), self.name)
        return self.source

    def settings(
        self, recipe: Recipe, begun: Mapping[str, Any] | None = None
    ) -> tuple[str | nn.Module | Backbone, Recipe]:
        """The model and every setting of the run: what was not set is as in the earlier run.

        Args:
            recipe: As given.
            begun: How a run that goes on began: then that decides, and the earlier adapter may be gone.

        Raises:
            RecipeError: A setting contradicts what is taken over.
        """
        if begun is not None:
            own = self.source.attachment.backbone if isinstance(self.source, Adapted) else None
            model = self.model or own or str(begun.get("model"))
            return model, recipe.continuing(Recipe(**begun.get("recipe", {})))
        recipe = recipe.continuing(self.earlier.recipe)
        check_settings(recipe, self.earlier, self.name)
        return self.earlier.attachment.backbone, recipe


def check_settings(recipe: Recipe, earlier: Adapted, name: str) -> None:
    """Refuse settings that contradict what is taken over.

    Raises:
        RecipeError: Another preprocessing; or, where the selection is kept, other sites, form or channels.
    """
    for setting in OF_PICTURES + OF_SELECTION * _keeps_selection(recipe, earlier):
        given, before = getattr(recipe, setting), getattr(earlier.recipe, setting)
        if given != before:
            again = ", or choose channels anew with --align-epochs 2" if setting in OF_SELECTION else ""
            raise RecipeError(
                f"{setting} = {_text(given)}", f"{_text(before)}, as {name} has", f"drop {flag_of(setting)}{again}"
            )


def first_state(start: WarmStart, attachment: Attachment, images: ImageData, recipe: Recipe) -> Checkpoint:
    """The state in which a warm-started run begins.

    Without alignment, and where the earlier run had selected channels: before the first epoch of tuning, with its
    selection and maps. Else before the first stage, with its norms and head.

    Args:
        start: The earlier adapter.
        attachment: Of the new run, with a head drawn for its classes.
        images: Of the new run.
        recipe: Of the new run.

    Raises:
        RecipeError: New classes, and a head that would never be trained; or settings that do not fit the adapter.
    """
    earlier = start.earlier
    check_settings(recipe, earlier, start.name)
    tensors = {key: tensor.detach().cpu() for key, tensor in earlier.adapter.state_dict().items()}
    keeps = _keeps_selection(recipe, earlier)
    known, present = set(earlier.classes), set(images.classes)
    new = [label for label in images.classes if label not in known]
    if new and keeps and recipe.tune_head == "frozen":
        raise RecipeError(
            f"tune_head = frozen with {len(new)} new classes ({_some(new)})",
            "a head that is trained",
            f"set {flag_of('tune_head')} trained, or {flag_of('align_epochs')} 2",
        )
    adapter = {
        key: _by_name(fresh, tensors[key], images.classes, earlier.classes) if key.startswith("head") else tensors[key]
        for key, fresh in attachment.adapter.state_dict().items()
    }
    if keeps:
        adapter |= {key: tensor for key, tensor in tensors.items() if key.startswith(("sites.", "gates."))}
    about = WarmStartRecord(
        folder=start.name,
        sha256=_digest(earlier),
        kept=len(images.classes) - len(new),
        new=tuple(new),
        dropped=tuple(label for label in earlier.classes if label not in present),
        selection_kept=keeps,
        val_unseen=_val_is_unseen(earlier, images),
    )
    stage = TUNE if keeps else stages_of(recipe)[0].name
    importance = dict(earlier.importance) if keeps else {}
    return Checkpoint(
        stage, adapter=adapter, importance=importance, settled={"warm_start": about.model_dump(mode="json")}
    )


def about(settled: Mapping[str, Any], epochs: int) -> list[str]:
    """Lines for people about the warm start that `first_state` settled for a run of so many epochs."""
    start = settled["warm_start"]
    counts = [f"{start['kept']} classes taken over"]
    if start["new"]:
        counts.append(f"{len(start['new'])} new")
    if start["dropped"]:
        counts.append(f"{len(start['dropped'])} dropped ({_some(start['dropped'])})")
    selection = "selection kept" if start["selection_kept"] else "channels selected anew"
    lines = [f"warm start from {start['folder']}: {', '.join(counts)}; {selection}"]
    if start["new"] and not epochs:
        lines.append(
            f"{flag_of('tune_epochs')} 0: nothing is trained, so what it says of new classes is left to chance"
        )
    if not start["val_unseen"]:
        lines.append(
            f"{VAL_MAYBE_SEEN}: its figures may be too good, and no temperature is fitted; give a val part that is new"
        )
    return lines


def _keeps_selection(recipe: Recipe, earlier: Adapted) -> bool:
    return not recipe.align_epochs and bool(earlier.selection)


def _by_name(fresh: Tensor, old: Tensor, classes: tuple[str, ...], old_classes: tuple[str, ...]) -> Tensor:
    """The head's rows (or biases), `old` where the class was known, else `fresh`."""
    places = {label: row for row, label in enumerate(old_classes)}
    rows = fresh.detach().cpu().clone()
    for row, label in enumerate(classes):
        if label in places:
            rows[row] = old[places[label]]
    return rows


def _val_is_unseen(earlier: Adapted, images: ImageData) -> bool:
    """Whether neither the earlier run nor those before it can have trained on this val, as far as records tell.

    The val of the earlier run is as unseen as it was then, and its training images are seen. Of other images, a part
    of the data's own is taken to be new, since who brings one along means it so; one held out anew is not.
    """
    if images.val is None:
        return True
    digest = images.val.digest()
    if digest == earlier.settled.get("train_digest"):
        return False
    if digest == earlier.data.get("held_out", {}).get("digest", earlier.data.get("val_digest")):
        return earlier.val_unseen
    return not images.held_out


def _digest(earlier: Adapted) -> str:
    """SHA-256 of its tensors' file."""
    tensors = adapter_folder.to_disk(earlier.adapter.state_dict(), earlier.recipe.adapter_dtype)
    return hashlib.sha256(save(tensors)).hexdigest()


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + ", ..." * (len(names) > NAMED)


def _text(value: Any) -> str:
    if value is None:
        return "not set"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
