"""How VTAB makes labels and pictures of the examples of TensorFlow Datasets, where they are not there as such."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ttctune.errors import DataError

Example = Mapping[str, Any]

#: A distance belongs to the last threshold below it.
CLEVR_DISTANCES = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
KITTI_DISTANCES = (-100.0, 8.0, 20.0, 999.0)
NO_VEHICLE = 1000.0
#: KITTI's types below this one are cars, vans and trucks.
_FIRST_OTHER_TYPE = 3
_FEWEST_OBJECTS = 3


def plain_label(value: Any, name: str = "the label") -> int:
    """A label as an integer.

    Raises:
        DataError: It is none.
    """
    try:
        return operator.index(value)
    except TypeError:
        given = f"{name} has the label {str(value)[:80]!r}"
        raise DataError(given, "an integer from 0", "choose the column of the labels") from None


def _below(distance: float, thresholds: tuple[float, ...]) -> int:
    return int(np.max(np.nonzero(np.asarray(thresholds) - distance < 0)[0]))


def _column(name: str) -> Callable[[Example], int]:
    return lambda example: plain_label(example[name])


def _clevr_count(example: Example) -> int:
    return len(example["objects"]["size"]) - _FEWEST_OBJECTS


def _clevr_distance(example: Example) -> int:
    return _below(float(np.min(np.asarray(example["objects"]["pixel_coords"])[:, 2])), CLEVR_DISTANCES)


def _kitti_distance(example: Example) -> int:
    types, places = np.asarray(example["objects"]["type"]), np.asarray(example["objects"]["location"])
    distances = places.reshape(-1, 3)[types < _FIRST_OTHER_TYPE, 2]
    return _below(float(min([*distances, NO_VEHICLE])), KITTI_DISTANCES)


def _binned(name: str, values: int, classes: int) -> Callable[[Example], int]:
    """So many values in so many classes of equal width."""
    return lambda example: int(plain_label(example[name]) // (values / classes))


#: Task -> its label; "label" for all that have it as such.
LABELS: Mapping[str, Callable[[Example], int]] = {
    "label": _column("label"),
    "clevr_count": _clevr_count,
    "clevr_dist": _clevr_distance,
    "kitti": _kitti_distance,
    "dsprites_loc": _binned("label_x_position", 32, 16),
    "dsprites_ori": _binned("label_orientation", 40, 16),
    "smallnorb_azi": _column("label_azimuth"),
    "smallnorb_ele": _column("label_elevation"),
}


def _as_it_is(example: Example) -> Any:
    return np.asarray(example["image"])


def _from_bits(example: Example) -> Any:
    return np.asarray(example["image"], dtype=np.uint8) * np.uint8(255)


#: Task -> its picture, H x W x C; "image" for all that have it as such. dSprites are stored as 0 and 1.
PIXELS: Mapping[str, Callable[[Example], Any]] = {
    "image": _as_it_is,
    "dsprites_loc": _from_bits,
    "dsprites_ori": _from_bits,
}
