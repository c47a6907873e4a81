"""From a timm name, a folder, a file of weights or a module to a backbone; without a network."""

import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import timm.models._hub as timm_hub
import torch
from safetensors.torch import save_file
from torch import nn

from models import SIDE, draw_adapter, print_of, randomise, selected, tiny
from ttctune.backbone.description import InputDescription
from ttctune.backbone.model import tensor_digest
from ttctune.backbone.opening import open_backbone
from ttctune.backbone.saving import write_timm_folder
from ttctune.errors import BackboneError, TtcError, WeightsError
from ttctune.method.attachment import attach
from ttctune.method.merge import merge

#: timm's smallest ViT, made for tests; 80 tensors.
NAME = "test_vit"
#: A model that people use, with weights under two tags.
VIT_TINY = "vit_tiny_patch16_224"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Any attempt to connect fails the test at once."""

    def refuse(*args: object, **kwargs: object):
        raise AssertionError("a test reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """Random weights of `NAME`, from values that float16 can hold."""
    model = timm.create_model(NAME)
    return {k: v.half().float() for k, v in randomise(model).state_dict().items()}


@pytest.fixture(scope="module")
def file(weights, tmp_path_factory) -> Path:
    """Those weights as a file."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(weights, path)
    return path


class _Asked(list):
    """What the hub was asked for, and the file it gives."""

    give: Path


@pytest.fixture
def hub(monkeypatch, file):
    """timm's download function hands out the local file here, and notes what it was asked for."""
    asked = _Asked()

    def download(repo_id: str, filename: str, **_: object) -> str:
        asked.append((repo_id, filename))
        return str(asked.give)

    asked.give = file
    monkeypatch.setattr(timm_hub, "hf_hub_download", download)
    monkeypatch.setattr(timm_hub, "download_cached_file", lambda *a, **k: pytest.fail("asked for a plain address"))
    return asked


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("deit_tiny_patch16_225", "did you mean deit_tiny_patch16_224"),
        ("vit_tny_patch16_224", "vit_tiny_patch16_224"),
        ("vit_tiny_patch16_22.augreg_in21k", "vit_tiny_patch16_224"),
        ("beit_base_patch_16_224", "beit_base_patch16_224"),
        ("xqzw", "see timm.list_models()"),
        ("", "see timm.list_models()"),
    ],
)
def test_an_unknown_name_is_refused_with_near_matches(name, near):
    """The message says what was given, and what is alike."""
    with pytest.raises(BackboneError) as caught:
        open_backbone(name)
    assert f"model {name!r}; expected a timm name or local-dir:FOLDER" in str(caught.value)
    assert near in str(caught.value)


def test_an_unknown_tag_is_refused():
    """The model exists, its weights of that tag do not."""
    with pytest.raises(BackboneError, match=r"test_vit\.nope': tag 'nope'; expected a tag of test_vit: r160_in1k"):
        open_backbone(f"{NAME}.nope")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("resnet10t", "LayerNorms or RMSNorms"), ("cait_xxs24_224.fb_dist_in1k", "a model of one of these families")],
)
def test_a_model_of_another_family_is_refused_before_anything_is_fetched(name, expected, hub):
    """Nobody waits for a download to be told so."""
    with pytest.raises(BackboneError, match=f"expected {expected}"):
        open_backbone(name)
    assert [] == hub


def test_a_module_is_handed_through_unchanged():
    """The very object, in the mode it had, with a name made of its class."""
    model = tiny("vit").train()
    before = print_of(model)
    backbone = open_backbone(model)
    assert model is backbone.model
    assert "module:VisionTransformer" == backbone.name
    assert tensor_digest(model) == backbone.digest
    assert before == print_of(model)


def test_weights_beside_a_module_are_refused(file):
    """It has weights already; none are ignored."""
    with pytest.raises(WeightsError, match="weights beside a module"):
        open_backbone(tiny("vit"), file)


