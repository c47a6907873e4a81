"""Whole runs on models that differ from a plain ViT: stages, no attention, other numbers of colours."""

import numpy as np
import pytest
import torch
from tests.models import tiny
from tests.run_helpers import SIDE, arrays, short

import ttctune
from ttctune.errors import RecipeError, ScoreError, SiteError
from ttctune.plan import plan


def test_the_default_sites_are_those_a_family_has(tmp_path, capsys):
    """A ConvNeXt has no attention: it is said, recorded, and the adapter opens again."""
    model = tiny("convnext_conv")
    adapted = ttctune.adapt(model, arrays(), short(image_size=SIDE), out=tmp_path / "x")
    assert {f"{block}.mlp" for block in range(4)} == set(adapted.selection)
    assert "ConvNeXt: nothing can be tuned at attn, so channels are tuned at mlp" in capsys.readouterr().err
    assert ("mlp",) == adapted.recipe.sites
    again = ttctune.load(tmp_path / "x", model)
    assert np.array_equal(again.predict(arrays(2)[0]), adapted.predict(arrays(2)[0]))


@pytest.mark.parametrize(
    ("family", "kept", "said"),
    [
        ("beit", ("fc1",), "BEiT: nothing can be tuned at qkv, so gates are at fc1"),
        ("vit_swiglu", ("qkv", "fc1"), None),
        ("eva_swiglu", (), "nothing can be tuned at qkv, fc1, so gates are nowhere"),
        ("pvt_v2", ("fc1",), "PVT-v2: nothing can be tuned at qkv, so gates are at fc1"),
        ("swin", ("qkv", "fc1"), None),
    ],
)
def test_the_default_gates_are_at_the_layers_that_a_family_calls(family, kept, said, tmp_path, capsys):
    """Some have no such layer, and some never call it: gates there would silently do nothing."""
    model = tiny(family)
    adapted = ttctune.adapt(model, arrays(), short(image_size=SIDE), out=tmp_path / "x")
    shown = capsys.readouterr().err
    assert said in shown if said else "nothing can be tuned" not in shown
    assert kept == adapted.recipe.gates
    assert set(kept) == {site.kind for site in adapted.attachment.gates}
    again = ttctune.load(tmp_path / "x", model)
    assert np.array_equal(again.predict(arrays(2)[0]), adapted.predict(arrays(2)[0]))


def test_gates_asked_for_by_name_are_refused_where_a_layer_is_never_called():
    with pytest.raises(SiteError, match="never calls"):
        ttctune.adapt(tiny("beit"), arrays(), short(image_size=SIDE, gates=("qkv",)))


@pytest.mark.parametrize("sites", [("attn",), ("mlp", "qkv"), ("attn", "fc1")])
def test_sites_asked_for_by_name_are_refused_where_a_family_has_none(sites):
    """Only the default gives way."""
    with pytest.raises(SiteError, match=r"site '(attn|qkv)' in ConvNeXt; expected one of mlp, fc1"):
        ttctune.adapt(tiny("convnext"), arrays(), short(image_size=SIDE, sites=sites))


def test_a_share_is_one_of_each_sites_own_width(tmp_path):
    """A quarter of 16 channels in the first stage of this Swin, of 32 in the second; four times that at `fc1`."""
    adapted = ttctune.adapt(tiny("swin"), arrays(), short(sites=("attn", "fc1"), channels=0.25))
    found = {name: len(channels) for name, channels in adapted.selection.items()}
    assert {"0.attn": 4, "1.attn": 4, "2.attn": 8, "0.fc1": 8, "1.fc1": 8, "2.fc1": 16} == found


def test_a_number_of_channels_has_to_fit_every_site():
    """The narrowest site is named, with its width, which itself is accepted."""
    with pytest.raises(RecipeError, match=r"channels = 17; expected at most 16, .* narrowest site, 0\.attn"):
        ttctune.adapt(tiny("swin"), arrays(), short(channels=17))
    assert plan(tiny("swin"), arrays(), short(channels=16, gates=()), quiet=True).parameters["channels"] == 6 * (
        16 * 16 + 16
    )


def test_class_tokens_are_asked_for_before_anything_is_trained():
    """A plan scores nothing, and refuses already."""
    with pytest.raises(ScoreError, match="without a class token"):
        plan(tiny("swin"), arrays(), short(tokens="cls"), quiet=True)


@pytest.mark.parametrize("family", ["vit", "convnext", "hiera"])
@pytest.mark.parametrize("channels", [1, 5])
def test_a_model_of_other_colours_runs_from_data_to_merged(family, channels, tmp_path):
    """Arrays with as many channels as the model's first layer has; normalised by as many means."""
    pictures, labels = arrays()
    pictures = pictures[..., [0, 1, 2, 0, 1][:channels]]
    model = tiny(family, in_chans=channels)
    adapted = ttctune.adapt(model, (pictures, labels), short(image_size=SIDE), out=tmp_path / "x")
    assert channels == adapted.input.channels == len(adapted.input.std)
    probabilities = adapted.predict(pictures)
    assert np.array_equal(ttctune.load(tmp_path / "x", model).predict(pictures), probabilities)
    images = torch.randn(2, channels, SIDE, SIDE)
    with torch.no_grad():
        torch.testing.assert_close(adapted.merge()(images), adapted.model(images), rtol=1e-4, atol=1e-4)


def test_grey_pictures_are_seen_by_a_model_of_three_colours():
    """H x W arrays, as if every colour were the same."""
    pictures, labels = arrays()
    grey = pictures[..., 0]
    adapted = ttctune.adapt(tiny("swin"), (grey, labels), short())
    assert np.array_equal(adapted.predict(list(grey)), adapted.predict(np.repeat(grey[..., None], 3, -1)))
