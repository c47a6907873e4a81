"""The loop: gradients, weights, rounding, clipping, memory."""

import io

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from tests.models import CLASSES, attached

from ttctune.backbone.description import InputDescription
from ttctune.errors import DivergedError, TrainingError
from ttctune.images.batches import LabelledImages
from ttctune.images.normalisation import normalise
from ttctune.recipe import Recipe
from ttctune.training.compilation import compiler_found
from ttctune.training.optimizer import Optimizer
from ttctune.training.progress import Reporter
from ttctune.training.stage import stages_of
from ttctune.training.trainer import Trainer, image_loss

SMALL = {"batch_size": 6, "align_epochs": 1, "tune_epochs": 1, "precision": "fp32"}
#: Nothing between the model's own cross-entropy and the loss of a step.
PLAIN = {"label_smoothing": 0.0, "drop_path": 0.0}
#: Rounding of another order of summation, after a few steps of AdamW at the usual rate.
ROUNDING = 2e-5


def labelled(n: int = 14) -> LabelledImages:
    pictures = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    return LabelledImages(pictures, torch.arange(n) % 3)


def trainer_of(attachment, images=None, reporter=None, **settings):
    description = InputDescription(32, 32, (0.5,) * 3, (0.25,) * 3)
    images = images or labelled()
    return Trainer(
        attachment.model,
        attachment.backbone,
        images,
        CLASSES,
        description,
        Recipe(**(SMALL | settings)),
        torch.device("cpu"),
        reporter or Reporter(quiet=True),
    )


def said() -> Reporter:
    """A reporter whose lines end in `reporter.console.file`."""
    return Reporter(console=Console(file=io.StringIO(), width=200))


def train(attachment, trainer, stage=1, **arguments):
    """Train a stage of the trainer's recipe; returns the trained tensors and the last row of the history."""
    chosen = stages_of(trainer.recipe)[stage]
    rows = []
    trainer.train(
        chosen.name,
        chosen.groups(attachment, trainer.recipe.weight_decay),
        chosen.epochs,
        after_epoch=lambda done, row, tensors: rows.append(row),
        **arguments,
    )
    return {name: p.detach().clone() for name, p in attachment.adapter.named_parameters()}, rows[-1]


def difference(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def trained(**settings):
    attachment = attached("vit")
    return train(attachment, trainer_of(attachment, **settings))[0]


@pytest.mark.parametrize("parts", [2, 3, 4, 6])
def test_a_batch_in_parts_gives_the_adapter_of_a_whole_one(parts):
    settings = {"drop_path": 0.5, "flip": True}
    assert difference(trained(**settings), trained(**settings, accumulation=parts)) < ROUNDING


def gradients_of(monkeypatch, images, **settings):
    """Every gradient of the first step of an epoch, by name, and the model that had it."""
    attachment, seen = attached("vit"), {}

    def watch(optimizer, *arguments):
        if not seen:
            seen.update({n: p.grad.clone() for n, p in attachment.adapter.named_parameters()})

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", watch)
        train(attachment, trainer_of(attachment, images=images, **settings))
    return seen, attachment


@pytest.mark.parametrize("parts", [2, 5, 14])
def test_a_batch_in_parts_gives_the_gradients_of_a_whole_one(monkeypatch, parts):
    whole, _ = gradients_of(monkeypatch, labelled(14), batch_size=14)
    in_parts, _ = gradients_of(monkeypatch, labelled(14), batch_size=14, accumulation=parts)
    assert difference(whole, in_parts) < 1e-6
    assert max(float(g.abs().max()) for g in whole.values()) > 1e-3


def test_a_short_last_batch_weighs_as_many_images_as_it_has():
    attachment = attached("vit")
    trainer = trainer_of(attachment, images=labelled(7), learning_rate=1e-30, weight_decay=0, **PLAIN)
    _, row = train(attachment, trainer)
    with torch.no_grad():
        logits = trainer.model(normalise(labelled(7).images, trainer.description, torch.device("cpu")))
    assert row["loss"] == pytest.approx(float(F.cross_entropy(logits, labelled(7).labels)), rel=1e-5)


def test_a_short_batch_has_gradients_of_the_mean_over_its_images(monkeypatch):
    images = labelled(2)
    got, attachment = gradients_of(monkeypatch, images, batch_size=6, **PLAIN)
    attachment.model.zero_grad()
    inputs = normalise(images.images, trainer_of(attachment).description, torch.device("cpu"))
    F.cross_entropy(attachment.model(inputs), images.labels).backward()
    assert difference({n: p.grad for n, p in attachment.adapter.named_parameters()}, got) < 1e-6


def test_label_smoothing_is_torchs():
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 1])
    want = F.cross_entropy(logits, labels, label_smoothing=0.2)
    assert torch.allclose(image_loss(logits, labels, None, 0.2).mean(), want)
    trainer = trainer_of(attached("vit"), label_smoothing=0.2)
    assert torch.allclose(trainer.loss(logits, labels).mean(), want)


