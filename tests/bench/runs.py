"""Prepared runs on tiny models: what the tests of methods share."""

import torch
from torch import Tensor, nn

from models import tiny
from run_helpers import arrays
from ttctune.backbone.model import Backbone
from ttctune.bench.methods import METHODS, Method, recipe_for
from ttctune.images import LabelledImages
from ttctune.method.attachment import attach
from ttctune.run import Run, pictures_for, prepare
from ttctune.training.device import find_device
from ttctune.training.progress import Reporter
from ttctune.training.trainer import Trainer


def prepared(method: str | Method, model: nn.Module | str = "vit", epochs: int = 2, **settings: object) -> Run:
    """A run of 12 pictures in batches of 6, ready for the method."""
    method = METHODS[method] if isinstance(method, str) else method
    model = tiny(model) if isinstance(model, str) else model
    recipe = recipe_for(method, epochs, **{"batch_size": 6, "precision": "fp32", **settings})
    return prepare(model, arrays(per_class=4), recipe, None, find_device("cpu"), Reporter(quiet=True), None)


def shell_run(shell: Backbone, method: Method) -> Run:
    """A run on torch's meta device, in which modules can be put in place but nothing can be computed."""
    recipe, meta = recipe_for(method, 2), torch.device("meta")
    attachment, sites = attach(shell, 100), shell.sites(recipe.sites)
    images = LabelledImages(torch.zeros(2, 3, 224, 224, dtype=torch.uint8), torch.tensor([0, 1]))
    description, reporter = pictures_for(shell, recipe), Reporter(quiet=True)
    trainer = Trainer(attachment.model, shell, images, 100, description, recipe, meta, reporter)
    return Run(attachment, sites, trainer, None, recipe)


def outputs(run: Run) -> Tensor:
    """Logits of the training pictures, in evaluation mode."""
    (batch,) = run.trainer.images.batches(len(run.trainer.images))
    with torch.no_grad():
        return run.attachment.model.eval()(run.trainer.inputs(batch[0]))
