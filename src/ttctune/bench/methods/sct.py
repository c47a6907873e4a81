"""SCT (Zhao et al. 2023): channels chosen by activation, a map on them in the residual stream, one stage.

As in the authors' code: the score is the L2 norm of a channel over the images and patch tokens of a class, averaged
over the classes, in the untouched backbone; K = width / 8 channels a block; a K x K map with bias on the stream behind
the attention's addition; norms frozen. ViT-B/16: 12 (96 * 96 + 96) = 111,744, published as 0.11 M. The authors draw
the map with a standard deviation of 0.02; here it is zero at the start, as every module that is compared.
"""

from ttctune.bench.methods.stages import body_group
from ttctune.run import Run
from ttctune.training.stage import Group
from ttctune.two_stage import importance_of, select


def sct(run: Run) -> list[Group]:
    """Maps on the channels of largest activation, at the sites of the recipe."""
    importance = importance_of(run.trainer, run.sites, run.recipe)
    run.state.importance.update(importance)
    run.attachment.tune(run.sites, select(importance, run.sites, run.recipe), run.recipe.form)
    named = run.attachment.adapter.named_parameters()
    return [body_group(run, "channels", {n: p for n, p in named if n.startswith("sites.")})]