def test_class_weights_are_the_inverse_of_the_class_frequency():
    images = LabelledImages(labelled(8).images, torch.tensor([0, 0, 0, 0, 0, 1, 1, 2]))
    trainer = trainer_of(attached("vit"), images=images, class_weights=True, label_smoothing=0.0)
    logits = torch.zeros(3, CLASSES)
    losses = trainer.loss(logits, torch.tensor([0, 1, 2]))
    assert torch.allclose(losses / losses[2], torch.tensor([1 / 5, 1 / 2, 1.0]))
    present = trainer.loss(torch.zeros(8, CLASSES), images.labels) / torch.log(torch.tensor(float(CLASSES)))
    assert torch.allclose(present.sum(), torch.tensor(8 * 3 / CLASSES))


def test_frozen_groups_do_not_move_and_the_others_do():
    attachment = attached("vit")
    before = {name: p.detach().clone() for name, p in attachment.adapter.named_parameters()}
    others = {n: t.clone() for n, t in attachment.backbone.model.state_dict().items()}
    after, _ = train(attachment, trainer_of(attachment, tune_norms="frozen", tune_head="frozen"))
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name]) == (not name.startswith("sites.")), name
    assert all(torch.equal(t, others[n]) for n, t in attachment.backbone.model.state_dict().items())
    assert all(p.requires_grad for p in attachment.adapter.parameters())


def test_clipping_bounds_the_gradient_of_everything_together(monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def watch(optimizer, *arguments):
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(float(torch.stack([g.norm() for g in gradients]).norm()))
        return step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", watch)
    trained(gradient_clip=0.0)
    assert min(norms) > 0.02
    norms.clear()
    trained(gradient_clip=0.01)
    assert norms and max(norms) <= 0.01 * 1.001


def test_drop_path_changes_what_is_learnt():
    assert difference(trained(drop_path=0.0), trained(drop_path=0.5)) > 1e-3


def test_the_model_is_left_in_eval_mode_even_after_an_error():
    attachment = attached("vit")
    trainer = trainer_of(attachment, learning_rate=10.0)
    train(attachment, trainer)
    assert not attachment.model.training
    attachment.model.forward_features = lambda x, **_: (_ for _ in ()).throw(KeyError("x"))
    with pytest.raises(KeyError):
        train(attachment, trainer)
    assert not any(m.training for m in attachment.model.modules())
    assert all(p.requires_grad for p in attachment.adapter.parameters())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_advice(bad):
    attachment = attached("vit")
    with torch.no_grad():
        attachment.adapter.get_submodule("head").bias.fill_(bad)
    with pytest.raises(
        DivergedError, match=r"loss of (nan|inf) at learning rate 0\.03.*--learning-rate 0\.01"
    ) as caught:
        train(attachment, trainer_of(attachment, learning_rate=0.03))
    assert "--gradient-clip" in str(caught.value) and "--precision fp32" in str(caught.value)


def run_out_of_memory(monkeypatch, model, largest, error):
    """Let the model refuse batches of more than `largest` images; returns the sizes it saw."""
    sizes, forward = [], model.forward_features

    def limited(x, **arguments):
        sizes.append(len(x))
        if len(x) > largest:
            raise error
        return forward(x, **arguments)

    monkeypatch.setattr(model, "forward_features", limited)
    return sizes


MEMORY_ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes."),
    MemoryError(),
    RuntimeError("std::bad_alloc"),
]


