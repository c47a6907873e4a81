"""Old protocols, imitated so that old numbers can be reproduced, and labelled as such in every record.

Much public code for VTAB-1k normalises by ImageNet's colours whatever the backbone was trained with, or not at all, and
scores the test images during training and keeps the best of these accuracies. The second chooses on the test set: such
a number is no estimate of anything, and stands in no table of others.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ttctune.backbone.model import Backbone
from ttctune.errors import RecipeError

#: Mean and standard deviation of colours in [0, 1].
Colours = tuple[tuple[float, float, float], tuple[float, float, float]]
IMAGENET: Colours = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
UNCHANGED: Colours = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Legacy:
    """One old protocol.

    Attributes:
        colours: What pictures are normalised by, instead of what the backbone was trained with.
        every: Epochs after which the test images are scored, and the best accuracy is kept; None scores them once.
    """

    colours: Colours
    every: int | None = None

    def applied(self, backbone: Backbone) -> Backbone:
        """The backbone, described as taking pictures of these colours.

        Raises:
            RecipeError: It takes no colour pictures.
        """
        if backbone.input.channels != len(self.colours[0]):
            given = f"a legacy protocol with a model of {backbone.input.channels} channels"
            raise RecipeError(given, "a model of three", "leave --legacy out")
        mean, std = self.colours
        return replace(backbone, input=replace(backbone.input, mean=mean, std=std))


LEGACY: Mapping[str, Legacy] = {
    "imagenet-colours": Legacy(IMAGENET),
    "unchanged-colours": Legacy(UNCHANGED),
    "best-test-epoch": Legacy(IMAGENET, every=10),  # FacT, Convpass, RepAdapter and SCT as their code does it
}


@dataclass
class BestEpoch:
    """The guesses of that epoch which scored best among those that were looked at.

    Attributes:
        every: Epochs from one look to the next; the last epoch is not looked at here.
        guess: Guesses for the scored images, as the model stands.
        labels: Their labels.
        guesses: The best so far; None before the first look.
    """

    every: int
    guess: "Callable[[], np.ndarray[Any, Any]]"
    labels: "np.ndarray[Any, Any]"
    guesses: "np.ndarray[Any, Any] | None" = field(default=None, init=False)

    def look(self, epoch: int) -> None:
        """After so many epochs in all."""
        if epoch % self.every == 0:
            self.guesses = self.better_than(self.guess())

    def better_than(self, guesses: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        """These guesses, or earlier ones that were right more often."""
        if self.guesses is None or (guesses == self.labels).sum() > (self.guesses == self.labels).sum():
            return guesses
        return self.guesses
