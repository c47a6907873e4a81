"""Methods that add nothing: some of the backbone's own parameters are trained, or all of them."""

from collections.abc import Callable

from torch import nn

from ttctune.bench.methods.stages import body_group, refused
from ttctune.run import Run
from ttctune.training.stage import Group


def norm(run: Run) -> list[Group]:
    """Scale and shift of every norm: stage 1 of the product for all epochs. ViT-B/16: 38,400."""
    named = run.attachment.adapter.named_parameters()
    return [Group("norms", {n: p for n, p in named if n.startswith("norms.")}, run.recipe.norm_rate)]


def bitfit(run: Run) -> list[Group]:
    """Every bias, those of the norms too (Zaken et al. 2022). ViT-B/16: 102,912, published as 0.10 M.

    Raises:
        BackboneError: The model has no bias.
    """
    biases = released(run, lambda name: name.endswith("bias"))
    if not biases:
        raise refused("BitFit", run, "no layer has a bias", "biases to train")
    return [body_group(run, "biases", biases)]


def full(run: Run) -> list[Group]:
    """Every parameter. ViT-B/16: 85,798,656, published as 85.8 M."""
    return [body_group(run, "backbone", released(run, lambda name: True))]


def released(run: Run, wanted: Callable[[str], bool]) -> dict[str, nn.Parameter]:
    """Give the copy storage of its own for the parameters whose full names are wanted, head left out."""
    model, heads = run.attachment.model, tuple(f"{name}." for name in run.attachment.heads)
    own: dict[int, nn.Parameter] = {}  # a parameter with two names stays one
    named: dict[str, nn.Parameter] = {}
    for path, module in model.named_modules():
        for name, parameter in list(module.named_parameters(path, recurse=False)):
            if wanted(name) and not name.startswith(heads):
                known = id(parameter) in own
                fresh = own.setdefault(id(parameter), nn.Parameter(parameter.detach().clone()))
                setattr(module, name.rpartition(".")[2], fresh)
                if not known:
                    named[name] = fresh
    return named
