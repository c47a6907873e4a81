"""A run that goes on from an earlier adapter, with more images or other classes."""

import json
import shutil

import numpy as np
import pytest
import torch
from tests.images.pictures import write_image_tree
from tests.run_helpers import arrays, save_model, sha, short, tensors_of, vit

import ttctune
from ttctune.adapter_folder import read_record
from ttctune.errors import AdapterError, BackboneError, FolderError, RecipeError
from ttctune.plan import plan
from ttctune.recipe import Recipe
from ttctune.run import adapt
from ttctune.training.checkpoint import Checkpoint

COLOURS = np.array(["blue", "green", "red"])
#: The same pictures under other names: one class gone, one new, and another order.
CHANGED = np.array(["violet", "amber", "green"])


def named(names, per_class=6, seed=0):
    pictures, labels = arrays(per_class, seed=seed)
    return pictures, names[labels]


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "vit")


@pytest.fixture(scope="module")
def old(tmp_path_factory, name):
    """A finished run on blue, green and red."""
    folder = tmp_path_factory.mktemp("runs") / "old"
    adapt(name, named(COLOURS), short(seed=3, channels=5), out=folder, quiet=True)
    return folder


def untrained(old, data, **settings):
    return adapt(None, data, Recipe(tune_epochs=0, **settings), warm_start=old, quiet=True)


@pytest.mark.parametrize("source", ["folder", "adapted model"])
def test_without_an_epoch_old_classes_have_the_old_logits_wherever_they_stand_now(old, source):
    earlier = ttctune.load(old)
    adapted = untrained(old if source == "folder" else earlier, named(CHANGED))
    assert adapted.classes == ("amber", "green", "violet") and earlier.classes == ("blue", "green", "red")
    pictures = arrays(2, seed=5)[0]
    assert torch.equal(adapted.logits(pictures)[:, 1], earlier.logits(pictures)[:, 1])
    same = untrained(old, named(COLOURS[[2, 0, 1]]))
    assert torch.equal(same.logits(pictures), earlier.logits(pictures))


def test_tensors_are_taken_over_and_rows_of_the_head_go_by_the_name_of_the_class(old):
    before, now = tensors_of(old), untrained(old, named(CHANGED)).adapter.state_dict()
    assert before.keys() == now.keys()
    for key, tensor in before.items():
        if key.startswith("head"):
            assert torch.equal(now[key][1], tensor[1])
            assert not any(torch.equal(now[key][i], row) for i in (0, 2) for row in tensor)
        else:
            assert torch.equal(now[key], tensor.to(now[key].dtype)), key


def test_rows_of_new_classes_are_drawn_by_the_seed(old):
    drawn = [untrained(old, named(CHANGED), seed=seed).adapter.state_dict()["head.weight"] for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0][0], drawn[2][0])
    assert torch.equal(drawn[0][1], drawn[2][1])


def test_the_selection_is_kept_and_only_tuning_goes_on(name, old, tmp_path, capsys):
    adapted = adapt(None, named(CHANGED), Recipe(tune_epochs=2), warm_start=old, out=tmp_path / "new")
    assert [row["stage"] for row in adapted.history] == ["tune", "tune"]
    earlier = ttctune.load(old)
    assert all(torch.equal(adapted.selection[site], earlier.selection[site]) for site in earlier.selection)
    assert all(torch.equal(adapted.importance[site], earlier.importance[site]) for site in earlier.importance)
    assert not torch.equal(adapted.adapter.state_dict()["sites.0.attn.map"], tensors_of(old)["sites.0.attn.map"])
    assert adapted.recipe.seed == 3 and adapted.recipe.channels == 5 and adapted.recipe.batch_size == 6
    said = capsys.readouterr().err
    assert "warm start from old: 1 classes taken over, 2 new, 2 dropped (blue, red); selection kept" in said
    assert "scoring" not in said
    record = json.loads((tmp_path / "new" / "adapter.json").read_text())
    start = record["settled"]["warm_start"]
    assert start["folder"] == "old" and start["sha256"] == sha(old / "adapter.safetensors")
    assert str(old.parent) not in json.dumps(record) and record["backbone"]["name"] == name


def test_six_epochs_of_tuning_are_the_default(old):
    assert [row["stage"] for row in adapt(None, named(COLOURS), warm_start=old, quiet=True).history] == ["tune"] * 6


def test_with_alignment_norms_and_head_go_on_and_channels_are_selected_anew(old, capsys):
    recipe = Recipe(align_epochs=1, tune_epochs=1, channels=4, sites="mlp", form="rows")
    adapted = adapt(None, named(COLOURS), recipe, warm_start=old)
    assert [row["stage"] for row in adapted.history] == ["align", "tune"]
    assert set(adapted.selection) == {"0.mlp", "1.mlp"} and len(adapted.selection["0.mlp"]) == 4
    said = capsys.readouterr().err
    assert "channels selected anew" in said and "scoring 64 channels" in said
    state = adapt(None, named(COLOURS), Recipe(align_epochs=1, tune_epochs=0, learning_rate=1e-9), warm_start=old)
    before = tensors_of(old)
    for key, tensor in state.adapter.state_dict().items():
        assert torch.allclose(tensor, before[key], atol=1e-6), key


