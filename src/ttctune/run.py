"""A run from a model and a folder of images to an adapted model: prepare, adapt, keep."""

import dataclasses
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ttctune import adapter_folder
from ttctune.adapted import BATCH, Adapted
from ttctune.backbone.description import InputDescription
from ttctune.backbone.model import Backbone, Site, name_of
from ttctune.backbone.opening import local_folders, open_backbone
from ttctune.backbone.verification import acting_kinds, verify_sites
from ttctune.calibration import Calibration, calibrate
from ttctune.errors import BackboneError, DataError, FolderError, RecipeError
from ttctune.evaluation import evaluate_logits, outputs_of
from ttctune.images import ImageData, ImageSet, open_images
from ttctune.method.attachment import Attachment, attach
from ttctune.method.importance import prefix_tokens
from ttctune.method.selection import parameters_of
from ttctune.metrics import classification_metrics
from ttctune.output_folder import CHECKPOINT, check_apart, finish, read_unfinished
from ttctune.recipe import Recipe
from ttctune.run_folder import run_folder
from ttctune.training.checkpoint import Checkpoint
from ttctune.training.compilation import compiler_found
from ttctune.training.device import find_device
from ttctune.training.kept_memory import freed_memory_kept
from ttctune.training.precision import Precision, by_hand, candidates, measure
from ttctune.training.processes import Processes, join
from ttctune.training.progress import Reporter
from ttctune.training.stage import stages_of
from ttctune.training.trainer import Trainer
from ttctune.two_stage import put_back, two_stage
from ttctune.warm_start import VAL_MAYBE_SEEN, WarmStart, about, first_state
from ttctune.wording import counted

#: Fewer than these in all are few: several times as many gave better models (docs/results/shots.md).
FEW_STEPS = 100


@dataclass
class Run:
    """Everything a run needs, ready to start.

    Attributes:
        attachment: The copy of the backbone with free norms and a new head.
        sites: Where channels may be tuned, each seen acting.
        trainer: Trains the copy.
        images: The images, decoded or streamed.
        recipe: The settings, with the sites that the family has.
        state: What a method of the benchmark leaves: history, and scores of channels; `adapt` keeps its own.
    """

    attachment: Attachment
    sites: tuple[Site, ...]
    trainer: Trainer
    images: ImageData
    recipe: Recipe
    state: Checkpoint = field(default_factory=Checkpoint)


