"""How much each channel matters to the task: first-order Taylor expansion of the loss, and its rivals.

z is a site's output, g = dL_n/dz its gradient, n an image, t a token, L_n the loss of image n. Cutting channel c off
changes L_n by about -T[n,c], where T[n,c] = sum_t z[n,t,c] g[n,t,c] is also the gradient of a gate a_c = 1 on the
channel. Every reading of "importance by Taylor expansion" is a value per image and a way to join the images:

    taylor           |T|                    mean over images       (Molchanov et al. 2017; the default)
    taylor_tokens    sum_t |z g|            mean over images       (no cancellation between tokens)
    taylor_signed    T                      |mean over images|     (no absolute value inside)
    taylor_squared   T^2                    mean over images       (Molchanov et al. 2019)
    taylor_class     |T|                    mean over classes of the mean over a class's images
    taylor_weight    sum_j |W_cj dL/dW_cj|  L the mean loss        (on the layer's own weights)
    taylor_map       c's place in an order  L the mean loss        (by the map that stage 2 will tune; see below)

To first order a map M on the channels S changes L by sum_ij G_ij M_ij over S x S, where G_ij = sum_t z_j g_i, mean
over images, so the best map of size e lowers it by e |G[S,S]| (Frobenius). taylor_map drops channels one by one, each
time the one with the least share of |G[S,S]|^2 among those left; the later a channel is dropped, the higher its score.

Controls: gradient (|sum_t g|, mean), l2 (norm over a class's images and tokens, mean over classes; as SCT does with
tokens = patches), random, and lowest (a site's largest taylor score minus the channel's own, so that the least
important come first).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from ttctune.backbone.model import Site
from ttctune.errors import ScoreError

#: Logits (N x classes) and labels (N) -> loss of each image (N).
PerImageLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Reading:
    """A score: a value per image, and how the images are joined.

    Attributes:
        value: z, g (N x T x C) -> N x C.
        join: sums over the images of each class (classes x C), images of each class (classes x 1) -> C.
    """

    value: Callable[[Tensor, Tensor], Tensor]
    join: Callable[[Tensor, Tensor], Tensor]


def _gate_gradient(z: Tensor, g: Tensor) -> Tensor:
    return (z * g).sum(1)


def _image_mean(sums: Tensor, counts: Tensor) -> Tensor:
    return sums.sum(0) / counts.sum()


def _turned_image_mean(sums: Tensor, counts: Tensor) -> Tensor:
    mean = _image_mean(sums, counts)
    return mean.max() - mean


def _class_mean(sums: Tensor, counts: Tensor) -> Tensor:
    present = counts.squeeze(1) > 0
    return (sums[present] / counts[present]).mean(0)


def _class_norm(sums: Tensor, counts: Tensor) -> Tensor:
    return sums[counts.squeeze(1) > 0].sqrt().mean(0)


READINGS: Mapping[str, Reading] = {
    "taylor": Reading(lambda z, g: _gate_gradient(z, g).abs(), _image_mean),
    "taylor_tokens": Reading(lambda z, g: (z * g).abs().sum(1), _image_mean),
    "taylor_signed": Reading(_gate_gradient, lambda sums, counts: _image_mean(sums, counts).abs()),
    "taylor_squared": Reading(lambda z, g: _gate_gradient(z, g).square(), _image_mean),
    "taylor_class": Reading(lambda z, g: _gate_gradient(z, g).abs(), _class_mean),
    "gradient": Reading(lambda z, g: g.sum(1).abs(), _image_mean),
    "l2": Reading(lambda z, g: z.square().sum(1), _class_norm),
    "lowest": Reading(lambda z, g: _gate_gradient(z, g).abs(), _turned_image_mean),
}


@dataclass(frozen=True)
class MatrixReading:
    """A score by the gradient of a matrix, which acts on every token of a site.

    Attributes:
        columns: model, site -> columns of the matrix, which has a row for each channel.
        factor: z, x (... x T x C, ... x T x inputs) -> what the matrix is multiplied by, ... x T x columns.
        join: model, site, gradient of the mean loss (C x columns) -> C.
    """

    columns: Callable[[nn.Module, Site], int]
    factor: Callable[[Tensor, Tensor], Tensor]
    join: Callable[[nn.Module, Site, Tensor], Tensor]


def _weight_of(model: nn.Module, site: Site) -> Tensor:
    if site.kind == "stream":
        raise ScoreError("importance = taylor_weight at stream", "sites that have weights", "change --importance")
    return cast(nn.Linear, model.get_submodule(site.path)).weight.detach().flatten(1)


def _order_of_dropping(model: nn.Module, site: Site, gradient: Tensor) -> Tensor:
    """How many channels are dropped before each, times |G|."""
    squares = gradient.cpu().double().square()
    pairs = squares + squares.T
    shares, order = pairs.sum(1) - squares.diagonal(), torch.empty_like(pairs[0])
    for place in range(len(order)):
        least = shares.argmin()
        order[least] = place
        shares = (shares - pairs[least]).index_fill(0, least, torch.inf)
    return order * squares.sum().sqrt()


MATRIX_READINGS: Mapping[str, MatrixReading] = {
    "taylor_weight": MatrixReading(
        lambda model, site: _weight_of(model, site).shape[1],
        lambda z, x: x,
        lambda model, site, gradient: (_weight_of(model, site) * gradient).abs().sum(1),
    ),
    "taylor_map": MatrixReading(lambda model, site: site.width, lambda z, x: z, _order_of_dropping),
}

#: Which of T tokens a score sees, by the number of prefix tokens (class, distillation, registers).
TOKENS: Mapping[str, Callable[[int], slice]] = {
    "all": lambda prefix: slice(None),
    "patches": lambda prefix: slice(prefix, None),
    "cls": lambda prefix: slice(prefix),
}


def score(
    model: nn.Module,
    sites: Sequence[Site],
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: PerImageLoss,
    *,
    classes: int,
    importance: str = "taylor",
    tokens: str = "all",
    seed: int = 0,
    forward_context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    sum_: Callable[[Sequence[Tensor]], None] = lambda sums: None,
) -> dict[str, Tensor]:
    """One streamed pass over the training images; no feature map is kept.

    Args:
        model: The model as it stands after stage 1, logits from normalised images; put into eval mode here.
        sites: Where to score.
        batches: Normalised images (N x C x H x W) and int64 labels (N).
        loss: Loss of each image; summed, so that a short last batch weighs as much as it should.
        classes: Number of classes.
        importance: A reading of the table above.
        tokens: "all", "patches" or "cls" (every prefix token).
        seed: For `random`.
        forward_context: Entered around each forward pass (mixed precision); products and sums are float32 or wider.
        sum_: Adds to these tensors, in place, what other processes have found on other images.

    Returns:
        Site name -> score, float32 or float64, C, on the CPU.

    Raises:
        ScoreError: The model has no prefix tokens and `tokens` asks for them.
    """
    if importance == "random":
        generator = torch.Generator().manual_seed(seed)
        return {site.name: torch.rand(site.width, generator=generator) for site in sites}
    observer = _observer(model, sites, classes, importance, tokens)
    model.eval()
    trained = [p for p in model.parameters() if p.requires_grad]
    handles = [_watch(model, site, observer) for site in sites]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        for images, labels in batches:
            observer.labels = labels
            with torch.enable_grad():
                with forward_context():
                    logits = model(images)
                loss(_wide(logits), labels).sum().backward()
    finally:
        for handle in handles:
            handle.remove()
        for parameter in trained:
            parameter.requires_grad_(True)
    sum_(observer.partial_sums)
    scores = observer.scores()
    return {site.name: scores[site.name] for site in sites}


def prefix_tokens(model: nn.Module, tokens: str) -> int:
    """How many tokens (class, distillation, registers) stand before the patches.

    Raises:
        ScoreError: There are none, and `tokens` asks for them.
    """
    prefix = int(getattr(model, "num_prefix_tokens", 0))
    if tokens == "cls" and not prefix:
        raise ScoreError("tokens = cls on a model without a class token", "tokens = all or patches", "change --tokens")
    return prefix


def _observer(
    model: nn.Module, sites: Sequence[Site], classes: int, importance: str, tokens: str
) -> "_ImageScores | _MatrixScores":
    seen = TOKENS[tokens](prefix_tokens(model, tokens))
    if importance in MATRIX_READINGS:
        return _MatrixScores(MATRIX_READINGS[importance], model, sites, seen)
    dtype = torch.promote_types(next(model.parameters()).dtype, torch.float32)
    return _ImageScores(READINGS[importance], sites, classes, seen, dtype)


class _ImageScores:
    """A value per image, added up by class."""

    labels: Tensor

    def __init__(self, reading: Reading, sites: Sequence[Site], classes: int, seen: slice, dtype: torch.dtype) -> None:
        self.reading, self.seen = reading, seen
        self.sums = {site.name: torch.zeros(classes, site.width, dtype=dtype) for site in sites}
        self.counts = {site.name: torch.zeros(classes, 1, dtype=dtype) for site in sites}

    def see(self, site: Site, z: Tensor, x: Tensor, g: Tensor) -> None:
        n, labels = len(self.labels), self.labels.cpu()
        value = self.reading.value(_tokens(z, n, site.axis, self.seen), _tokens(g, n, site.axis, self.seen)).cpu()
        self.sums[site.name].index_add_(0, labels, value)
        self.counts[site.name].index_add_(0, labels, value.new_ones(n, 1))

    @property
    def partial_sums(self) -> list[Tensor]:
        return [*self.sums.values(), *self.counts.values()]

    def scores(self) -> dict[str, Tensor]:
        return {name: self.reading.join(self.sums[name], self.counts[name]) for name in self.sums}


class _MatrixScores:
    """The gradient of a matrix at each site, added up over images."""

    labels: Tensor

    def __init__(self, reading: MatrixReading, model: nn.Module, sites: Sequence[Site], seen: slice) -> None:
        self.reading, self.model, self.sites, self.seen = reading, model, sites, seen
        like = _wide(next(model.parameters()).detach())
        self.gradients = {s.name: like.new_zeros(s.width, reading.columns(model, s)) for s in sites}
        self.images = {s.name: torch.zeros((), dtype=torch.int64) for s in sites}

    def see(self, site: Site, z: Tensor, x: Tensor, g: Tensor) -> None:
        n = len(self.labels)
        rows, columns = (_tokens(t, n, site.axis, self.seen).flatten(0, 1) for t in (g, self.reading.factor(z, x)))
        self.gradients[site.name] += rows.T @ columns
        self.images[site.name] += n

    @property
    def partial_sums(self) -> list[Tensor]:
        return [*self.gradients.values(), *self.images.values()]

    def scores(self) -> dict[str, Tensor]:
        means = {name: gradient / self.images[name] for name, gradient in self.gradients.items()}
        return {site.name: self.reading.join(self.model, site, means[site.name]).cpu() for site in self.sites}


def _watch(model: nn.Module, site: Site, observer: _ImageScores | _MatrixScores) -> Any:
    """Let the observer see output, its gradient and input at each backward pass through the site."""

    def attach(z: Tensor, x: Tensor) -> None:
        if not z.requires_grad:
            z.requires_grad_()
        # the hook must not hold z itself: graph and hook would keep each other alive
        z.register_hook(partial(observer.see, site, z.detach(), x.detach()))

    layer = model.get_submodule(site.path)
    if site.kind == "stream":
        return layer.register_forward_pre_hook(lambda module, inputs: attach(inputs[0], inputs[0]))
    return layer.register_forward_hook(lambda module, inputs, output: attach(output, inputs[0]))


def _tokens(tensor: Tensor, images: int, axis: int, seen: slice) -> Tensor:
    """N x T x C in float32 or wider, windows and patches regrouped to their image."""
    tensor = tensor.movedim(axis, -1)
    return _wide(tensor.reshape(images, -1, tensor.shape[-1])[:, seen])


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor
