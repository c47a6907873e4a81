"""The 19 tasks of VTAB-1k as data: groups, classes, sizes, split rules, names, sources.

Split rules, labels and sizes are those of the benchmark's own code, google-research/task_adaptation: train800 is the
first 800 of what a rule calls train, val200 the first 200 of val, test the whole of test. Its order is the one in which
TensorFlow Datasets (TFDS) stores a data set, which is shuffled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ttctune.errors import DataError
from ttctune.images.sources.image_files import sub_folders

TRAIN, VAL = 800, 200
#: The lists of the community's layout, and the part that each is; train800val200.txt repeats the first two.
LISTS: Mapping[str, str] = {"train": "train800", "val": "val200", "test": "test"}
BOTH = "train800val200"
GROUPS = ("natural", "specialised", "structured")
CATALOGUE = "https://www.tensorflow.org/datasets/catalog/"


@dataclass(frozen=True)
class Piece:
    """A share of one split of the original data, in percent."""

    split: str
    start: int = 0
    stop: int = 100

    def of(self, images: int) -> range:
        """Its positions in a split of so many images."""
        return range(images * self.start // 100, images * self.stop // 100)


@dataclass(frozen=True)
class Rule:
    """Where train, val and test come from."""

    train: Piece
    val: Piece
    test: Piece

    @property
    def splits(self) -> frozenset[str]:
        """The splits of the original data that it needs."""
        return frozenset(piece.split for piece in (self.train, self.val, self.test))


OFFICIAL = Rule(Piece("train"), Piece("validation"), Piece("test"))


def _held_out(percent: int, test: str = "test") -> Rule:
    """Train is the first percent of train, val the rest of it."""
    return Rule(Piece("train", 0, percent), Piece("train", percent), Piece(test))


def _from_train(train: int, val: int) -> Rule:
    """All three are cut out of train."""
    return Rule(Piece("train", 0, train), Piece("train", train, train + val), Piece("train", train + val))


_HALF_OF_TEST = Rule(Piece("train"), Piece("test", 0, 50), Piece("test", 50))


@dataclass(frozen=True)
class VtabTask:
    """One of the 19.

    Attributes:
        name: Also that of its folder.
        group: natural, specialised or structured.
        classes: Labels are 0 to classes - 1.
        test: Number of test images.
        rule: How the original data are split.
        tfds: The data set in TFDS.
        original: How the images are stored at the source: arrays, PNG or JPEG.
        aliases: Other names of the folder; case does not count.
        by_hand: TFDS cannot fetch it: its page says how to.
        repeats: The data set itself holds equal pictures, also in train and test.
        remark: In what TFDS gives something else today than VTAB took from it.
    """

    name: str
    group: str
    classes: int
    test: int
    rule: Rule
    tfds: str
    original: Literal["arrays", "PNG", "JPEG"]
    aliases: tuple[str, ...] = ()
    by_hand: bool = False
    repeats: bool = False
    remark: str = ""

    @property
    def sizes(self) -> dict[str, int]:
        """Part -> number of images."""
        return {"train": TRAIN, "val": VAL, "test": self.test}

    @property
    def page(self) -> str:
        """Where the data set is described."""
        return CATALOGUE + self.tfds.partition(":")[0].partition("/")[0]


#: Name -> task, in the order of the benchmark's tables. The orientations of dSprites run from 0 to a full turn, both
#: included, so equal pictures are in the nature of that data set.
VTAB: Mapping[str, VtabTask] = {
    row.name: row
    for row in (
        VtabTask("cifar", "natural", 100, 10_000, _held_out(90), "cifar100:3.*.*", "arrays",
                 ("cifar100", "cifar_100", "cifar-100", "cifar(num_classes=100)")),
        VtabTask("caltech101", "natural", 102, 6_084, _held_out(90), "caltech101:3.*.*", "JPEG", ("caltech",)),
        VtabTask("dtd", "natural", 47, 1_880, OFFICIAL, "dtd:3.*.*", "JPEG"),
        VtabTask("oxford_flowers102", "natural", 102, 6_149, OFFICIAL, "oxford_flowers102:2.*.*", "JPEG",
                 ("flowers102", "flowers")),
        VtabTask("oxford_iiit_pet", "natural", 37, 3_669, _held_out(80), "oxford_iiit_pet:4.*.*", "JPEG",
                 ("pets", "oxford_pet", "oxford_pets"),
                 remark="VTAB used version 3 of oxford_iiit_pet, which TFDS no longer has; 4 repaired some images"),
        VtabTask("svhn", "natural", 10, 26_032, _held_out(90), "svhn_cropped:3.*.*", "arrays", ("svhn_cropped",)),
        VtabTask("sun397", "natural", 397, 21_750, OFFICIAL, "sun397/tfds:4.*.*", "JPEG"),
        VtabTask("patch_camelyon", "specialised", 2, 32_768, OFFICIAL, "patch_camelyon:2.*.*", "arrays", ("camelyon",)),
        VtabTask("eurosat", "specialised", 10, 5_400, _from_train(60, 20), "eurosat/rgb:2.*.*", "JPEG"),
        VtabTask("resisc45", "specialised", 45, 6_300, _from_train(60, 20), "resisc45:3.*.*", "JPEG", by_hand=True),
        VtabTask("diabetic_retinopathy", "specialised", 5, 42_670, OFFICIAL,
                 "diabetic_retinopathy_detection/btgraham-300:3.*.*", "JPEG",
                 ("retinopathy", "btgraham-300", "diabetic_retinopathy(config=\"btgraham-300\")"), by_hand=True),
        VtabTask("clevr_count", "structured", 8, 15_000, _held_out(90, "validation"), "clevr:3.*.*", "PNG",
                 ("clevr(count_all)", "clevr(task=\"count_all\")")),
        VtabTask("clevr_dist", "structured", 6, 15_000, _held_out(90, "validation"), "clevr:3.*.*", "PNG",
                 ("clevr(closest_object_distance)", "clevr(task=\"closest_object_distance\")")),
        VtabTask("dmlab", "structured", 6, 22_735, OFFICIAL, "dmlab:2.*.*", "JPEG"),
        VtabTask("kitti", "structured", 4, 711, OFFICIAL, "kitti:3.*.*", "PNG",
                 ("kitti(closest_vehicle_distance)", "kitti(task=\"closest_vehicle_distance\")")),
        VtabTask("dsprites_loc", "structured", 16, 73_728, _from_train(80, 10), "dsprites:2.*.*", "arrays",
                 ("label_x_position", "dsprites(predicted_attribute=\"label_x_position\",num_classes=16)"),
                 repeats=True),
        VtabTask("dsprites_ori", "structured", 16, 73_728, _from_train(80, 10), "dsprites:2.*.*", "arrays",
                 ("label_orientation", "dsprites(predicted_attribute=\"label_orientation\",num_classes=16)"),
                 repeats=True),
        VtabTask("smallnorb_azi", "structured", 18, 12_150, _HALF_OF_TEST, "smallnorb:2.*.*", "arrays",
                 ("label_azimuth", "smallnorb(predicted_attribute=\"label_azimuth\")")),
        VtabTask("smallnorb_ele", "structured", 9, 12_150, _HALF_OF_TEST, "smallnorb:2.*.*", "arrays",
                 ("label_elevation", "smallnorb(predicted_attribute=\"label_elevation\")")),
    )
}  # fmt: skip


def row_of(name: str) -> VtabTask:
    """The task of that name or alias.

    Raises:
        DataError: There is none.
    """
    for row in VTAB.values():
        if name.lower() in _names(row):
            return row
    raise DataError(f"task {name!r}", f"one of VTAB's: {', '.join(VTAB)}", "correct the name")


def folder_of(row: VtabTask, root: Path) -> Path | None:
    """The folder of a task below `root`, under its name or an alias; None where there is none.

    Raises:
        DataError: There are two, or `root` is no folder.
    """
    found = [path for path in folders_in(root) if path.name.lower() in _names(row)]
    if len(found) > 1:
        given = f"{root} has two folders for {row.name}, {found[0].name} and {found[1].name}"
        raise DataError(given, "one", "keep one of them")
    return found[0] if found else None


def folders_in(root: Path) -> list[Path]:
    """The folders directly below `root`.

    Raises:
        DataError: It is no folder.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DataError(f"{root} {what}", "a folder with a folder per task", "check the path")
    return sub_folders(root)


def where_to_get(row: VtabTask, root: Path) -> str:
    """The command that writes a task below `root`."""
    by_hand = f", after fetching it by hand ({row.page})" if row.by_hand else ""
    return f"`ttctune vtab export --from tfds --task {row.name} -o {root}`{by_hand}"


def _names(row: VtabTask) -> tuple[str, ...]:
    return (row.name, *row.aliases)