def adapt(
    model: str | nn.Module | None,
    data: Any,
    recipe: Recipe | None = None,
    weights: str | Path | None = None,
    out: str | Path | None = None,
    *,
    warm_start: str | Path | Adapted | None = None,
    device: str = "auto",
    threads: int | None = None,
    workers: int | None = None,
    quiet: bool = False,
    resume: bool = False,
    overwrite: bool = False,
) -> Adapted:
    """Adapt a pre-trained vision transformer to labelled images in two stages.

    In each process of a launcher, this is one run of all of them: every batch is divided, process 0 alone prints and
    writes, and all return the same.

    Args:
        model: A timm name, "local-dir:FOLDER", or a timm module (which stays as it is, in every bit). None takes the
            backbone of the warm start.
        data: A folder of images, (images, labels), a torch data set, or {"train": ..., "val": ...} of those.
        recipe: The settings; the default recipe if None.
        weights: A weights file for the model, instead of timm's hub.
        out: Folder to write; keeps a checkpoint after every epoch, so that a run can go on after an interruption.
            None keeps nothing on disk.
        warm_start: An earlier adapter (folder or adapted model) to go on from, when images or classes were added:
            norms, selection and maps are taken over, and the head's rows of the classes that both know, by name.
            Settings that `recipe` does not set are the earlier run's, but for 6 epochs of tuning and no alignment;
            with `align_epochs` set, norms and head alone are taken over, and channels are selected anew.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        threads: Threads of the CPU; None leaves torch's choice.
        workers: Threads that decode images; None takes one per core, eight at most. The result does not depend on it.
        quiet: Print no progress to stderr.
        resume: Go on with the unfinished run in `out`; on a CPU with the same number of threads, bit for bit as if it
            had not stopped.
        overwrite: Replace what ttctune wrote into `out` before, in one step, when the new run is done; refused where
            other files lie there too.

    Returns:
        The adapted model, measured on val where there is a val part.

    Raises:
        TtcError: With one line that says what was given, what was expected, what to do.
    """
    place = find_device(device, threads)
    processes = join(place)
    reporter = Reporter(quiet or not processes.main)
    start = None if warm_start is None else WarmStart(warm_start, model, weights)
    with processes.together(), ExitStack() as stack:
        stack.callback(reporter.stop)
        stack.enter_context(freed_memory_kept(place))
        begun = processes.decide(lambda: read_unfinished(Path(out).resolve()) if start and resume and out else None)
        source, recipe = settings_of(start, model, recipe, begun)
        own = out if processes.main else None
        if own:
            check_apart(Path(own), _sources(source, data, weights))
        folder = stack.enter_context(run_folder(own, source, recipe, resume, overwrite, start.name if start else None))
        cache = folder.working / CHECKPOINT if folder else None
        state = processes.decide(lambda: Checkpoint.read(cache) if cache else Checkpoint())
        if folder and not resume:
            stack.enter_context(folder.discarded_on_error())
        run = prepare(source, data, recipe, weights, place, reporter, cache, processes, workers)
        if run.images.val is not None:
            classification_metrics()  # where there is no memory for them, that shows here, not behind the training
        recipe = run.recipe
        reporter.say(describe(run))
        if start and not state.stage:
            state = first_state(start, run.attachment, run.images, recipe)
            for line in about(state.settled, recipe.align_epochs + recipe.tune_epochs):
                reporter.say(line)
        elif start is None and (advice := few_steps(run)):
            reporter.say(advice)
        state = settle(run, state)

        def keep(state: Checkpoint) -> None:
            if folder:
                state.write(folder.working / CHECKPOINT)
                adapter_folder.write_history(folder.working, state.history)

        keep(state)  # from here on nothing is decided anew, and the earlier adapter is needed no more
        epochs = sum(stage.epochs for stage in stages_of(recipe, state.stage))
        reporter.start(work=epochs * len(run.trainer.images), done=state.epoch * len(run.trainer.images))
        state = two_stage(run.attachment, run.sites, run.trainer, recipe, state, keep)
        reporter.stop()
        adapted = _measured(run, state)
        if folder:
            adapted.write_files(folder.working)
            finish(folder.working, folder.path)
    return adapted


def _sources(model: str | nn.Module | Backbone, data: Any, weights: str | Path | None) -> list[str | Path]:
    """Paths that a run reads."""
    parts = data.values() if isinstance(data, dict) else [data]
    return [*local_folders(name_of(model)), *(path for path in (*parts, weights) if isinstance(path, str | Path))]


def prepare(
    model: str | nn.Module | Backbone,
    data: Any,
    recipe: Recipe,
    weights: str | Path | None,
    place: torch.device,
    reporter: Reporter,
    cache_folder: Path | None,
    processes: Processes | None = None,
    workers: int | None = None,
) -> Run:
    """Open the model and the images, attach norms and head, see every site acting.

    Model (or an open backbone), data, recipe, weights and workers are those of `adapt`. Decoded images that exceed the
    memory budget go to `cache_folder`, or to a temporary place where it is None. Without `processes` this is a run of
    one.
    """
    backbone = model if isinstance(model, Backbone) else open_backbone(model, weights)
    description = pictures_for(backbone, recipe)
    size = (description.height, description.width)
    picture = (description.channels, *size)
    trial = attach(backbone, 2, image_size=size).model
    prefix_tokens(trial, recipe.tokens)  # refused before anything is trained
    acting = acting_kinds(backbone, trial, (*recipe.sites, *recipe.gates), picture)
    recipe = _with_layers_of(backbone, recipe, acting, reporter)
    sites = backbone.sites(recipe.sites)
    _check_channels(recipe, sites)
    if not {*recipe.sites, *recipe.gates} <= set(acting):
        verify_sites(trial, (*sites, *backbone.sites(recipe.gates)), picture)  # says what is wrong
    images = open_images(
        data,
        description,
        val_fraction=recipe.val_fraction,
        seed=recipe.seed,
        skip_bad=recipe.skip_bad,
        streaming=recipe.streaming,
        cache_bytes=recipe.cache_mb << 20,
        cache_folder=cache_folder,
        threads=workers,
        progress=reporter.decoding,
    )
    if images.train is None:
        raise DataError("data without a train part", "images to train on", "add a train part")
    if images.skipped:
        names = ", ".join(name for name, _ in images.skipped_images[:3])
        reporter.say(f"left out {images.skipped} unreadable images ({names}{', ...' * (images.skipped > 3)})")
    attachment = attach(backbone, len(images.classes), image_size=size, seed=recipe.seed)
    attachment.model.float()  # as pictures are; a person's own module may be float64
    trainer = Trainer(
        attachment.model, backbone, images.train, len(images.classes), description, recipe, place, reporter
    )
    trainer.processes = processes or Processes()
    if recipe.compile:
        trainer.compile = all(trainer.processes.gather(compiler_found(place)))
        off = f"torch.compile is off: no compiler for {place.type} was found"
        reporter.say("torch.compile is on" if trainer.compile else off)
    return Run(attachment, sites, trainer, images, recipe)