def test_an_adapter_without_channels_gets_them_now(name, tmp_path):
    adapt(name, named(COLOURS), short(tune_epochs=0), out=tmp_path / "x", quiet=True)
    adapted = adapt(None, named(COLOURS), Recipe(tune_epochs=1, sites="mlp"), warm_start=tmp_path / "x", quiet=True)
    assert [row["stage"] for row in adapted.history] == ["head", "tune"] and len(adapted.selection) == 2


@pytest.mark.parametrize(
    "setting",
    [{"sites": "attn"}, {"form": "rows"}, {"channels": 4}, {"budget": 500}, {"image_size": 48}, {"resize": "crop"}],
    ids=lambda setting: next(iter(setting)),
)
def test_a_setting_that_contradicts_the_adapter_is_refused_with_both_values(old, tmp_path, setting):
    with pytest.raises(RecipeError, match=f"{next(iter(setting))} = .* as old has; drop --"):
        adapt(None, named(COLOURS), Recipe(**setting), warm_start=old, out=tmp_path / "new", quiet=True)
    assert not list(tmp_path.iterdir())


def test_a_frozen_head_with_new_classes_is_refused(old):
    with pytest.raises(RecipeError, match="2 new classes"):
        adapt(None, named(CHANGED), Recipe(tune_head="frozen"), warm_start=old, quiet=True)
    adapt(None, named(COLOURS), Recipe(tune_head="frozen", tune_epochs=1), warm_start=old, quiet=True)


def test_new_classes_that_nothing_trains_are_named_as_such(old, capsys):
    adapt(None, named(CHANGED), Recipe(tune_epochs=0), warm_start=old)
    assert (
        "--tune-epochs 0: nothing is trained, so what it says of new classes is left to chance"
        in capsys.readouterr().err
    )
    adapt(None, named(COLOURS), Recipe(tune_epochs=0), warm_start=old)
    assert "left to chance" not in capsys.readouterr().err


def test_another_backbone_or_none_or_no_adapter_is_refused(old, tmp_path):
    for source in (old, ttctune.load(old)):
        with pytest.raises(AdapterError, match="digest"):
            adapt(vit(seed=1), named(COLOURS), warm_start=source, out=tmp_path / "new", quiet=True)
    with pytest.raises(BackboneError, match="no model"):
        adapt(None, named(COLOURS), quiet=True)
    with pytest.raises(AdapterError, match="nowhere"):
        adapt(None, named(COLOURS), warm_start=tmp_path / "nowhere", out=tmp_path / "new", quiet=True)
    assert not list(tmp_path.iterdir())


def test_a_module_of_ones_own_is_adapted_further(tmp_path):
    module = vit()
    first = adapt(module, named(COLOURS), short(), out=tmp_path / "x", quiet=True)
    again = adapt(None, named(CHANGED), Recipe(tune_epochs=1), warm_start=first, quiet=True)
    assert again.backbone is module
    adapt(module, named(CHANGED), Recipe(tune_epochs=1), warm_start=tmp_path / "x", quiet=True)
    with pytest.raises(AdapterError, match="model of your own"):
        adapt(None, named(CHANGED), warm_start=tmp_path / "x", quiet=True)


class StoppedError(BaseException):
    """Stands for a kill."""


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_an_interrupted_run_ends_in_the_same_bytes_though_the_earlier_adapter_is_gone(old, tmp_path, monkeypatch, stop):
    earlier = shutil.copytree(old, tmp_path / "old")
    settings = {"recipe": Recipe(tune_epochs=3), "warm_start": earlier, "quiet": True}
    adapt(None, named(CHANGED), out=tmp_path / "whole", **settings)
    write, count = Checkpoint.write, [0]

    def stopping(self, folder):
        write(self, folder)
        count[0] += 1
        if count[0] == stop:
            raise StoppedError

    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(Checkpoint, "write", stopping)
        adapt(None, named(CHANGED), out=tmp_path / "new", **settings)
    shutil.rmtree(earlier)
    adapt(None, named(CHANGED), out=tmp_path / "new", resume=True, **settings)
    new, whole = (read_record(tmp_path / name).model_dump() for name in ("new", "whole"))
    for record in (new, whole):
        del record["digest"], record["sha256"]["history.jsonl"]  # the history says how many seconds it took
    assert new == whole