@pytest.mark.parametrize("error", MEMORY_ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("largest", [3, 2, 1])
def test_a_batch_too_large_for_the_memory_is_computed_in_parts_with_the_same_result(monkeypatch, error, largest):
    attachment, reporter = attached("vit"), said()
    trainer = trainer_of(attachment, reporter=reporter)
    sizes = run_out_of_memory(monkeypatch, attachment.model, largest, error)
    result, _ = train(attachment, trainer)
    assert difference(result, trained()) < ROUNDING
    assert sizes[0] == 6 and max(sizes[-4:]) <= largest
    lines = [line for line in reporter.console.file.getvalue().splitlines() if "memory" in line]
    assert f"{trainer.accumulation} parts" in lines[-1] and "same effective batch" in lines[-1]
    assert len(lines) <= 3


def test_a_batch_split_for_want_of_memory_draws_as_one_that_was_split_beforehand(monkeypatch):
    attachment = attached("vit")
    trainer = trainer_of(attachment, drop_path=0.5, flip=True)
    run_out_of_memory(monkeypatch, attachment.model, 3, MEMORY_ERRORS[2])
    assert difference(train(attachment, trainer)[0], trained(accumulation=2, drop_path=0.5, flip=True)) == 0


@pytest.mark.parametrize("images", [1, 2, 3, 6])
def test_running_out_of_memory_at_one_image_is_the_end(monkeypatch, images):
    attachment = attached("vit")
    sizes = run_out_of_memory(monkeypatch, attachment.model, 0, MEMORY_ERRORS[1])
    with pytest.raises(TrainingError, match="memory ran out with one image") as caught:
        train(attachment, trainer_of(attachment, images=labelled(images)))
    assert sizes[-1] == 1
    assert "--image-size" in str(caught.value)


def test_other_errors_of_the_model_are_not_taken_for_lack_of_memory(monkeypatch):
    attachment = attached("vit")
    run_out_of_memory(monkeypatch, attachment.model, 3, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot"):
        train(attachment, trainer_of(attachment))


@pytest.mark.parametrize("parts", [1, 3])
def test_a_probe_changes_nothing(parts):
    attachment = attached("vit")
    trainer = trainer_of(attachment, accumulation=parts)
    before = {n: t.clone() for n, t in attachment.model.state_dict().items()}
    loss = trainer.probe(stages_of(trainer.recipe)[1].groups(attachment, 0.0), trainer.precision)
    assert loss > 0 and not attachment.model.training
    assert all(torch.equal(t, before[n]) for n, t in attachment.model.state_dict().items())
    assert all(p.grad is None for p in attachment.model.parameters())


def test_probes_share_a_batch_that_is_decoded_once(monkeypatch):
    """So that what they measure is the step."""
    attachment, asked, batches = attached("vit"), [], LabelledImages.batches
    trainer = trainer_of(attachment)
    monkeypatch.setattr(LabelledImages, "batches", lambda *a, **k: asked.append(1) or batches(*a, **k))
    losses = {trainer.probe(stages_of(trainer.recipe)[1].groups(attachment, 0.0), trainer.precision) for _ in range(3)}
    assert len(losses) == len(asked) == 1


def test_on_cuda_a_compiler_of_c_is_needed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    devices = [torch.device(name) for name in ("cpu", "cuda", "mps")]
    assert [compiler_found(device) for device in devices] == [False, False, False]
    (tmp_path / "gcc").touch(0o755)
    assert [compiler_found(device) for device in devices] == [False, True, False]
    (tmp_path / "g++").touch(0o755)
    assert [compiler_found(device) for device in devices] == [True, True, False]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    augmented = {"flip": True, "crop": True, "drop_path": 0.2}
    assert difference(trained(**augmented), trained(**augmented)) == 0
    assert difference(trained(**augmented), trained(**augmented, seed=1)) > 1e-4


def test_going_on_after_an_epoch_gives_the_bits_of_training_on():
    whole = attached("vit")
    want, _ = train(whole, trainer_of(whole, tune_epochs=3, flip=True))
    part = attached("vit")
    trainer, kept = trainer_of(part, tune_epochs=3, flip=True), {}
    stage = stages_of(trainer.recipe)[1]

    class StopError(Exception):
        pass

    def stop(done, row, tensors):
        kept.update(done=done, state={k: v.clone() for k, v in tensors.items()}, adapter=part.adapter.state_dict())
        raise StopError

    with pytest.raises(StopError):
        trainer.train(stage.name, stage.groups(part, trainer.recipe.weight_decay), 3, after_epoch=stop)
    again = attached("vit")
    again.adapter.load_state_dict(kept["adapter"])
    got, _ = train(again, trainer_of(again, tune_epochs=3, flip=True), done=kept["done"], optimizer_state=kept["state"])
    assert difference(got, want) == 0


def test_normalising_is_torchvisions():
    from torchvision.transforms.v2.functional import normalize, to_dtype

    images, description = labelled().images, InputDescription(32, 32, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    want = normalize(to_dtype(images, torch.float32, scale=True), list(description.mean), list(description.std))
    assert torch.allclose(normalise(images, description, torch.device("cpu")), want, atol=1e-6)


def test_the_history_row_names_every_group_with_its_last_rate():
    attachment = attached("vit")
    _, row = train(attachment, trainer_of(attachment))
    assert row["stage"] == "tune" and row["epoch"] == 1 and set(row["learning_rates"]) == {"channels", "norms", "head"}
    assert 0 < row["learning_rates"]["head"] < 5e-3
    assert 0 <= row["accuracy"] <= 1 and row["images_per_second"] > 0 and row["seconds"] > 0


def step_of(monkeypatch, compiled):
    """Loss and gradients of one step of tuning, and how often the model was compiled."""
    gradients, compilations = [], []
    step, compile_model = Optimizer.step, torch.compile

    def watched_step(self, clip):
        gradients.extend(gradient.clone() for gradient in self.gradients())
        step(self, clip)

    def watched_compile(model):
        compilations.append(model)
        return compile_model(model)

    attachment = attached("vit")
    trainer = trainer_of(attachment, labelled(6), drop_path=0.3)
    trainer.compile = compiled
    with monkeypatch.context() as patch:
        patch.setattr(Optimizer, "step", watched_step)
        patch.setattr(torch, "compile", watched_compile)
        _, row = train(attachment, trainer)
    return row["loss"], gradients, len(compilations)


@pytest.mark.slow
@pytest.mark.skipif(not compiler_found(torch.device("cpu")), reason="needs a C++ compiler")
def test_a_compiled_step_has_the_loss_and_the_gradients_of_a_plain_one(monkeypatch):
    loss, gradients, compilations = step_of(monkeypatch, compiled=True)
    plain_loss, plain, never = step_of(monkeypatch, compiled=False)
    assert (compilations, never) == (1, 0) and loss == pytest.approx(plain_loss, rel=1e-4)
    assert max(gradient.abs().max() for gradient in plain) > 1e-2
    for ours, theirs in zip(gradients, plain, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)
