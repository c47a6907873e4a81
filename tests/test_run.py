"""Whole runs: from a model and images to an adapted model, interrupted or not."""

import json
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from tests.images.pictures import write_image_tree
from tests.images.shards import write_as_shards
from tests.run_helpers import arrays, save_model, sha, short, snapshot, tensors_of, vit

import ttctune
from ttctune import run as run_module
from ttctune import two_stage as two_stage_module
from ttctune.errors import BackboneError, DataError, FolderError, RecipeError, ScoreError, TrainingError, TtcError
from ttctune.output_folder import CHECKPOINT, state_of
from ttctune.plan import plan
from ttctune.recipe import IMPORTANCES
from ttctune.training.checkpoint import Checkpoint
from ttctune.training.progress import Reporter

FINISHED = {
    "README.md",
    "adapter.json",
    "adapter.safetensors",
    "history.jsonl",
    "importance.safetensors",
    "recipe.toml",
}


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    """The name of a tiny local model."""
    return save_model(tmp_path_factory.mktemp("model") / "vit")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A folder with three classes of six images."""
    return write_image_tree(tmp_path_factory.mktemp("images") / "tree", 3, 6)


def adapt(*arguments, **settings):
    return ttctune.adapt(*arguments, quiet=True, **settings)


class Dataset(torch.utils.data.Dataset):
    classes = ("red", "green", "blue")

    def __init__(self):
        self.pictures, self.labels = arrays()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return Image.fromarray(self.pictures[index]), int(self.labels[index])


SOURCES = {
    "arrays": arrays,
    "list of pictures": lambda: ([Image.fromarray(p) for p in arrays()[0]], arrays()[1].tolist()),
    "tensors": lambda: (torch.from_numpy(arrays()[0]).permute(0, 3, 1, 2), torch.from_numpy(arrays()[1])),
    "data set": Dataset,
    "parts": lambda: {"train": arrays(), "val": arrays(2, seed=9)},
    "parts of data sets": lambda: {"train": Dataset(), "val": Dataset()},
    "grey arrays": lambda: (arrays()[0][..., 0], arrays()[1]),
    "names as labels": lambda: (arrays()[0], [("red", "green", "blue")[i] for i in arrays()[1]]),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_any_kind_of_data_gives_an_adapted_model(name, source):
    adapted = adapt(name, source(), short())
    assert len(adapted.classes) == 3 and 0 <= adapted.metrics["accuracy"] <= 1
    assert [row["stage"] for row in adapted.history] == ["align", "tune"]
    assert set(adapted.selection) == {"0.attn", "0.mlp", "1.attn", "1.mlp"}
    assert all(len(channels) == 4 for channels in adapted.selection.values())


def test_a_folder_gives_a_finished_output_folder(name, tree, tmp_path):
    adapted = adapt(name, tree, short(), out=tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == FINISHED
    assert adapted.classes == ("class0", "class1", "class2") and adapted.metrics["images"] == 3
    again = ttctune.load(tmp_path / "out")
    files = sorted(tree.rglob("*.png"))
    assert np.array_equal(again.predict(files), adapted.predict(files))
    assert again.evaluate(tree).accuracy == adapted.metrics["accuracy"]
    assert again.evaluate(tree).part == "held-out val"


def test_training_learns_colours(name):
    adapted = adapt(name, {"train": arrays(12), "val": arrays(6, seed=4)}, short(tune_epochs=6))
    assert adapted.metrics["accuracy"] >= 0.9
    assert adapted.evaluate(arrays(6, seed=8)).accuracy >= 0.9


@pytest.mark.parametrize("count", [1, 3])
def test_probabilities_are_float32_rows_that_sum_to_one(name, tree, count):
    adapted = adapt(name, arrays(), short())
    files = sorted(tree.rglob("*.png"))[:count]
    pictures = [Image.open(f) for f in files]
    outputs = [adapted.predict(files), adapted.predict([str(f) for f in files]), adapted.predict(pictures)]
    for probabilities in outputs:
        assert probabilities.dtype == np.float32 and probabilities.shape == (count, 3)
        assert np.allclose(probabilities.sum(1), 1, atol=1e-6) and (probabilities >= 0).all()
        assert np.array_equal(probabilities, outputs[0])
    assert adapted.predict(files[0]).shape == (1, 3) and adapted.predict([]).shape == (0, 3)


def test_predictions_do_not_depend_on_the_batch(name):
    adapted = adapt(name, arrays(), short())
    pictures = arrays(30, seed=2)[0]
    together = adapted.predict(pictures)
    assert together.shape == (90, 3)
    assert np.allclose(together[70], adapted.predict(pictures[70])[0], atol=1e-6)


def test_arrays_are_read_as_in_training(name):
    """A stack of grey pictures has a row for each of them, whether it is predicted or trained on."""
    grey = arrays(12)[0][..., 0]
    adapted = adapt(name, (grey, arrays(12)[1]), short())
    together = adapted.predict(grey)
    assert np.array_equal(together, adapted.predict(list(grey))) and len(together) == 36
    assert np.allclose(adapted.predict(torch.from_numpy(grey[:1])), together[:1], atol=1e-6)
    for one in (grey[0], np.repeat(grey[0][..., None], 3, -1)):
        assert np.allclose(adapted.predict(one), together[:1], atol=1e-6)
    with pytest.raises(DataError, match=r"one picture C x H x W or 3 grey ones; expected N x C x H x W"):
        adapted.predict(grey[:3])
    assert adapted.predict(grey[:3][..., None]).shape == (3, 3) and adapted.predict(grey[:3][None]).shape == (1, 3)


@pytest.mark.parametrize("precision", ["bogus", "auto", None])
def test_a_precision_that_is_none_is_refused_in_python_too(name, precision):
    with pytest.raises(RecipeError, match=r"precision = .*; expected fp32, bf16, fp16"):
        adapt(name, arrays(), short(tune_epochs=0)).predict(arrays(1)[0], precision=precision)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"recipe": {"seed": 1}}, "a recipe of type dict; expected a ttctune.Recipe"),
        ({"recipe": {}}, "a recipe of type dict"),
        ({"threads": "2"}, "threads = '2'"),
        ({"threads": 10**12}, "threads = 1000000000000"),
        ({"workers": "2"}, "threads '2'"),
        ({"device": None}, "device None"),
    ],
)
def test_an_argument_of_another_kind_is_one_line(name, tree, tmp_path, arguments, said):
    for call in (partial(ttctune.adapt, out=tmp_path / "x"), plan):
        with pytest.raises(TtcError, match=said):
            call(name, tree, **{"quiet": True} | arguments)
    assert not list(tmp_path.iterdir())


def test_the_backbone_handed_over_is_unchanged(tmp_path):
    model = vit().train()
    before, keys = snapshot(model), set(vars(model))
    modes = [m.training for m in model.modules()]
    gradients = [p.requires_grad for p in model.parameters()]
    adapted = adapt(model, arrays(), short(drop_path=0.2, precision="bf16"), out=tmp_path / "x")
    assert adapted.backbone is model
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items()) and len(before) == len(snapshot(model))
    assert [m.training for m in model.modules()] == modes and set(vars(model)) == keys
    assert [p.requires_grad for p in model.parameters()] == gradients
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_module_adapted_and_loaded_again_gives_equal_outputs(tmp_path, dtype):
    model = vit().to(dtype)
    adapted = adapt(model, arrays(), short(), out=tmp_path / "x")
    again = ttctune.load(tmp_path / "x", model=model)
    pictures = arrays(3, seed=6)[0]
    assert np.array_equal(again.predict(pictures), adapted.predict(pictures))
    assert np.allclose(again.merge()(torch.randn(2, 3, 32, 32)).shape, (2, 3))


def test_the_merged_model_gives_equal_outputs(name):
    adapted = adapt(name, arrays(), short(tune_epochs=3))
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(adapted.merge()(x), adapted.model(x), atol=1e-4)
        assert not torch.allclose(adapted.model(x)[0], adapted.model(x)[1], atol=1e-2)


def test_the_same_run_twice_gives_the_same_bytes(name, tree, tmp_path):
    for out in ("one", "two"):
        adapt(name, tree, short(flip=True, drop_path=0.1), out=tmp_path / out)
    assert sha(tmp_path / "one" / "adapter.safetensors") == sha(tmp_path / "two" / "adapter.safetensors")
    adapt(name, tree, short(flip=True, drop_path=0.1, seed=1), out=tmp_path / "three")
    assert sha(tmp_path / "one" / "adapter.safetensors") != sha(tmp_path / "three" / "adapter.safetensors")


@pytest.mark.parametrize("kind", ["folder tree", "index.csv", "shards"])
def test_streamed_images_give_the_same_bytes_as_kept_ones(name, tree, tmp_path, kind):
    data = tree
    if kind == "index.csv":
        data = tmp_path / "listed"
        shutil.copytree(tree, data)
        rows = [f"{f.relative_to(data)},train,{f.parent.name[-1]},{f.parent.name}" for f in sorted(data.rglob("*.png"))]
        (data / "index.csv").write_text("\n".join(["file,split,label,class", *rows]))
    if kind == "shards":
        data = write_as_shards(tree, tmp_path / "shards")
    settings = {"flip": True, "drop_path": 0.1, "align_epochs": 1, "tune_epochs": 2}
    adapt(name, tree, short(**settings), out=tmp_path / "kept")
    adapted = adapt(name, data, short(**settings, streaming=True), out=tmp_path / "streamed", workers=2)
    assert sha(tmp_path / "kept" / "adapter.safetensors") == sha(tmp_path / "streamed" / "adapter.safetensors")
    again = ttctune.load(tmp_path / "streamed").evaluate(data, workers=1)
    assert (again.part, again.accuracy) == ("held-out val", adapted.metrics["accuracy"])
    assert ttctune.load(tmp_path / "kept").evaluate(data).part == "held-out val"


def test_a_streamed_run_that_was_interrupted_notices_changed_images(name, tmp_path, monkeypatch):
    tree, recipe = write_image_tree(tmp_path / "tree", 3, 6), short(streaming=True)
    adapt(name, tree, recipe, out=tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        interrupt_at_write(patch, 1, after=True)
        adapt(name, tree, recipe, out=tmp_path / "x")
    (tree / "class0").rename(tmp_path / "class0")
    shutil.copytree(tree / "class1", tree / "class0")
    with pytest.raises(FolderError, match="images that changed"):
        adapt(name, tree, recipe, out=tmp_path / "x", resume=True)
    shutil.rmtree(tree / "class0")
    (tmp_path / "class0").rename(tree / "class0")
    adapt(name, tree, recipe, out=tmp_path / "x", resume=True)
    assert sha(tmp_path / "x" / "adapter.safetensors") == sha(tmp_path / "whole" / "adapter.safetensors")


class KilledError(BaseException):
    """As when a process ends."""


def interrupt_at_write(monkeypatch, number, after):
    """End the run at the `number`-th checkpoint, before or after it is written; returns how many came."""
    count, write = [0], Checkpoint.write

    def killing(self, folder):
        count[0] += 1
        if count[0] == number and not after:
            raise KilledError
        write(self, folder)
        if count[0] == number:
            raise KilledError

    monkeypatch.setattr(Checkpoint, "write", killing)
    return count


LONG = {"align_epochs": 1, "tune_epochs": 2}
MIXES = {
    "plain": {},
    "bf16, drop path, augmentation": {
        "precision": "bf16", "drop_path": 0.2, "flip": True, "crop": True, "randaugment": 5,
        "accumulation": 2, "gradient_clip": 1.0, "class_weights": True,
    },
    "rows": {"form": "rows", "tune_norms": "slower", "adapter_dtype": "float16"},
    "without alignment": {"align_epochs": 0},
}  # fmt: skip


@pytest.mark.parametrize(
    "mix",
    [
        pytest.param(mix, id=name, marks=pytest.mark.slow if i != 1 else ())
        for i, (name, mix) in enumerate(MIXES.items())
    ],
)
def test_a_run_interrupted_anywhere_ends_in_the_bytes_of_one_that_was_not(name, tree, tmp_path, monkeypatch, mix):
    recipe = short(**(LONG | mix))
    with monkeypatch.context() as patch:
        count = interrupt_at_write(patch, 0, after=True)
        adapt(name, tree, recipe, out=tmp_path / "whole")
    want = sha(tmp_path / "whole" / "adapter.safetensors")
    writes = count[0]
    assert writes == 1 + max(recipe.align_epochs, 1) + 1 + recipe.tune_epochs
    for number in range(1, writes + 1):
        for after in (False, True) if number == 1 else (True,):
            out = tmp_path / f"{number}{after}"
            with monkeypatch.context() as patch, pytest.raises(KilledError):
                interrupt_at_write(patch, number, after)
                adapt(name, tree, recipe, out=out)
            assert state_of(out) == "unfinished"
            adapted = adapt(name, tree, recipe, out=out, resume=True)
            assert sha(out / "adapter.safetensors") == want, (number, after)
            assert {p.name for p in out.iterdir()} == FINISHED
            rows = [(row["stage"], row["epoch"]) for row in adapted.history]
            first = "align" if recipe.align_epochs else "head"
            assert rows == [(first, i + 1) for i in range(max(recipe.align_epochs, 1))] + [("tune", 1), ("tune", 2)]


@pytest.mark.parametrize("place", ["prepare", "settle", "score", "first step", "measured", "writing", "finish"])
def test_a_run_killed_between_checkpoints_ends_in_the_same_bytes(name, tree, tmp_path, monkeypatch, place):
    adapt(name, tree, short(), out=tmp_path / "whole")

    def killed(*_, **__):
        raise KilledError

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        match place:
            case "score":
                patch.setattr(two_stage_module, "score", killed)
            case "first step":
                patch.setattr(Reporter, "step", killed)
            case "writing":
                patch.setattr("ttctune.adapter_folder.write", killed)
            case "measured":
                patch.setattr(run_module, "_measured", killed)
            case _:
                patch.setattr(run_module, place, killed)
        adapt(name, tree, short(), out=tmp_path / "x")
    assert state_of(tmp_path / "x") == "unfinished"
    adapt(name, tree, short(), out=tmp_path / "x", resume=True)
    assert sha(tmp_path / "x" / "adapter.safetensors") == sha(tmp_path / "whole" / "adapter.safetensors")
    assert {p.name for p in (tmp_path / "x").iterdir()} == FINISHED


@pytest.mark.parametrize("stop", ["in the first epoch", "after it"])
def test_an_automatic_precision_is_kept_when_a_run_goes_on(name, tree, tmp_path, monkeypatch, stop):
    from ttctune.training.precision import Precision

    def killed(*_, **__):
        raise KilledError

    recipe = short(precision="auto")
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(run_module, "measure", lambda *_: Precision("bf16", False, "measured"))
        if stop == "in the first epoch":
            patch.setattr(Reporter, "step", killed)
        else:
            interrupt_at_write(patch, 2, after=True)
        adapt(name, tree, recipe, out=tmp_path / "x")
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "measure", lambda *_: pytest.fail("measured again"))
        adapted = adapt(name, tree, recipe, out=tmp_path / "x", resume=True)
    assert (adapted.settled["precision"], adapted.settled["fused_attention"]) == ("bf16", False)
    adapt(name, tree, short(precision="bf16"), out=tmp_path / "whole")
    assert sha(tmp_path / "x" / "adapter.safetensors") == sha(tmp_path / "whole" / "adapter.safetensors")


@pytest.fixture
def unfinished(name, tree, tmp_path, monkeypatch):
    """A run stopped after its first epoch."""
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        interrupt_at_write(patch, 2, after=True)
        adapt(name, tree, short(), out=tmp_path / "x")
    return tmp_path / "x"


@pytest.mark.parametrize("setting", [{"seed": 1}, {"learning_rate": 0.02}, {"tune_epochs": 2}, {"channels": 4}])
def test_going_on_with_other_settings_is_refused_with_old_and_new_value(name, tree, unfinished, setting):
    key, value = next(iter(setting.items()))
    with pytest.raises(FolderError, match=rf"{key} = {value}; expected {getattr(short(), key)}"):
        adapt(name, tree, short(**setting), out=unfinished, resume=True)
    assert state_of(unfinished) == "unfinished"


def test_going_on_with_another_model_is_refused(tree, unfinished, tmp_path):
    other = save_model(tmp_path / "other")
    with pytest.raises(FolderError, match="give that model"):
        adapt(other, tree, short(), out=unfinished, resume=True)


def test_going_on_with_other_weights_is_refused(name, tree, unfinished, tmp_path):
    save_model(tmp_path / "other", vit(seed=1))
    with pytest.raises(FolderError, match="weights of the model that changed"):
        adapt(name, tree, short(), weights=tmp_path / "other" / "model.safetensors", out=unfinished, resume=True)
    assert state_of(unfinished) == "unfinished"


def test_going_on_with_changed_images_is_refused(name, unfinished, tmp_path):
    other = write_image_tree(tmp_path / "tree", 3, 6, seed=1)
    with pytest.raises(FolderError, match="images that changed"):
        adapt(name, other, short(), out=unfinished, resume=True)
    assert state_of(unfinished) == "unfinished"


def test_an_unfinished_run_is_not_started_again_by_mistake(name, tree, unfinished):
    with pytest.raises(FolderError, match="--resume"):
        adapt(name, tree, short(), out=unfinished)


def test_an_unfinished_run_can_be_replaced_by_another(name, tree, unfinished):
    adapt(name, tree, short(seed=1), out=unfinished, overwrite=True)
    assert {p.name for p in unfinished.iterdir()} == FINISHED
    assert [p.name for p in unfinished.parent.iterdir()] == ["x"]


def test_overwriting_keeps_the_old_adapter_until_the_new_one_is_done(name, tree, tmp_path, monkeypatch):
    out = tmp_path / "x"
    adapt(name, tree, short(), out=out)
    old = sha(out / "adapter.safetensors")
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        interrupt_at_write(patch, 2, after=True)
        adapt(name, tree, short(seed=1), out=out, overwrite=True)
    assert sha(out / "adapter.safetensors") == old and ttctune.load(out).recipe.seed == 0
    adapt(name, tree, short(seed=1), out=out, resume=True)
    assert ttctune.load(out).recipe.seed == 1 and [p.name for p in tmp_path.iterdir()] == ["x"]
    adapt(name, tree, short(seed=1), out=tmp_path / "whole")
    assert sha(out / "adapter.safetensors") == sha(tmp_path / "whole" / "adapter.safetensors")


BAD_STARTS = {
    "unknown model": (("vit_brain", None, {}), BackboneError),
    "no images": ((None, "nowhere", {}), DataError),
    "too many channels": ((None, None, {"channels": 33}), RecipeError),
    "size that does not fit": ((None, None, {"image_size": 33}), BackboneError),
}


@pytest.mark.parametrize("existed", [False, True])
@pytest.mark.parametrize(("bad", "error"), BAD_STARTS.values(), ids=BAD_STARTS.keys())
def test_a_failing_start_leaves_nothing_behind(name, tree, tmp_path, bad, error, existed):
    model, data, settings = bad
    out = tmp_path / "x"
    if existed:
        out.mkdir()
    with pytest.raises(error):
        adapt(model or name, data or tree, short(**settings), out=out)
    assert out.exists() == existed and not list(tmp_path.rglob("*.json"))
    assert not existed or not list(out.iterdir())


@pytest.mark.parametrize("read", ["data", "model"])
def test_what_a_run_reads_is_not_replaced_by_it(name, tree, tmp_path, read):
    out = tmp_path / "out"
    adapt(name, tree, short(), out=out)
    (images := out / "images").mkdir()
    arguments = {"data": (name, images), "model": (f"local-dir:{out}", tree)}[read]
    with pytest.raises(FolderError, match="which is read"):
        adapt(*arguments, short(), out=out, overwrite=True)
    assert images.is_dir() and (out / "adapter.json").is_file()


def test_a_failing_overwrite_leaves_the_old_adapter_alone(name, tree, tmp_path):
    adapt(name, tree, short(), out=tmp_path / "x")
    old = sha(tmp_path / "x" / "adapter.safetensors")
    with pytest.raises(RecipeError):
        adapt(name, tree, short(channels=33), out=tmp_path / "x", overwrite=True)
    assert sha(tmp_path / "x" / "adapter.safetensors") == old and [p.name for p in tmp_path.iterdir()] == ["x"]


def test_an_error_before_the_first_checkpoint_leaves_nothing_and_a_later_one_a_resumable_run(
    name, tree, tmp_path, monkeypatch
):
    def broken(*_, **__):
        raise TrainingError("a loss of nan", "a finite loss", "try less")

    with monkeypatch.context() as patch, pytest.raises(TrainingError):
        patch.setattr(Reporter, "step", broken)
        adapt(name, tree, short(), out=tmp_path / "x")
    assert not (tmp_path / "x").exists()
    with monkeypatch.context() as patch, pytest.raises(TrainingError):
        patch.setattr(two_stage_module, "score", broken)
        adapt(name, tree, short(), out=tmp_path / "x")
    assert state_of(tmp_path / "x") == "unfinished"
    adapt(name, tree, short(), out=tmp_path / "x", resume=True)


def test_a_full_disk_while_training_is_one_clear_error_and_leaves_a_resumable_run(name, tree, tmp_path, monkeypatch):
    import os

    replace, count = os.replace, [0]

    def full(source, target):
        count[0] += "state" in str(target)
        if count[0] == 3:
            raise OSError(28, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(FolderError, match="no space left on device"):
        patch.setattr(os, "replace", full)
        adapt(name, tree, short(), out=tmp_path / "x")
    assert not list(tmp_path.rglob("*.part"))
    adapt(name, tree, short(), out=tmp_path / "x", resume=True)
    adapt(name, tree, short(), out=tmp_path / "whole")
    assert sha(tmp_path / "x" / "adapter.safetensors") == sha(tmp_path / "whole" / "adapter.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("state", ["absent", "finished"])
def test_two_runs_cannot_have_one_folder(name, tree, tmp_path, state):
    out = tmp_path / "x"
    if state == "finished":
        adapt(name, tree, short(), out=out)
    program = (
        "import sys; from pathlib import Path; from ttctune.output_folder import claimed\n"
        "with claimed(Path(sys.argv[1]), resume=False, overwrite=True):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        for flags in ({}, {"overwrite": True}, {"resume": True}):
            with pytest.raises(FolderError, match="in use by another run"):
                adapt(name, tree, short(), out=out, **flags)
        process.kill()
    adapt(name, tree, short(), out=out, overwrite=True)
    assert {p.name for p in out.iterdir()} == FINISHED


def test_without_alignment_the_head_is_trained_for_one_epoch_before_scoring(name):
    adapted = adapt(name, arrays(), short(align_epochs=0))
    assert [(row["stage"], list(row["learning_rates"])) for row in adapted.history] == [
        ("head", ["head"]),
        ("tune", ["channels", "norms", "head"]),
    ]


def test_without_tuning_norms_and_head_are_the_adapter(name, tmp_path):
    adapted = adapt(name, arrays(), short(tune_epochs=0), out=tmp_path / "x")
    assert adapted.selection == {} and adapted.importance == {} and adapted.parameters["channels"] == 0
    assert {n.partition(".")[0] for n in tensors_of(tmp_path / "x")} == {"norms", "head"}
    again = ttctune.load(tmp_path / "x")
    pictures = arrays(2, seed=6)[0]
    assert np.array_equal(again.predict(pictures), adapted.predict(pictures))


@pytest.mark.parametrize("budget", [4, 50, 500])
def test_a_budget_is_spent_and_not_exceeded(name, budget):
    adapted = adapt(name, arrays(), short(budget=budget, gates=()))
    spent = adapted.parameters["channels"]
    assert 0 < spent <= budget and spent > budget - 2 * 32 - 2
    assert len({len(channels) for channels in adapted.selection.values()}) > 1 or budget < 50


def test_a_budget_below_one_channel_is_refused(name):
    with pytest.raises(RecipeError, match="at least 2"):
        adapt(name, arrays(), short(budget=1))


def test_rows_train_the_layers_own_rows(name):
    adapted = adapt(name, arrays(), short(form="rows", sites="attn", channels=5, gates=()))
    assert adapted.parameters["channels"] == 2 * 5 * 33


def test_the_stream_is_tuned_and_cannot_be_merged(name):
    adapted = adapt(name, arrays(), short(sites="stream"))
    assert set(adapted.selection) == {"0.stream", "1.stream"}
    with pytest.raises(ttctune.TtcError, match="stream"):
        adapted.merge()


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_every_reading_of_the_importance_runs(name, importance):
    adapted = adapt(name, arrays(), short(importance=importance))
    scores = adapted.importance["1.mlp"]
    assert scores.shape == (32,)
    best = scores.topk(4).indices.sort().values
    assert torch.equal(adapted.selection["1.mlp"], best)


def test_a_score_that_decides_nothing_is_refused(name):
    with pytest.raises(ScoreError):
        adapt(name, arrays(), short(tokens="patches", sites="attn"))


def test_the_precision_that_was_measured_is_recorded_and_said(name, capsys):
    adapted = ttctune.adapt(name, arrays(), short(precision="auto"))
    assert adapted.settled["precision"] in ("fp32", "bf16") and "ms" in adapted.settled["reason"]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("precision:")]
    assert len(lines) == 1


@pytest.mark.parametrize(("align", "tune", "few"), [(9, 40, True), (9, 41, False), (0, 48, True), (0, 49, False)])
def test_fewer_than_a_hundred_steps_are_few(name, align, tune, few):
    """Of two batches an epoch; without alignment there is an epoch of the head alone."""
    recipe = short(batch_size=len(arrays()[1]) // 2, align_epochs=align, tune_epochs=tune)
    run = run_module.prepare(name, {"train": arrays()}, recipe, None, torch.device("cpu"), Reporter(True), None)
    assert bool(run_module.few_steps(run)) == few


def test_a_run_of_few_steps_says_what_would_be_more(name, capsys):
    """Once, and in settings that can be copied."""
    ttctune.adapt(name, arrays(), short(batch_size=64, align_epochs=1, tune_epochs=1))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "more epochs" in line]
    assert line.startswith("2 steps in all: ") and "--align-epochs 10 --tune-epochs 90" in line


def test_quiet_prints_nothing(name, tree, tmp_path, capfd):
    adapt(name, tree, short(), out=tmp_path / "x")
    assert capfd.readouterr() == ("", "")


def test_the_record_tells_how_the_run_was_made(name, tree, tmp_path):
    adapt(name, tree, short(seed=3), out=tmp_path / "x")
    record = json.loads((tmp_path / "x" / "adapter.json").read_text())
    assert record["ttctune_format"] == 1 and record["backbone"]["name"] == name
    assert record["recipe"] == short(seed=3).model_dump(mode="json")
    assert record["data"]["train_images"] == 15 and record["data"]["val_images"] == 3
    assert record["metrics"]["part"] == "val" and record["settled"]["threads"] == torch.get_num_threads()
    card = (tmp_path / "x" / "README.md").read_text()
    assert "class0, class1, class2" in card and f"{record['metrics']['accuracy']:.1%}" in card


def test_a_plan_counts_what_a_run_would_train(name, tree, tmp_path):
    found = plan(name, tree, short(), quiet=True)
    adapted = adapt(name, tree, short())
    assert found.parameters == adapted.parameters and found.classes == 3
    assert found.images == {"train": 15, "val": 3} and found.seconds > 0 and found.memory > 1 << 20


def test_another_input_size_is_used_and_kept(name, tmp_path):
    adapted = adapt(name, arrays(), short(image_size=48), out=tmp_path / "x")
    assert (adapted.input.height, adapted.input.width) == (48, 48)
    again = ttctune.load(tmp_path / "x")
    pictures = arrays(2, seed=6)[0]
    assert np.array_equal(again.predict(pictures), adapted.predict(pictures))


def test_data_without_val_is_fine(name, tmp_path):
    adapted = adapt(name, arrays(), short(val_fraction=0), out=tmp_path / "x")
    assert adapted.metrics == {} and adapted.data["val_images"] == 0
    assert "accuracy" not in (tmp_path / "x" / "README.md").read_text()
    assert ttctune.load(tmp_path / "x").metrics == {}


def test_checkpoints_are_gone_at_the_end_and_there_while_it_runs(name, tree, tmp_path, monkeypatch):
    seen = []
    step = Reporter.step

    def watch(self, *arguments):
        seen.append((tmp_path / "x" / CHECKPOINT / "run.json").is_file())
        step(self, *arguments)

    monkeypatch.setattr(Reporter, "step", watch)
    adapt(name, tree, short(), out=tmp_path / "x")
    assert seen and all(seen) and not (tmp_path / "x" / CHECKPOINT).exists()
