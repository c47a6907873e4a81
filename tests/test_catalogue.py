"""The list of models that can be adapted is true, and costs neither memory nor network."""

import pytest

from ttctune.backbone.opening import open_shell
from ttctune.backbone.recommended import RECOMMENDED
from ttctune.catalogue import candidates, describe, supported
from ttctune.errors import BackboneError

ROWS = {row.model.name: row.model for row in RECOMMENDED}


@pytest.fixture
def offline(monkeypatch):
    """Fail where anything is fetched."""

    def fetch(*_, **__):
        raise AssertionError("something was fetched")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", fetch)
    monkeypatch.setattr("socket.create_connection", fetch)


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224.fb_in1k", "eva02_small_patch14_224.mim_in22k"])
def test_a_recommended_model_is_as_listed(name, offline):
    assert describe(name) == ROWS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ROWS))
def test_every_recommended_model_is_as_listed(name, offline):
    assert describe(name) == ROWS[name]


def test_recommendations_go_from_small_to_large():
    sizes = [row.model.parameters for row in RECOMMENDED]
    assert sizes == sorted(sizes) and len(ROWS) == len(RECOMMENDED)


def test_a_shell_takes_no_memory():
    assert all(p.is_meta for p in open_shell("deit_tiny_patch16_224").model.parameters())


def test_an_architecture_without_a_tag_lists_all_its_weights_with_their_licences(offline):
    found = describe("vit_base_patch16_224")
    assert found.weights["mae"] == "cc-by-nc-4.0" and found.weights["augreg_in21k"] == "apache-2.0"
    assert found.weights["bamboo"] == ""


def test_a_layer_that_is_never_called_is_no_site(offline):
    assert "qkv" not in describe("beit_base_patch16_224").sites


def test_a_pattern_is_a_part_of_a_name_or_has_wildcards():
    assert "deit_tiny_patch16_224" in candidates("deit_tiny")
    assert candidates("vit_tiny_patch16_?84") == ["vit_tiny_patch16_384"]


@pytest.mark.parametrize(("pattern", "said"), [("xyzzy", "xyzzy"), ("resnet18", "resnet18"), ("[", "'['")])
def test_a_pattern_that_no_supported_model_matches_is_refused(pattern, said):
    with pytest.raises(BackboneError, match="that can be adapted") as caught:
        candidates(pattern)
    assert said in str(caught.value)


def test_models_that_cannot_be_adapted_are_left_out_and_explained_where_no_other_is_left():
    names = ["vit_small_patch16_18x2_224", "deit_tiny_patch16_224"]
    assert [model.name for model in supported(names)] == names[1:]
    with pytest.raises(BackboneError, match="Parallel"):
        supported(names[:1])
