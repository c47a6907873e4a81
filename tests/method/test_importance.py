"""Importance scores against explicit gates, central differences and naive loops, in float64."""

import math
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from models import (
    BUILDERS,
    CLASSES,
    WIDTH,
    attached,
    backbone_of,
    labels,
    per_image_loss,
    pictures,
    print_of,
    tiny,
)
from ttctune.backbone.model import Site
from ttctune.errors import ScoreError
from ttctune.method.importance import MATRIX_READINGS, READINGS, score
from ttctune.method.selection import select_by_budget, select_per_site
from ttctune.recipe import IMPORTANCES

KINDS = ("attn", "mlp", "qkv", "fc1", "stream")


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    """A tiny ViT after stage 1, in float64."""
    return attached("vit_layer_scale", ()).model.double()


def _sites(*kinds: str, family: str = "vit_layer_scale") -> tuple[Site, ...]:
    return backbone_of(tiny(family)).sites(kinds)


def _batches(size: int = 6, n: int = 6) -> list[tuple[Tensor, Tensor]]:
    images, target = pictures(n, dtype=torch.float64), labels(n)
    return list(zip(images.split(size), target.split(size), strict=True))


def _score(model: nn.Module, sites: tuple[Site, ...], importance: str = "taylor", **settings) -> dict[str, Tensor]:
    batches = settings.pop("batches", None) or _batches()
    return score(model, sites, batches, per_image_loss, classes=CLASSES, importance=importance, **settings)


@contextmanager
def _gate(model: nn.Module, site: Site, gate: Tensor):
    """Multiply the site's channels by `gate`; at `stream` by a block's forward pass written out by hand."""
    if site.kind != "stream":
        handle = model.get_submodule(site.path).register_forward_hook(lambda m, x, y: y * gate)
        yield
        handle.remove()
        return
    block = model.get_submodule(site.path.rpartition(".")[0])

    def forward(x: Tensor, *args: object, **kwargs: object) -> Tensor:
        x = (x + block.ls1(block.attn(block.norm1(x)))) * gate
        return x + block.ls2(block.mlp(block.norm2(x)))

    block.forward = forward
    yield
    del block.forward


def _gate_gradients(model: nn.Module, site: Site, images: Tensor, target: Tensor) -> Tensor:
    """dL_n/da_c at a_c = 1, images x channels: each image has gates of its own."""
    gate = torch.ones(len(images), 1, site.width, dtype=images.dtype, requires_grad=True)
    with _gate(model, site, gate):
        (gradient,) = torch.autograd.grad(per_image_loss(model(images), target).sum(), gate)
    return gradient.squeeze(1)


