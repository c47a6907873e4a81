"""Augmentation: what may change, what may not, and that a seed repeats it."""

import time

import pytest
import torch

import ttctune.torchvision_operators  # noqa: F401

# isort: split
from torchvision.transforms.v2 import functional

from ttctune.backbone.description import InputDescription
from ttctune.errors import DataError
from ttctune.images import Augmentation
from ttctune.images.normalisation import normalise

ALL = Augmentation(flip=True, crop=True, randaugment=9)


def _batch(b: int = 8, c: int = 3, h: int = 24, w: int = 17) -> torch.Tensor:
    return torch.randint(0, 256, (b, c, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("augmentation", [Augmentation(flip=True), Augmentation(crop=True), ALL])
@pytest.mark.parametrize("shape", [(8, 3, 24, 17), (1, 1, 9, 30), (2, 3, 5, 5)])
def test_shape_and_dtype_stay_and_the_batch_handed_over_too(augmentation, shape):
    """The result is a new uint8 tensor of the same shape; the input keeps its values."""
    images = _batch(*shape)
    before = images.clone()
    result = augmentation(images)
    assert result.shape == images.shape and result.dtype == torch.uint8 and torch.equal(before, images)


def test_torchs_global_seed_repeats_everything():
    """Equal seeds give equal batches, other seeds other ones."""
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(ALL(_batch()))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_flip_mirrors_about_half_of_the_images():
    """Each image is itself or its mirror image, and both occur about equally often."""
    torch.manual_seed(0)
    images = _batch(400, 3, 2, 4)
    result = Augmentation(flip=True)(images)
    mirrored = (result == images.flip(-1)).flatten(1).all(1)
    assert ((result == images).flatten(1).all(1) | mirrored).all()
    assert 150 < int(mirrored.sum()) < 250


def test_crop_moves_each_image_by_up_to_an_eighth_and_reflects_its_edges():
    """Every result is a window of torchvision's reflection padding, and the windows differ."""
    torch.manual_seed(0)
    images = _batch(30, 3, 24, 17)
    result = Augmentation(crop=True)(images)
    padded = functional.pad(images, [2, 3, 2, 3], padding_mode="reflect")
    found = []
    for image, window in zip(padded, result, strict=True):
        found.append(
            [(t, s) for t in range(7) for s in range(5) if torch.equal(image[:, t : t + 24, s : s + 17], window)]
        )
    assert all(found)
    assert {t for places in found for t, _ in places} == set(range(7))
    assert {s for places in found for _, s in places} == set(range(5))


def test_nothing_asked_is_nothing_changed():
    """Without an augmentation the very batch comes back."""
    images = _batch()
    assert Augmentation()(images) is images


@pytest.mark.parametrize("magnitude", [1, 30])
def test_randaugment_works_at_both_ends_of_its_range(magnitude):
    """The smallest and the largest magnitude give images."""
    torch.manual_seed(0)
    assert Augmentation(randaugment=magnitude)(_batch(16)).shape == (16, 3, 24, 17)


@pytest.mark.parametrize("magnitude", [-1, 31])
def test_a_magnitude_outside_the_range_is_refused(magnitude):
    """The message says the range."""
    with pytest.raises(DataError, match="from 1 to 30, or 0"):
        Augmentation(randaugment=magnitude)


def test_images_that_cannot_be_changed_are_refused():
    """Floats, single images and, for RandAugment, five channels."""
    for images in (_batch().float(), _batch()[0]):
        with pytest.raises(DataError, match="uint8 of shape"):
            ALL(images)
    with pytest.raises(DataError, match="set randaugment 0"):
        ALL(_batch(2, 5))


def test_flip_and_crop_are_cheap():
    """For 32 images of 224 pixels they cost no more than ten times what it costs to normalise them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        images, augmentation = _batch(32, 3, 224, 224), Augmentation(flip=True, crop=True)
        description = InputDescription(224, 224, (0.5,) * 3, (0.5,) * 3)
        augmenting, normalising = [], []
        for _ in range(8):
            start = time.process_time()
            augmentation(images)
            between = time.process_time()
            normalise(images, description, torch.device("cpu"))
            augmenting.append(between - start)
            normalising.append(time.process_time() - between)
    finally:
        torch.set_num_threads(threads)
    assert min(augmenting) < 10 * min(normalising), (min(augmenting), min(normalising))
