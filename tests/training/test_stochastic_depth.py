"""Branches are left out for some images: for which, how often, and not in evaluation."""

import pytest
import torch
from tests.models import backbone_of, tiny
from timm.layers import DropPath

from ttctune.backbone.model import structural_copy
from ttctune.training.stochastic_depth import Draws, StochasticDepth, stochastic_depth


def drawn(images: int, branches: int = 2) -> Draws:
    numbers = torch.rand(images, branches, generator=torch.Generator().manual_seed(0))
    return Draws(numbers=numbers)


def test_the_rate_grows_with_depth_and_the_model_is_itself_again_afterwards():
    backbone = backbone_of(tiny("vit"))
    model = structural_copy(backbone.model)
    kinds = {name: type(module) for name, module in model.named_modules()}
    with stochastic_depth(model, backbone, 0.3) as draws:
        depths = [module for module in model.modules() if isinstance(module, StochasticDepth)]
        assert [(m.rate, m.index) for m in depths] == [(0.0, 0), (0.0, 1), (0.3, 2), (0.3, 3)]
        assert draws.branches == 4
    assert {name: type(module) for name, module in model.named_modules()} == kinds


def test_without_a_rate_nothing_is_left_out_even_where_the_model_has_a_rate_of_its_own():
    backbone = backbone_of(tiny("vit"))
    own = [DropPath(0.5) for _ in backbone.model.blocks]
    for block, module in zip(backbone.model.blocks, own, strict=True):
        block.drop_path1 = module
    with stochastic_depth(backbone.model, backbone, 0.0) as draws:
        assert draws.branches == 0
        assert not any(isinstance(module, DropPath | StochasticDepth) for module in backbone.model.modules())
    assert [block.drop_path1 for block in backbone.model.blocks] == own


def test_a_branch_is_left_out_for_the_images_whose_number_is_below_the_rate():
    draws = Draws(numbers=torch.tensor([[0.9, 0.1], [0.2, 0.7], [0.25, 0.25]]))
    first, second = StochasticDepth(0.25, draws).train(), StochasticDepth(0.5, draws).train()
    branch = torch.randn(3, 4, 5)
    assert torch.equal(first(branch), branch * torch.tensor([4 / 3, 0, 4 / 3]).view(3, 1, 1))
    assert torch.equal(second(branch), branch * torch.tensor([0.0, 2, 0]).view(3, 1, 1))


def test_the_mean_stays():
    depth = StochasticDepth(0.3, drawn(40_000, 1)).train()
    assert float(depth(torch.ones(40_000, 1)).mean()) == pytest.approx(1, abs=0.02)


def test_parts_of_one_image_share_its_fate():
    """Windows or patches that a layer sees as rows of the batch, those of an image behind each other."""
    depth = StochasticDepth(0.5, Draws(numbers=torch.tensor([[0.9], [0.1], [0.6]]))).train()
    in_parts = depth(torch.ones(12, 1)).flatten().tolist()
    assert in_parts == [2.0] * 4 + [0.0] * 4 + [2.0] * 4


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 2), (4, 3, 2, 5)])
def test_nothing_is_left_out_in_evaluation_or_at_rate_zero(shape):
    branch = torch.randn(shape)
    assert StochasticDepth(0.9, drawn(4)).eval()(branch) is branch
    assert StochasticDepth(0.0, drawn(4)).train()(branch) is branch


@pytest.mark.parametrize("family", ["vit", "swin", "hiera", "maxvit", "mobilevit", "convnext", "eva", "tiny_vit"])
def test_images_differ_in_what_is_left_out_and_only_there(family):
    """With numbers of one no branch is left out, with zeros all are; an image does not see those of its neighbours."""
    backbone = backbone_of(tiny(family))
    model = structural_copy(backbone.model).double()
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad(), stochastic_depth(model, backbone, 0.5) as draws:
        model.eval()
        for module in model.modules():
            if isinstance(module, StochasticDepth):
                module.train()
        kept, left = torch.ones(3, draws.branches), torch.zeros(3, draws.branches)
        mixed = kept.clone()
        mixed[1] = 0
        outputs = []
        for draws.numbers in (kept, left, mixed):
            outputs.append(model(images))
    all_kept, all_left, only_one = outputs
    assert torch.allclose(only_one[[0, 2]], all_kept[[0, 2]]) and torch.allclose(only_one[1], all_left[1])
    assert (all_kept - all_left).abs().max() > 1e-6