def _features(model: nn.Module, site: Site) -> list[tuple[list, list]]:
    """z and dL_n/dz of every image, each in a pass of its own, as nested lists tokens x channels."""
    found = []
    for image, label in zip(pictures(dtype=torch.float64), labels(), strict=True):
        kept = []
        layer = model.get_submodule(site.path)
        handle = layer.register_forward_hook(lambda m, x, y, kept=kept: kept.append(y))
        loss = per_image_loss(model(image[None]), label[None]).sum()
        handle.remove()
        (g,) = torch.autograd.grad(loss, kept)
        found.append((kept[0][0].tolist(), g[0].tolist()))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_taylor_score_is_the_gradient_of_a_gate(vit, kind):
    """mean_n |dL_n/da_c| for a gate a_c = 1 multiplied onto channel c of the site's output."""
    sites = _sites(kind)
    scores = _score(vit, sites)
    for site in sites:
        expected = _gate_gradients(vit, site, *_batches()[0]).abs().mean(0)
        assert float(expected.max()) > 1e-3
        torch.testing.assert_close(scores[site.name], expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_taylor_score_of_one_image_is_that_images_own(vit, kind):
    """An image's value does not depend on the images beside it in the batch."""
    site = _sites(kind)[0]
    images, target = _batches()[0]
    expected = _gate_gradients(vit, site, images, target).abs()
    for n in range(3):
        one = _score(vit, (site,), batches=[(images[n : n + 1], target[n : n + 1])])
        torch.testing.assert_close(one[site.name], expected[n], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_taylor_score_is_the_central_difference_of_the_loss(vit, kind):
    """|L_n(a_c = 1 + e) - L_n(a_c = 1 - e)| / 2e, mean over the images."""
    site, step = _sites(kind)[0], 1e-5
    images, target = _batches()[0]
    scores = _score(vit, (site,))[site.name]
    for channel in (0, 5, site.width - 1):
        losses = []
        for sign in (1, -1):
            gate = torch.ones(site.width, dtype=torch.float64)
            gate[channel] += sign * step
            with torch.no_grad(), _gate(vit, site, gate):
                losses.append(per_image_loss(vit(images), target))
        expected = ((losses[0] - losses[1]) / (2 * step)).abs().mean()
        torch.testing.assert_close(scores[channel], expected, rtol=1e-5, atol=1e-9)


def _naive(reading: str, features: list[tuple[list, list]], target: list[int]) -> list[float]:
    """Every reading in plain Python: image by image, token by token, channel by channel."""
    images, channels = len(features), len(features[0][0][0])
    scores = []
    for c in range(channels):
        products = [[zt[c] * gt[c] for zt, gt in zip(z, g, strict=True)] for z, g in features]
        gates = [sum(p) for p in products]
        by_class = [[n for n in range(images) if target[n] == k] for k in sorted(set(target))]
        if reading == "taylor" or reading == "lowest":
            value = sum(abs(t) for t in gates) / images
        elif reading == "taylor_tokens":
            value = sum(abs(p) for row in products for p in row) / images
        elif reading == "taylor_signed":
            value = abs(sum(gates) / images)
        elif reading == "taylor_squared":
            value = sum(t * t for t in gates) / images
        elif reading == "taylor_class":
            value = sum(sum(abs(gates[n]) for n in ns) / len(ns) for ns in by_class) / len(by_class)
        elif reading == "gradient":
            value = sum(abs(sum(gt[c] for gt in g)) for _, g in features) / images
        elif reading == "l2":
            norms = [math.sqrt(sum(zt[c] ** 2 for n in ns for zt in features[n][0])) for ns in by_class]
            value = sum(norms) / len(norms)
        scores.append(value)
    return [max(scores) - value for value in scores] if reading == "lowest" else scores


@pytest.mark.parametrize("reading", READINGS)
def test_every_reading_equals_a_naive_loop(vit, reading):
    """The formula of the table, written as loops over images, tokens and channels."""
    for site in _sites("attn", "fc1")[:2]:
        expected = torch.tensor(_naive(reading, _features(vit, site), labels().tolist()), dtype=torch.float64)
        found = _score(vit, (site,), reading)[site.name]
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("kind", ["attn", "mlp", "qkv", "fc1"])
@pytest.mark.parametrize("n", [6, 5])
def test_taylor_weight_is_weight_times_its_gradient_of_the_mean_loss(vit, kind, n):
    """sum_j |W_cj dL/dW_cj|, also when the batches have different sizes."""
    site = _sites(kind)[0]
    weight = vit.get_submodule(site.path).weight
    ((images, target),) = _batches(n, n)
    weight.requires_grad_(True)
    (gradient,) = torch.autograd.grad(per_image_loss(vit(images), target).mean(), weight)
    weight.requires_grad_(False)
    rows = zip(weight.tolist(), gradient.tolist(), strict=True)
    expected = [sum(abs(w * g) for w, g in zip(*row, strict=True)) for row in rows]
    for size in (n, 4):
        found = _score(vit, (site,), "taylor_weight", batches=_batches(size, n))[site.name]
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-13)


def test_taylor_weight_at_stream_is_refused(vit):
    """The stream has no weights."""
    with pytest.raises(ScoreError, match="stream"):
        _score(vit, _sites("stream"), "taylor_weight")


def _map_gradient(model: nn.Module, site: Site, n: int) -> Tensor:
    """dL/dM of the mean loss at M = 0, for a map y + M y of all channels behind the site's layer."""
    ((images, target),) = _batches(n, n)
    matrix = torch.zeros(site.width, site.width, dtype=torch.float64, requires_grad=True)
    handle = model.get_submodule(site.path).register_forward_hook(lambda m, x, y: y + y @ matrix.T)
    (gradient,) = torch.autograd.grad(per_image_loss(model(images), target).mean(), matrix)
    handle.remove()
    return gradient


@pytest.mark.parametrize("kind", ["attn", "mlp", "qkv", "fc1"])
@pytest.mark.parametrize("n", [6, 5])
def test_taylor_map_drops_first_what_a_maps_gradient_needs_least(vit, kind, n):
    """Channels in the order of their scores are those whose loss costs |G[S,S]| least, one after another."""
    site = _sites(kind)[0]
    gradient = _map_gradient(vit, site, n)
    left, dropped = list(range(site.width)), []
    while left:
        kept = {c: gradient[s][:, s].norm().item() for c in left for s in ([k for k in left if k != c],)}
        dropped.append(max(left, key=kept.__getitem__))
        left.remove(dropped[-1])
    for size in (n, 4):
        found = _score(vit, (site,), "taylor_map", batches=_batches(size, n))[site.name]
        assert found.argsort().tolist() == dropped
        torch.testing.assert_close(found.max(), (site.width - 1) * gradient.norm(), rtol=1e-9, atol=0)


def test_taylor_map_keeps_channels_that_need_each_other():
    """Two channels that only a map between them would use are kept before one that has more of its own."""
    gradient = torch.zeros(5, 5, dtype=torch.float64)
    gradient[1, 3] = gradient[3, 1] = 2
    gradient[2, 2] = 2.5
    site = Site(0, "attn", "layer", 5, 5, -1, has_bias=True)
    order = MATRIX_READINGS["taylor_map"].join(nn.Identity(), site, gradient)
    assert sorted(order.topk(2).indices.tolist()) == [1, 3]


def test_every_importance_of_the_recipe_can_be_computed(vit):
    """Each name gives finite scores, one per channel, on the CPU."""
    sites = _sites("attn", "qkv")
    for importance in IMPORTANCES:
        scores = _score(vit, sites, importance)
        assert {s.name for s in sites} == set(scores)
        assert all((site.width,) == scores[site.name].shape for site in sites)
        assert all(torch.isfinite(s).all() for s in scores.values())


def test_random_scores_follow_the_seed_and_nothing_else(vit):
    """Equal for equal seeds, whatever torch's global state; different for another seed or site."""
    sites = _sites("attn")
    first = _score(vit, sites, "random", seed=3)
    torch.rand(7)
    again, other = _score(vit, sites, "random", seed=3), _score(vit, sites, "random", seed=4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["0.attn"], other["0.attn"])
    assert not torch.equal(first["0.attn"], first["1.attn"])


def test_lowest_is_taylor_with_the_order_turned(vit):
    """Its K channels are those of the K smallest Taylor scores."""
    sites = _sites("mlp")
    taylor, lowest = _score(vit, sites), _score(vit, sites, "lowest")
    for name, channels in select_per_site(lowest, dict.fromkeys(lowest, 5)).items():
        assert sorted(taylor[name].argsort()[:5].tolist()) == channels.tolist()


def test_classes_weigh_the_same_in_a_class_wise_reading(vit):
    """Images of one class repeated change `taylor` but not `taylor_class`; absent classes do not count."""
    site = _sites("attn")[0]
    images, target = _batches()[0]
    keep = target < 3
    images, target = images[keep], target[keep]
    repeated = [(images, target), (images[target == 0], target[target == 0])]
    for reading, same in (("taylor_class", True), ("taylor", False)):
        once, twice = (_score(vit, (site,), reading, batches=b)[site.name] for b in ([(images, target)], repeated))
        assert same == torch.allclose(once, twice, rtol=1e-9, atol=0)


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_classes_without_images_do_not_count(vit, importance):
    """Scores for 4 classes and for 9, of which 5 have no image, are equal."""
    settings = {"importance": importance}
    four, nine = (score(vit, _sites("mlp"), _batches(), per_image_loss, classes=n, **settings) for n in (4, 9))
    for name in four:
        torch.testing.assert_close(nine[name], four[name], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("importance", [i for i in IMPORTANCES if i != "random"])
def test_batch_size_and_a_short_last_batch_do_not_matter(vit, importance):
    """Batches of 6, of 4 and 2, and of 1 give equal scores."""
    sites = _sites("attn", "mlp")
    whole = _score(vit, sites, importance)
    for size in (4, 1):
        parts = _score(vit, sites, importance, batches=_batches(size))
        for name in whole:
            torch.testing.assert_close(parts[name], whole[name], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("tokens", "part"), [("all", slice(None)), ("cls", slice(3)), ("patches", slice(3, None))])
def test_tokens_chooses_what_a_score_sees(tokens, part):
    """`cls` is every prefix token (class and registers), `patches` all others."""
    model = attached("vit_registers", ()).model.double()
    (site,) = _sites("attn", family="vit_registers")[:1]
    features = [(z[part], g[part]) for z, g in _features(model, site)]
    expected = torch.tensor(_naive("taylor", features, labels().tolist()), dtype=torch.float64)
    found = _score(model, (site,), tokens=tokens)[site.name]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13)


def test_class_token_scores_of_a_model_without_one_are_refused():
    """SigLIP has no prefix tokens."""
    model = attached("vit_siglip", ()).model.double()
    with pytest.raises(ScoreError, match="without a class token"):
        _score(model, _sites("attn", family="vit_siglip"), tokens="cls")


class _Windows(nn.Module):
    """A model whose first layer sees windows of an image as a batch, and whose second has channels first."""

    def __init__(self) -> None:
        super().__init__()
        self.window = nn.Linear(12, 6)
        self.pixel = nn.Conv2d(6, 5, 1)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        n = len(x)
        x = x.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(n * 16, 3 * 16, 4).flatten(1)
        x = self.window(x.reshape(n * 16, 16, 12)).tanh()
        x = x.reshape(n, 16 * 16, 6).transpose(1, 2).reshape(n, 6, 16, 16)
        return self.head(self.pixel(x).tanh().mean((2, 3)))


@pytest.mark.parametrize(("path", "axis", "width"), [("window", -1, 6), ("pixel", 1, 5)])
def test_windows_are_regrouped_and_channels_found_in_their_axis(path, axis, width):
    """It is the gate's gradient where the layer sees windows x tokens, and where channels come first."""
    torch.manual_seed(0)
    model = _Windows().double()
    site = Site(0, "attn", path, width, 6, axis, has_bias=True)
    images, target = _batches()[0]
    gate = torch.ones(len(images), width, dtype=torch.float64, requires_grad=True)
    spread = gate.repeat_interleave(16, 0)[:, None] if path == "window" else gate[:, :, None, None]
    handle = model.get_submodule(path).register_forward_hook(lambda m, x, y: y * spread)
    (gradient,) = torch.autograd.grad(per_image_loss(model(images), target).sum(), gate)
    handle.remove()
    torch.testing.assert_close(_score(model, (site,))[site.name], gradient.abs().mean(0), rtol=1e-9, atol=1e-13)


def _rank_correlation(a: Tensor, b: Tensor) -> float:
    ranks = torch.stack([x.argsort().argsort().double() for x in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1])


def _rank_correlations(model: nn.Module, sites: tuple[Site, ...]) -> list[float]:
    """Of `taylor` with mean_n |L_n(channel zeroed) - L_n|, over the channels of each site."""
    scores, found = _score(model, sites), []
    images, target = _batches()[0]
    with torch.no_grad():
        before = per_image_loss(model(images), target)
        for site in sites:
            changes = torch.empty(site.width, dtype=torch.float64)
            for channel in range(site.width):
                gate = torch.ones(site.width, dtype=torch.float64)
                gate[channel] = 0
                with _gate(model, site, gate):
                    changes[channel] = (per_image_loss(model(images), target) - before).abs().mean()
            found.append(_rank_correlation(scores[site.name], changes))
    return found


@pytest.mark.parametrize("kind", ["attn", "mlp", "qkv", "fc1"])
def test_scores_rank_channels_as_zeroing_them_does(kind):
    """Spearman correlation with the loss change of zeroing a channel, in two small ViTs drawn by timm."""
    for seed in range(2):
        torch.manual_seed(seed)
        model = attached(BUILDERS["vit"](), (), draw=None, seed=seed).model.double()
        assert min(_rank_correlations(model, _sites(kind, family="vit"))) >= 0.95


@pytest.mark.parametrize("kind", ["attn", "mlp", "qkv"])
def test_scores_rank_channels_as_zeroing_them_does_where_nothing_is_small(kind):
    """So too with every weight drawn at order 1 (behind `fc1` a GELU follows, and first order says less)."""
    for seed in range(2):
        model = attached(tiny("vit", seed=seed), (), draw=None, seed=seed).model.double()
        assert min(_rank_correlations(model, _sites(kind, family="vit"))) >= 0.9


@pytest.mark.parametrize("norm", ["blocks.0.norm1", "blocks.1.norm2", "norm"])
def test_the_score_at_a_norm_is_scale_and_shift_times_their_gradients(vit, norm):
    """At a LayerNorm's output, sum over images and tokens of z dL/dz = gamma dL/dgamma + beta dL/dbeta."""
    images, target = _batches()[0]
    layer = vit.get_submodule(norm)
    loss = per_image_loss(vit(images), target).mean()
    d_gamma, d_beta = torch.autograd.grad(loss, [layer.weight, layer.bias])
    expected = (layer.weight * d_gamma + layer.bias * d_beta).abs().detach()
    site = Site(0, "attn", norm, WIDTH, WIDTH, -1, has_bias=True)
    found = _score(vit, (site,), "taylor_signed")[site.name]
    assert float(expected.max()) > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("kind", ["attn", "mlp", "fc1"])
def test_patches_behind_the_last_attention_decide_nothing_and_are_refused(vit, kind):
    """With a class-token read-out no gradient reaches them, so all scores are zero."""
    last = _sites(kind)[-1]
    scores = _score(vit, (last,), tokens="patches")
    assert 0.0 == float(scores[last.name].abs().max())
    with pytest.raises(ScoreError, match=f"site {last.name} that are all 0"):
        select_per_site(scores, dict.fromkeys(scores, 4))
    with pytest.raises(ScoreError, match="all 0"):
        select_by_budget(scores, (last,), 100, "map")


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_of_zeros_decides_nothing_and_is_refused(kind):
    """No gradient passes a head of zeros."""
    model = attached("vit", (), draw=None).model
    nn.init.zeros_(model.head.weight)
    sites = _sites(kind, family="vit")
    with pytest.raises(ScoreError, match="the head is all zero"):
        select_per_site(_score(model, sites, batches=[(pictures(), labels())]), {site.name: 4 for site in sites})


@pytest.mark.parametrize("importance", ["taylor", "taylor_weight", "l2", "random"])
def test_scoring_leaves_flags_hooks_gradients_and_tensors_alone(importance):
    """Nothing of a model in eval mode changes, also with maps attached and some parameters frozen."""
    model = attached("vit").model.eval()
    model.head.bias.requires_grad_(False)
    before = print_of(model)
    kinds = ("qkv",) if importance == "taylor_weight" else ("qkv", "fc1")
    _score(model, _sites(*kinds, family="vit"), importance, batches=[(pictures(), labels())])
    assert before == print_of(model)


def test_scoring_puts_the_model_into_eval_mode():
    """Scores are taken without dropout, and the model stays in eval mode."""
    model = attached(tiny("vit", proj_drop_rate=0.5, drop_path_rate=0.5), ()).model.train()
    batches = [(pictures(), labels())]
    first, again = (_score(model.train(), _sites("attn"), batches=batches) for _ in range(2))
    assert torch.equal(first["0.attn"], again["0.attn"])
    assert not any(m.training for m in model.modules())


def test_a_failure_while_scoring_leaves_flags_and_hooks_alone():
    """Here the loss raises in the second batch."""
    model = attached("vit", ()).model
    before, calls = print_of(model), []

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise ArithmeticError
        return per_image_loss(logits, target)

    batches = [(pictures(), labels())] * 2
    with pytest.raises(ArithmeticError):
        score(model, _sites("attn", "stream"), batches, loss, classes=CLASSES)
    assert before == print_of(model)


def test_scores_under_mixed_precision_are_summed_in_float32():
    """bfloat16 forward passes give float32 scores close to those of float32."""
    model, sites = attached("vit", (), draw=None).model, _sites("attn", "mlp", family="vit")
    batches = [(pictures(), labels())]
    exact = _score(model, sites, batches=batches)
    mixed = _score(model, sites, batches=batches, forward_context=lambda: torch.autocast("cpu", torch.bfloat16))
    for name in exact:
        assert torch.float32 == mixed[name].dtype
        torch.testing.assert_close(mixed[name], exact[name], rtol=0.1, atol=0.05 * float(exact[name].max()))


def test_scores_can_be_taken_where_gradients_are_switched_off():
    """A caller's `torch.no_grad` does not silence the score."""
    model, sites = attached("vit", ()).model, _sites("attn", family="vit")
    batches = [(pictures(), labels())]
    expected = _score(model, sites, batches=batches)
    with torch.no_grad():
        found = _score(model, sites, batches=batches)
    assert torch.equal(expected["1.attn"], found["1.attn"])


def test_checkpointed_activations_are_not_counted_twice():
    """Recomputing a block in the backward pass does not change its score."""
    model, sites = attached("vit", ()).model, _sites("attn", "stream", family="vit")
    batches = [(pictures(), labels())]
    expected = _score(model, sites, batches=batches)
    model.set_grad_checkpointing(True)
    found = _score(model, sites, batches=batches)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_nothing_of_a_batch_outlives_the_pass():
    """Neither the model nor the scores keep a graph alive."""
    model = attached("vit", ()).model
    scores = _score(model, _sites("attn"), batches=[(pictures(), labels())])
    assert all(s.grad_fn is None and not s.requires_grad for s in scores.values())