def test_a_module_of_another_family_is_refused():
    """Named by its class."""
    with pytest.raises(BackboneError, match=r"^a LayerNorm; expected a model of one of these families"):
        open_backbone(nn.LayerNorm(2))


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        (VIT_TINY, "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"),
        (NAME, "timm/test_vit.r160_in1k"),
        (f"{NAME}.r160_in1k", "timm/test_vit.r160_in1k"),
    ],
)
def test_a_name_opens_timms_own_pretrained_weights(hub, tmp_path, name, repository):
    """From the repository that timm's configuration names, by its own functions, in eval mode."""
    weights = randomise(timm.create_model(name)).state_dict()
    hub.give = tmp_path / "w.safetensors"
    save_file(weights, hub.give)
    backbone = open_backbone(name)
    assert [repository] == [repo for repo, _ in hub]
    assert all(torch.equal(weights[k], v) for k, v in backbone.model.state_dict().items())
    assert name == backbone.name
    assert not backbone.model.training


def test_a_tag_chooses_the_repository(hub):
    """The stand-in's file does not fit that model, which is said in one line."""
    with pytest.raises(BackboneError, match="augreg_in21k") as caught:
        open_backbone(f"{VIT_TINY}.augreg_in21k")
    assert ["timm/vit_tiny_patch16_224.augreg_in21k"] == [repo for repo, _ in hub]
    assert "\n" not in str(caught.value)


def test_the_input_is_that_of_the_pretrained_weights(hub):
    """Size, mean, deviation, filter and crop of timm's configuration."""
    expected = InputDescription(160, 160, (0.5,) * 3, (0.5,) * 3, "bicubic", 0.95, "center")
    assert expected == open_backbone(NAME).input


@pytest.mark.parametrize("error", [OSError("offline"), ConnectionError("no route"), ValueError("401"), KeyError("x")])
def test_a_hub_that_cannot_be_reached_is_one_clear_error(monkeypatch, error):
    """It keeps the reason, and says that a file of weights will do."""

    def download(**_: object):
        raise error

    monkeypatch.setattr(timm_hub, "hf_hub_download", download)
    with pytest.raises(BackboneError, match=f"{error.args[0]}.*check the network, or give a file with --weights"):
        open_backbone(NAME)


def test_the_same_weights_have_one_digest_from_hub_file_and_module(hub, file, weights):
    """By name, by file, and by a module that holds them."""
    model = timm.create_model(NAME, num_classes=0)
    model.load_state_dict({k: v for k, v in weights.items() if not k.startswith("head")})
    digests = {open_backbone(NAME).digest, open_backbone(NAME, file).digest, open_backbone(model).digest}
    assert 1 == len(digests)


def test_a_file_of_weights_is_loaded_without_asking_the_hub(hub, file, weights):
    """Body from the file; a head of any size in it is left out."""
    backbone = open_backbone(NAME, str(file))
    assert [] == hub
    state = backbone.model.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in state.items() if not k.startswith("head"))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
