"""Batches and the order of epochs."""

import pytest
import torch

from ttctune.errors import DataError
from ttctune.images import LabelledImages, epoch_order


def _images(n: int = 10) -> LabelledImages:
    images = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 3, 2, 2).contiguous()
    return LabelledImages(images, torch.arange(n))


def test_batches_visit_every_image_once_and_the_last_may_be_smaller():
    """Sizes 4, 4, 2 for ten images; images and labels stay together."""
    batches = list(_images().batches(4))
    assert [4, 4, 2] == [len(labels) for _, labels in batches]
    assert list(range(10)) == torch.cat([labels for _, labels in batches]).tolist()
    assert all(torch.equal(images[:, 0, 0, 0].long(), labels) for images, labels in batches)


def test_batches_follow_the_order_given():
    """An order may also leave images out or repeat them."""
    order = torch.tensor([7, 2, 2, 9])
    batches = list(_images().batches(3, order=order))
    assert [[7, 2, 2], [9]] == [labels.tolist() for _, labels in batches]
    assert [7, 2, 2, 9] == torch.cat([images[:, 0, 0, 0] for images, _ in batches]).tolist()


def test_a_batch_size_below_one_is_refused_at_once():
    """The error comes from the call, not from the first step of the loop."""
    with pytest.raises(DataError, match="batch size 0"):
        _images().batches(0)


def test_images_and_labels_must_fit():
    """Another dtype, shape or number is refused."""
    good = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    for images, labels in (
        (good.float(), torch.zeros(2, dtype=torch.int64)),
        (good[0], torch.zeros(3, dtype=torch.int64)),
        (good, torch.zeros(3, dtype=torch.int64)),
        (good, torch.zeros(2)),
    ):
        with pytest.raises(DataError):
            LabelledImages(images, labels)


def test_the_order_of_an_epoch_depends_on_its_arguments_alone():
    """The global generator neither decides the order nor notices it being drawn."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = epoch_order(50, seed=3, epoch=2)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first, epoch_order(50, seed=3, epoch=2))
    assert list(range(50)) == first.sort().values.tolist() and first.dtype == torch.int64


def test_every_seed_and_epoch_has_an_order_of_its_own():
    """Neighbouring seeds and epochs do not share orders: (0, 1) is not (1, 0)."""
    orders = {tuple(epoch_order(20, seed, epoch).tolist()) for seed in range(-3, 5) for epoch in range(8)}
    assert 64 == len(orders)
    assert len(epoch_order(5, seed=2**70, epoch=0)) == 5