def settle(run: Run, state: Checkpoint) -> Checkpoint:
    """Attach what the state has, and decide what the recipe leaves open, or keep what the interrupted run had decided.

    Raises:
        DataError: The training images or the model's weights are not those of process 0.
        FolderError: They are not those of the interrupted run.
    """
    trainer, processes = run.trainer, run.trainer.processes
    digests = {"train_digest": trainer.images.digest(), "backbone_digest": run.attachment.backbone.digest}
    settled = digests | state.settled
    for what, key in (("training images", "train_digest"), ("weights of the model", "backbone_digest")):
        if processes.decide(partial(digests.get, key)) != digests[key]:
            raise DataError(f"{what} that are not those of process 0", "the same everywhere", "give each the same")
        if settled[key] != digests[key]:
            raise FolderError(
                f"{what} that changed since the run began", "the same as then", "give those, or use --overwrite"
            )
    put_back(run.attachment, run.sites, run.recipe, state)
    if "precision" not in settled:
        settled |= processes.decide(lambda: _computed(run, state.stage))
    trainer.precision = Precision(settled["precision"], settled["fused_attention"], settled["reason"])
    trainer.accumulation = settled["accumulation"]
    present = {
        "compile": trainer.compile,
        "device": str(trainer.device),
        "threads": torch.get_num_threads(),
        "processes": processes.count,
    }
    changed = [f"{k} {settled[k]} then, {v} now" for k, v in present.items() if settled.get(k, v) != v]
    if changed:
        trainer.reporter.say(
            f"resumed under other conditions ({'; '.join(changed)}): equal to rounding, not in every bit"
        )
    return dataclasses.replace(state, settled=settled | present)


def _computed(run: Run, begun: str) -> dict[str, Any]:
    """How the run computes: as the recipe says, or as is fastest and safe here, and in how many parts that fits."""
    trainer, recipe = run.trainer, run.recipe
    if recipe.precision == "auto":
        groups = stages_of(recipe, begun)[0].groups(run.attachment, recipe.weight_decay)
        safest = candidates(trainer.device)[0]
        chosen = measure(trainer.device, lambda p: trainer.probe(groups, p, split=p == safest))
        attention = "" if trainer.device.type != "cpu" else " attention"
        trainer.reporter.say(f"precision: {chosen.title}{attention}, {chosen.reason}")
    else:
        chosen = by_hand(recipe.precision, trainer.device)
    return {
        "precision": chosen.format,
        "fused_attention": chosen.fused_attention,
        "reason": chosen.reason,
        "accumulation": trainer.accumulation,
    }


def pictures_for(backbone: Backbone, recipe: Recipe) -> InputDescription:
    """The backbone's input description, with the recipe's size and way to resize."""
    size = recipe.image_size or (backbone.input.height, backbone.input.width)
    height, width = (size, size) if isinstance(size, int) else size
    return dataclasses.replace(backbone.input, height=height, width=width, resize=recipe.resize)


def describe(run: Run) -> str:
    """One line about a run, for people."""
    backbone = run.attachment.backbone
    parts = ", ".join(f"{len(images)} {name}" for name, images in run.images.parts.items())
    size = f"{run.trainer.description.height} x {run.trainer.description.width}"
    return (
        f"{backbone.name} at {size} pixels; {len(run.images.classes)} classes; images: {parts} ({run.images.val_note})"
    )


def few_steps(run: Run) -> str:
    """Advice where the run has few steps, else nothing."""
    steps = sum(stage.epochs for stage in stages_of(run.recipe)) * run.trainer.steps_per_epoch
    if steps >= FEW_STEPS:
        return ""
    return f"{counted(steps, 'step')} in all: more epochs may give a better model (--align-epochs 10 --tune-epochs 90)"