def test_float16_weights_have_the_digest_of_the_float32_ones_cast_from_them(tmp_path, weights, file, suffix):
    """In every format of file; the model is float32."""
    path, state = tmp_path / f"w{suffix}", {k: v.half() for k, v in weights.items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    backbone = open_backbone(NAME, path)
    assert open_backbone(NAME, file).digest == backbone.digest
    assert {torch.float32} == {p.dtype for p in backbone.model.parameters()}


@pytest.mark.parametrize("wrap", ["state_dict", "model", "model_ema", "module"])
def test_checkpoints_as_training_scripts_write_them_are_understood(tmp_path, weights, file, wrap):
    """Nested under a key, or with the prefix of data-parallel training."""
    state = {f"module.{k}": v for k, v in weights.items()} if wrap == "module" else {wrap: weights, "epoch": 3}
    torch.save(state, tmp_path / "w.pth")
    assert open_backbone(NAME, tmp_path / "w.pth").digest == open_backbone(NAME, file).digest


def test_a_head_of_another_size_or_none_in_the_file_is_no_matter(tmp_path, weights, file):
    """The head is new anyway, and not part of the digest."""
    body = {k: v for k, v in weights.items() if not k.startswith("head")}
    other = {**body, "head.weight": torch.zeros(7, 64), "head.bias": torch.zeros(7)}
    for state in (body, other):
        save_file(state, tmp_path / "w.safetensors")
        assert open_backbone(NAME, file).digest == open_backbone(NAME, tmp_path / "w.safetensors").digest


def _broken(problem: str, weights: dict[str, torch.Tensor], folder: Path, file: Path) -> Path:
    path = folder / ("w.pth" if problem in ("list", "numbers", "pickle", "text") else "w.safetensors")
    if problem == "truncated":
        path.write_bytes(file.read_bytes()[: 1 << 20])
    elif problem == "cut header":
        path.write_bytes(file.read_bytes()[:100])
    elif problem == "empty":
        path.touch()
    elif problem == "rubbish":
        path.write_bytes(os.urandom(1000))
    elif problem == "text":
        path.write_text("<html>not found</html>")
    elif problem == "list":
        torch.save([1, 2, 3], path)
    elif problem == "numbers":
        torch.save({"a": 1, "b": 2.0}, path)
    elif problem == "pickle":
        torch.save({"model": tiny("vit", depth=1)}, path)
    elif problem == "no tensors":
        save_file({}, path)
    elif problem == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    "problem",
    [
        "truncated",
        "cut header",
        "empty",
        "rubbish",
        "text",
        "list",
        "numbers",
        "pickle",
        "no tensors",
        "folder",
        "none",
    ],
)
def test_a_file_that_holds_no_weights_is_refused(problem, weights, tmp_path, file):
    """One WeightsError on one line that names the file, whatever is wrong with it."""
    path = _broken(problem, weights, tmp_path, file)
    with pytest.raises(WeightsError) as caught:
        open_backbone(NAME, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_are_refused_with_names_and_numbers(tmp_path, weights):
    """Other shapes, too few tensors, too many and none that fit, each said."""
    narrow = timm.create_model(NAME, embed_dim=48, num_heads=3).state_dict()
    save_file(narrow, tmp_path / "narrow.safetensors")
    with pytest.raises(WeightsError, match=r"has another shape of 78 tensors .*expected the 78 tensors of test_vit"):
        open_backbone(NAME, tmp_path / "narrow.safetensors")
    lacking = {k: v for k, v in weights.items() if k != "blocks.3.norm1.bias"}
    save_file(lacking, tmp_path / "lacking.safetensors")
    with pytest.raises(WeightsError, match=r"the file lacks blocks\.3\.norm1\.bias; expected the 78 tensors"):
        open_backbone(NAME, tmp_path / "lacking.safetensors")
    save_file({**weights, "blocks.3.extra": torch.zeros(1)}, tmp_path / "surplus.safetensors")
    with pytest.raises(WeightsError, match=r"has beyond the model blocks\.3\.extra"):
        open_backbone(NAME, tmp_path / "surplus.safetensors")
    save_file({"something.else": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(WeightsError, match=r"lacks 78 tensors \(blocks\.0\.attn"):
        open_backbone(NAME, tmp_path / "foreign.safetensors")


def test_an_unknown_name_is_refused_before_the_weights_are_read(tmp_path):
    """The first thing that is wrong is the one that is said."""
    with pytest.raises(BackboneError, match="'vit_nope'"):
        open_backbone("vit_nope", tmp_path / "nothing.safetensors")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A small ViT in timm's own folder format."""
    model = randomise(timm.create_model(VIT_TINY, **SMALL))
    description = InputDescription(SIDE, SIDE, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear")
    path = tmp_path / "model"
    path.mkdir()
    write_timm_folder(path, model, description, ("a", "b", "c"))
    config = json.loads((path / "config.json").read_text())
    config["model_args"] = {k: v for k, v in SMALL.items() if k != "num_classes"}
    (path / "config.json").write_text(json.dumps(config))
    return path


SMALL = {"img_size": SIDE, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 3}


def test_a_local_folder_is_opened_with_its_weights_and_input(folder):
    """Architecture, tensors and preprocessing all come from the folder."""
    backbone = open_backbone(f"local-dir:{folder}")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert tensor_digest(model) == backbone.digest
    assert f"local-dir:{folder}" == backbone.name
    assert (SIDE, SIDE, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear") == (
        backbone.input.height,
        backbone.input.width,
        backbone.input.mean,
        backbone.input.std,
        backbone.input.interpolation,
    )
    images = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        assert torch.equal(model.eval()(images), backbone.model(images))


def test_a_local_folder_takes_other_weights(folder, tmp_path):
    """A file beside it wins."""
    other = randomise(timm.create_model(VIT_TINY, **SMALL), seed=5)
    save_file(other.state_dict(), tmp_path / "w.safetensors")
    assert tensor_digest(other) == open_backbone(f"local-dir:{folder}", tmp_path / "w.safetensors").digest


@pytest.mark.parametrize("damage", ["no folder", "no config", "no weights", "cut weights", "bad json", "other family"])
def test_a_damaged_folder_is_refused_by_name(folder, damage):
    """One error on one line that names the folder (or what is in it), never a traceback of timm's."""
    name = f"local-dir:{folder}"
    if damage == "no folder":
        name += "-elsewhere"
    elif damage == "no config":
        (folder / "config.json").unlink()
    elif damage == "no weights":
        (folder / "model.safetensors").unlink()
    elif damage == "cut weights":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    elif damage == "bad json":
        (folder / "config.json").write_text("{")
    else:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "architecture": "resnet10t", "model_args": {}}))
    with pytest.raises(TtcError) as caught:
        open_backbone(name)
    assert isinstance(caught.value, BackboneError)
    assert damage == "other family" or str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_distilled_model_is_opened_with_both_heads_left_out(monkeypatch, tmp_path):
    """The digest does not see `head_dist` either."""
    name = "deit_tiny_distilled_patch16_224"
    state = randomise(timm.create_model(name)).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    digest = open_backbone(name, tmp_path / "w.safetensors").digest
    body = {k: v for k, v in state.items() if not k.startswith("head")}
    save_file(body, tmp_path / "body.safetensors")
    assert len(state) - 4 == len(body)
    assert digest == open_backbone(name, tmp_path / "body.safetensors").digest


def test_a_rectangular_model_says_its_height_and_width():
    """Not the size in timm's configuration, but the one it was built for."""
    backbone = open_backbone(tiny("vit", img_size=(48, 32)))
    assert (48, 32) == (backbone.input.height, backbone.input.width)


@pytest.mark.parametrize("size", [(160, 160), (48, 64)], ids=str)
def test_a_merged_model_written_as_a_folder_opens_again_with_equal_outputs(tmp_path, size):
    """Also for another picture size than the architecture's own; timm alone can open it, and so can we."""
    backbone = open_backbone(randomise(timm.create_model(NAME)))
    attachment = attach(backbone, 3, image_size=size)
    sites = backbone.sites(("attn", "mlp"))
    attachment.tune(sites, selected(sites, 6), "map")
    draw_adapter(attachment)
    merged = merge(attachment)
    description = replace(backbone.input, height=size[0], width=size[1])
    write_timm_folder(tmp_path, merged, description, ("a", "b", "c"))
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        assert torch.equal(merged(images), again(images))
    reopened = open_backbone(f"local-dir:{tmp_path}")
    assert size == (reopened.input.height, reopened.input.width)
    assert tensor_digest(merged) == reopened.digest
