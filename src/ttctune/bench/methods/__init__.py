"""The methods that are compared, one row each: what it trains, at which rate, from which preset, with which dial.

Every method trains a prepared run in place with the run's own `Trainer`: the same images, loss, augmentation and seed,
the same weights and the same new head, for as many epochs in all; where there are two stages, each has a warm-up, a
decay and an order of the images of its own. To add one: a function that puts
its parameters in place and returns them in groups, in a file of its own, and a row here. The learning rates are those
of runs in which nothing is searched; no search has chosen them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from ttctune.bench.methods.adaptformer import adaptformer
from ttctune.bench.methods.linear import linear
from ttctune.bench.methods.lora import lora, lora_and_norms
from ttctune.bench.methods.method import Dial, Method, recipe_for
from ttctune.bench.methods.own_parameters import bitfit, full, norm
from ttctune.bench.methods.sct import sct
from ttctune.bench.methods.ssf import ssf
from ttctune.bench.methods.stages import align_first, one_stage, two_stages
from ttctune.bench.methods.vpt import vpt

__all__ = ["METHODS", "VARIANT", "Dial", "Method", "method_of", "recipe_for", "titles_of"]

#: Where the rate of the body is of another order than 1e-2, the head keeps the one that it has in the default recipe.
HEAD = {"head_learning_rate": 5e-3}
LORA = {**HEAD, "norm_learning_rate": 1e-2}
SCT = {
    "sites": ("stream",),
    "importance": "l2",
    "tokens": "patches",
    "channels": 0.125,
    "gates": (),
    "tune_norms": "frozen",
}

#: Between a method's name and that of a variant, which differs from it in settings that a file gives: "ttc@few".
VARIANT = "@"

#: Of every method that aligns, scores channels and tunes some.
BOTH: Mapping[str, Any] = {"stages": 2, "selects": True}

CHANNELS = Dial("channels", (0.0625, 0.125, 0.25), default=0.125)
MORE_CHANNELS = Dial("channels", (0.125, 0.25, 0.5), default=0.25)
RANK = Dial("rank", (4, 8, 16), default=8)

METHODS: Mapping[str, Method] = {
    "linear": Method("linear probe", linear, settings={"drop_path": 0.0}, keeps_features=True),
    "norm": Method("LayerNorm only", partial(one_stage, norm)),
    "bitfit": Method("BitFit", partial(one_stage, bitfit)),
    "full": Method("full fine-tuning", partial(one_stage, full), learning_rate=1e-4, settings=HEAD),
    "lora": Method("LoRA", partial(one_stage, lora), learning_rate=3e-3, settings=HEAD, dial=RANK),
    "ssf": Method("SSF", partial(one_stage, ssf)),
    "adaptformer": Method(
        "AdaptFormer",
        partial(one_stage, adaptformer),
        dial=Dial("width", (8, 16, 64), default=8),
    ),
    "vpt": Method("VPT-Deep", partial(one_stage, vpt), dial=Dial("prompts", (5, 10, 50), default=10)),
    "sct": Method("SCT", partial(one_stage, sct), settings=SCT, dial=CHANNELS, selects=True),
    "paper": Method("two-stage, `paper`", two_stages, preset="paper", dial=CHANNELS, **BOTH),
    "ttc": Method("two-stage", two_stages, dial=CHANNELS, **BOTH),
    "ttc-maps": Method(
        "two-stage, maps alone",
        two_stages,
        settings={"gates": (), "channels": 0.25},
        dial=MORE_CHANNELS,
        **BOTH,
    ),
    "ttc-random": Method(
        "two-stage, random channels", two_stages, settings={"importance": "random"}, dial=CHANNELS, **BOTH
    ),
    "ttc-bottom": Method(
        "two-stage, least channels", two_stages, settings={"importance": "lowest"}, dial=CHANNELS, **BOTH
    ),
    "joint": Method("norms and channels in one stage", two_stages, settings={"align_epochs": 0}, dial=CHANNELS, **BOTH),
    "norm-long": Method("LayerNorm only, twice as long", partial(one_stage, norm), longer=2),
    "lora+norm": Method(
        "LoRA and LayerNorm", partial(one_stage, lora_and_norms), learning_rate=3e-3, settings=LORA, dial=RANK
    ),
    "align+lora": Method(
        "alignment, then LoRA and LayerNorm",
        partial(align_first, lora_and_norms),
        learning_rate=3e-3,
        settings=LORA,
        dial=RANK,
        stages=2,
    ),
}


def method_of(name: str) -> Method:
    """The row of a method, or of a variant of it, by name.

    Raises:
        KeyError: There is no such method.
    """
    base, _, variant = name.partition(VARIANT)
    method = METHODS[base]
    return replace(method, title=f"{method.title}, {variant}") if variant else method


def titles_of(names: Iterable[str]) -> dict[str, str]:
    """What people call the methods of the table, and those named that are variants of them, in the table's order."""
    variants = sorted({name for name in names if VARIANT in name})
    shown = [own for base in METHODS for own in (base, *(v for v in variants if v.startswith(base + VARIANT)))]
    return {name: method_of(name).title.replace("`", "") for name in shown}