def settings_of(
    start: WarmStart | None, model: str | nn.Module | None, recipe: Recipe | None, begun: Mapping[str, Any] | None
) -> tuple[str | nn.Module | Backbone, Recipe]:
    """Model and recipe as given, completed by the warm start.

    Raises:
        RecipeError: The recipe is none, or contradicts the warm start.
        BackboneError: There is no model.
    """
    if not isinstance(recipe, Recipe | None):
        given = f"a recipe of type {type(recipe).__name__}"
        raise RecipeError(given, "a ttctune.Recipe", "make one, as by Recipe(**settings) or Recipe.from_toml(file)")
    if start is not None:
        return start.settings(recipe or Recipe(), begun)
    if model is None:
        raise BackboneError("no model", "a timm name, local-dir:FOLDER or a module", "pass one, or a warm start")
    return model, recipe or Recipe()


def _measured(run: Run, state: Checkpoint) -> Adapted:
    images, recipe = run.images, run.recipe
    data: dict[str, Any] = {
        "train_images": len(run.trainer.images),
        "val_images": len(images.val) if images.val else 0,
        "val_note": images.val_note,
        "skipped": images.skipped,
    }
    if images.val is not None:
        digest, how = images.val.digest(), {"val_fraction": recipe.val_fraction, "seed": recipe.seed}
        data |= {"held_out": how | {"digest": digest}} if images.held_out else {"val_digest": digest}
    run.attachment.model.eval()
    adapted = Adapted(
        run.attachment,
        images.classes,
        run.trainer.description,
        recipe,
        state.settled,
        data,
        {},
        {name: scores.float() for name, scores in state.importance.items()},
        tuple(state.history),
    )
    if images.val is None:
        return adapted
    logits = _val_logits(run, images.val)
    calibration = calibrate(logits, images.val.labels) if adapted.val_unseen else Calibration(note=VAL_MAYBE_SEEN)
    evaluation = evaluate_logits(logits, images.val.labels, images.classes, "val", calibration=calibration)
    metrics = {k: getattr(evaluation, k) for k in ("part", "images", "accuracy", "balanced_accuracy", "ece", "ece_raw")}
    return dataclasses.replace(adapted, metrics=metrics, calibration=calibration)


def _with_layers_of(backbone: Backbone, recipe: Recipe, acting: tuple[str, ...], reporter: Reporter) -> Recipe:
    """Of the default sites and gates, those of the kinds that act; others are taken at their word."""
    for setting, what in (("sites", "channels are tuned"), ("gates", "gates are")):
        kinds = getattr(recipe, setting)
        if kinds != Recipe.model_fields[setting].default:
            continue
        kept = tuple(kind for kind in kinds if kind in acting)
        if kept == kinds or (not kept and setting == "sites"):
            continue
        missing = ", ".join(kind for kind in kinds if kind not in kept)
        where = f"at {', '.join(kept)}" if kept else "nowhere"
        reporter.say(f"{backbone.family.title}: nothing can be tuned at {missing}, so {what} {where}")
        recipe = recipe.change(**{setting: kept})
    return recipe


def _val_logits(run: Run, val: ImageSet) -> Tensor:
    """float32 logits of all val images, of which each process computes its share."""
    trainer, model = run.trainer, run.attachment.model
    mine = trainer.processes.share(len(val))
    batches = (pictures for pictures, _ in val.batches(BATCH, order=torch.arange(len(val))[mine]))
    logits = torch.zeros(len(val), len(run.images.classes))
    found = outputs_of(model, batches, trainer.description, by_hand("fp32", trainer.device))
    logits[mine] = torch.cat([logits[:0], *found])
    trainer.processes.sum_([logits])
    return logits


def _check_channels(recipe: Recipe, sites: tuple[Site, ...]) -> None:
    if recipe.budget is not None:
        cheapest = min(parameters_of(site, recipe.form, 1) for site in sites)
        if recipe.budget < cheapest:
            raise RecipeError(
                f"budget = {recipe.budget}", f"at least {cheapest}, the cost of one channel", "raise --budget"
            )
        return
    narrowest = min(sites, key=lambda site: site.width)
    if recipe.channels_of(narrowest.width) > narrowest.width:
        raise RecipeError(
            f"channels = {recipe.channels}",
            f"at most {narrowest.width}, the width of the narrowest site, {narrowest.name}",
            "lower --channels, or give a share below 1",
        )
