"""Features of frozen layers are computed once, and the head that is trained on them is the one it would have been."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.bench.runs import outputs, prepared

from models import tiny
from ttctune.bench.features import trainer_on_features
from ttctune.bench.methods import METHODS
from ttctune.bench.methods.linear import linear
from ttctune.bench.methods.stages import fit, head_group
from ttctune.errors import FolderError
from ttctune.run import Run
from ttctune.training.stage import Group

BATCHES = 2


def uncached(**settings: object) -> Run:
    """The linear probe by the run's own trainer, the backbone running in every epoch."""
    run = prepared("linear", epochs=5, **settings)
    recipe = run.recipe
    fit(run, "head", [Group("head", head_group(run).parameters, recipe.learning_rate, recipe.weight_decay)], 5)
    return run


class Passes:
    """How often the first block of a run's model has run."""

    def __init__(self, run: Run) -> None:
        self.count = 0
        run.attachment.model.get_submodule("blocks.0").register_forward_hook(self._see)

    def _see(self, *_: object) -> None:
        self.count += 1


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_linear_probe_on_features_is_the_one_without(tmp_path: Path, precision: str, folder: bool) -> None:
    run = prepared("linear", epochs=5, precision=precision)
    assert linear(run, tmp_path if folder else None) == 0
    plain = uncached(precision=precision)
    for mine, own in zip(run.attachment.heads.values(), plain.attachment.heads.values(), strict=True):
        torch.testing.assert_close(mine.weight, own.weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs(run), outputs(plain), rtol=1e-4, atol=1e-4)
    for row, expected in zip(run.state.history, plain.state.history, strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert row["accuracy"] == expected["accuracy"]


def test_the_backbone_runs_once_and_from_then_on_never(tmp_path: Path) -> None:
    first = prepared("linear", epochs=5, val_fraction=0.0)
    passes = Passes(first)
    METHODS["linear"].with_features(tmp_path).train(first)
    assert passes.count == BATCHES + 2  # and one batch in training and in evaluation, to see that they agree
    again = prepared("linear", epochs=5, val_fraction=0.0, learning_rate=3e-2, seed=1)
    passes = Passes(again)
    METHODS["linear"].with_features(tmp_path).train(again)
    assert passes.count == 2
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"flip": True}, "flip changes them"),
        ({"flip": True, "crop": True}, "flip and crop change them"),
        ({"drop_path": 0.1}, "drop_path changes them"),
    ],
)
def test_what_differs_from_epoch_to_epoch_is_not_cached(
    settings: dict[str, object], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = prepared("linear", epochs=3, **settings)
    run.trainer.reporter.quiet = False
    passes = Passes(run)
    METHODS["linear"].train(run)
    assert passes.count == 3 * BATCHES
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: tiny("deit_distilled"), id="two heads"),
        pytest.param(lambda: tiny("vit", drop_rate=0.5), id="dropout before the head"),
        pytest.param(lambda: tiny("swin"), id="stochastic depth of its own"),
        pytest.param(lambda: tiny("vit", pos_drop_rate=0.5), id="dropout at the start"),
    ],
)
def test_a_model_that_does_more_than_to_feed_one_head_is_trained_whole(model) -> None:
    run = prepared("linear", model())
    assert trainer_on_features(run) is run.trainer


@pytest.mark.parametrize("family", ["vit_siglip", "hiera", "convnext_conv", "eva"])
def test_features_of_other_families_feed_their_heads(family: str) -> None:
    run = prepared("linear", family)
    trainer = trainer_on_features(run)
    assert trainer is not run.trainer
    logits = trainer.model(trainer.images.values)
    torch.testing.assert_close(logits.detach(), outputs(run), rtol=1e-4, atol=1e-4)


def test_other_images_another_size_or_another_backbone_are_other_features(tmp_path: Path) -> None:
    for run in (
        prepared("linear"),
        prepared("linear", val_fraction=0.0),
        prepared("linear", image_size=40),
        prepared("linear", tiny("vit", seed=1)),
        prepared("linear", precision="bf16", batch_size=5),
    ):
        trainer_on_features(run, tmp_path)
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("content", [b"", b"rubbish", "half"])
def test_a_damaged_file_is_computed_again(tmp_path: Path, content: bytes | str) -> None:
    expected = trainer_on_features(prepared("linear"), tmp_path).images.values.clone()  # its file is about to shrink
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    again = trainer_on_features(prepared("linear"), tmp_path).images.values
    assert torch.equal(again, expected)
    assert file.read_bytes() == whole


def test_the_least_recently_used_give_way_when_the_folder_is_full(tmp_path: Path, monkeypatch) -> None:
    old, used = tmp_path / "features-old.npy", tmp_path / "features-used.npy"
    other = tmp_path / "somebody-elses.npy"
    for age, file in ((300, old), (200, used), (900, other)):
        np.save(file, np.zeros(2**17, np.float32))  # half a MB
        os.utime(file, (file.stat().st_mtime - age,) * 2)
    trainer_on_features(prepared("linear", cache_mb=1), tmp_path)
    assert not old.exists()
    assert used.exists() and other.exists()


def test_features_beyond_the_limit_are_not_kept(tmp_path: Path) -> None:
    run = prepared("linear", cache_mb=1)
    head = next(iter(run.attachment.heads.values()))
    head.in_features = 2**17
    assert trainer_on_features(run, tmp_path) is run.trainer
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match=r"features cannot be kept in .*file"):
        trainer_on_features(prepared("linear"), tmp_path / "file" / "below")