def test_a_run_stopped_before_its_first_checkpoint_needs_the_earlier_adapter_and_says_so(old, tmp_path, monkeypatch):
    earlier = shutil.copytree(old, tmp_path / "old")

    def stopped(*_, **__):
        raise StoppedError

    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr("ttctune.run.open_images", stopped)
        adapt(None, named(CHANGED), warm_start=earlier, out=tmp_path / "new", quiet=True)
    again = {"warm_start": earlier, "out": tmp_path / "new", "quiet": True, "resume": True}
    earlier.rename(tmp_path / "away")
    with pytest.raises(AdapterError, match="old"):
        adapt(None, named(CHANGED), **again)
    (tmp_path / "away").rename(earlier)
    assert len(adapt(None, named(CHANGED), **again).history) == 6
    with pytest.raises(FolderError, match="no unfinished run"):
        adapt(None, named(CHANGED), **again)


def test_going_on_with_another_start_is_refused(name, old, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise StoppedError

    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr("ttctune.run.open_images", stopped)
        adapt(None, named(CHANGED), warm_start=old, out=tmp_path / "new", quiet=True)
    other = shutil.copytree(old, tmp_path / "other")
    for model, start in ((None, other), (name, None)):
        with pytest.raises(FolderError, match="began with"):
            adapt(model, named(CHANGED), warm_start=start, out=tmp_path / "new", resume=True, quiet=True)


def test_val_that_is_held_out_anew_is_called_what_it_is_and_calibrates_nothing(name, tmp_path, capsys):
    tree = write_image_tree(tmp_path / "images", 3, per_class=5)
    adapt(name, tree, short(), out=tmp_path / "old", quiet=True)
    same = adapt(None, tree, Recipe(tune_epochs=1), warm_start=tmp_path / "old")
    assert same.settled["warm_start"]["val_unseen"] and "may hold" not in capsys.readouterr().err
    write_image_tree(tmp_path / "images", 4, per_class=6)
    more = adapt(None, tree, Recipe(tune_epochs=1), warm_start=tmp_path / "old", out=tmp_path / "new")
    assert "val may hold images that the earlier run was trained on" in capsys.readouterr().err
    assert not more.settled["warm_start"]["val_unseen"] and "earlier run" in more.calibration.note
    assert more.evaluate(tree).part == "held-out val, maybe with images that the earlier run was trained on"
    assert "some of which the earlier run may have been trained on" in (tmp_path / "new" / "README.md").read_text()
    own = {"train": named(CHANGED), "val": named(CHANGED, seed=9)}
    assert adapt(None, own, Recipe(tune_epochs=0), warm_start=tmp_path / "old").settled["warm_start"]["val_unseen"]


def unseen(adapted):
    return adapted.settled["warm_start"]["val_unseen"]


def test_a_val_that_was_seen_once_stays_seen(name, tmp_path):
    """Two generations later it is the same val, and the first run has still trained on most of it."""
    data = arrays(10)
    adapt(name, data, short(seed=0), out=tmp_path / "a", quiet=True)
    first = adapt(None, data, Recipe(tune_epochs=1, seed=1), warm_start=tmp_path / "a", out=tmp_path / "b", quiet=True)
    second = adapt(None, data, Recipe(tune_epochs=1), warm_start=tmp_path / "b", quiet=True)
    assert first.data["held_out"] == second.data["held_out"] and not unseen(first) and not unseen(second)
    assert not unseen(adapt(None, data, Recipe(tune_epochs=1), warm_start=second, quiet=True))
    assert unseen(adapt(None, data, Recipe(tune_epochs=1), warm_start=tmp_path / "a", quiet=True))


def test_a_val_part_of_the_datas_own_is_seen_where_the_records_say_so(name):
    """The earlier run's train part is no val of a later one, nor of those after it; other images are new."""
    train, other = arrays(6), arrays(3, seed=9)
    earlier = adapt(name, {"train": train, "val": other}, short(), quiet=True)
    start = {"recipe": Recipe(tune_epochs=1), "quiet": True}
    again = adapt(None, {"train": arrays(6, seed=4), "val": train}, warm_start=earlier, **start)
    assert not unseen(again) and "earlier run" in again.calibration.note
    assert not unseen(adapt(None, {"train": arrays(6, seed=5), "val": train}, warm_start=again, **start))
    for val in (other, arrays(3, seed=8)):
        assert unseen(adapt(None, {"train": train, "val": val}, warm_start=earlier, **start))


def test_precision_is_measured_with_the_maps_that_are_taken_over(old):
    frozen = Recipe(tune_epochs=1, tune_norms="frozen", tune_head="frozen", precision="auto")
    adapted = adapt(None, named(COLOURS), frozen, warm_start=old, quiet=True)
    assert "ms a step" in adapted.settled["reason"]


def test_a_plan_of_a_warm_start_has_its_parts(old):
    found = plan(None, named(CHANGED), Recipe(tune_epochs=1), warm_start=old, quiet=True)
    assert found.parameters == ttctune.load(old).parameters and found.seconds > 0
