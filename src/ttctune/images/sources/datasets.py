"""A torch data set of (image, label) pairs."""

from collections.abc import Sequence
from typing import Any

from ttctune.errors import DataError
from ttctune.images.pictures import LazyPictures, Picture, to_picture
from ttctune.images.sources.labels import plain_labels

_PAIR = "a pair (image, label) for each index"


def is_map_style(data: Any) -> bool:
    """Whether something has a length and can be indexed by number, as map-style data sets can."""
    return hasattr(type(data), "__len__") and hasattr(type(data), "__getitem__")


class DatasetPictures(LazyPictures):
    """The images of a map-style data set; each is asked for when it is needed, and not kept.

    Args:
        dataset: Has `__len__`, and `__getitem__` that gives (image, label).
        name: What to call the data set in a message.
    """

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset, self._name = dataset, name

    def __len__(self) -> int:
        return len(self._dataset)

    def picture(self, index: int) -> Picture:
        """The image as the data set gives it now, brought to one of the kinds of picture."""
        return to_picture(self.pair(index)[0], f"image {index} of {self._name}")

    def pair(self, index: int) -> tuple[Any, Any]:
        """Image and label as the data set gives them.

        Raises:
            DataError: The data set fails there, or gives something else than a pair.
        """
        try:
            item = self._dataset[index]
        except Exception as error:
            given = f"{self._name} fails at index {index} with {type(error).__name__}: {str(error)[:120]}"
            raise DataError(given, _PAIR, "repair the data set") from error
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            size = f" of {len(item)}" if isinstance(item, (tuple, list, dict)) else ""
            given = f"{self._name} gives a {type(item).__name__}{size} at index {index}"
            raise DataError(given, _PAIR, "wrap the data set so that it gives pairs")
        return item[0], item[1]


def read_dataset(dataset: Any, name: str) -> tuple[Sequence[Picture], list[int] | list[str], tuple[str, ...] | None]:
    """Pictures, labels and, where the data set names them, classes.

    Reading the labels asks the data set for every item once.

    Args:
        dataset: Has `__len__`, and `__getitem__` that gives (image, label).
        name: What to call the data set in a message.

    Returns:
        Pictures; labels, all integers or all strings; the data set's `classes` (of the data set it is a
        subset of, too), or None.

    Raises:
        DataError: It is empty, fails, or gives something else than pairs with one label.
    """
    pictures = DatasetPictures(dataset, name)
    if not len(pictures):
        raise DataError(f"{name} holds no images", "at least one", "add images")
    labels = plain_labels([pictures.pair(i)[1] for i in range(len(pictures))], f"the labels of {name}")
    return pictures, labels, _class_names(dataset)


def _class_names(dataset: Any) -> tuple[str, ...] | None:
    while not hasattr(dataset, "classes"):
        if not hasattr(dataset, "dataset"):
            return None
        dataset = dataset.dataset
    names = dataset.classes
    if not isinstance(names, (list, tuple)) or len(set(map(str, names))) < len(names):
        return None
    return tuple(str(name) for name in names)
