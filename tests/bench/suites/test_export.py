"""A task written in the community's layout: which images, which labels, not a bit lost, whole or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.bench.vtab_tree import write_vtab_task
from tests.images.pictures import write_image_tree

from ttctune.bench.suites import VTAB, Task, data_of
from ttctune.bench.suites.export import Exported, choose, export
from ttctune.bench.suites.origins import Origin, from_folder, from_hugging_face, from_tfds
from ttctune.bench.suites.tfds_labels import LABELS, PIXELS
from ttctune.errors import DataError, FolderError

from .stand_ins import hugging_face, install, pixels, tensorflow_datasets


@pytest.fixture(autouse=True)
def _small(monkeypatch) -> None:
    """As if VTAB-1k took 8 and 4."""
    monkeypatch.setattr("ttctune.bench.suites.export.TRAIN", 8)
    monkeypatch.setattr("ttctune.bench.suites.export.VAL", 4)


def sizes_of(**sizes: int) -> Origin:
    """An origin of which only the sizes matter."""
    return Origin("here", sizes, lambda split, positions: iter(()))


def listed(folder: Path, name: str) -> list[tuple[Path, int]]:
    lines = (folder / f"{name}.txt").read_text().splitlines()
    return [(folder / file, int(label)) for file, label in (line.split(" ") for line in lines)]


class TestWhichImages:
    """How train, val and test are cut out of what the origin has."""

    def test_what_is_divided_into_800_and_200_already_is_taken_as_it_is(self):
        chosen, rule = choose(VTAB["eurosat"], sizes_of(train=8, validation=4, test=9), 0, False)
        assert chosen == {"train": ("train", range(8)), "val": ("validation", range(4)), "test": ("test", range(9))}
        assert "already" in rule

    def test_vtabs_rule_holds_where_the_origin_has_its_splits(self):
        chosen, rule = choose(VTAB["oxford_iiit_pet"], sizes_of(train=50, test=7), 0, True)
        assert chosen["train"] == ("train", range(8)) and chosen["val"] == ("train", range(40, 44))
        assert chosen["test"] == ("test", range(7)) and "oxford_iiit_pet" in rule

    def test_official_splits_come_before_a_rule_that_would_ignore_them(self):
        chosen, rule = choose(VTAB["eurosat"], sizes_of(train=50, validation=20, test=7), 0, True)
        assert [split for split, _ in chosen.values()] == ["train", "validation", "test"] and "official" in rule

    def test_a_shuffle_keeps_parts_apart_and_depends_on_the_seed_alone(self):
        origin = sizes_of(train=60)
        chosen = choose(VTAB["resisc45"], origin, 3, False)[0]
        positions = [position for _, part in chosen.values() for position in part]
        assert len(set(positions)) == len(positions) == 8 + 4 + 12
        assert chosen == choose(VTAB["resisc45"], origin, 3, False)[0] != choose(VTAB["resisc45"], origin, 4, False)[0]
        assert sorted(chosen["train"][1]) != list(range(8))

    @pytest.mark.parametrize(
        ("sizes", "said"),
        [({"train": 50}, "splits train; expected train, test or train, validation, test"), ({"other": 5}, "none of"),
         ({"train": 7, "test": 3}, "6 images in 0 to 90 % of train; expected at least 8"),
         ({"train": 20, "test": 3}, "2 images in 90 to 100 %"), ({"train": 50, "test": 0}, "0 images")],
    )  # fmt: skip
    def test_too_few_splits_or_images_are_refused(self, sizes, said):
        with pytest.raises(DataError, match=said):
            choose(VTAB["cifar"], sizes_of(**sizes), 0, False)


class TestFolder:
    """From a folder that ttctune reads."""

    def test_every_pixel_and_label_arrives_and_ttctune_reads_the_result(self, tmp_path):
        source = write_image_tree(tmp_path / "pets", 37, parts={"train": 2, "test": 1}, size=(9, 7))
        done = export(VTAB["oxford_iiit_pet"], from_folder(source), tmp_path / "vtab")
        folder = tmp_path / "vtab" / "oxford_iiit_pet"
        assert done.images == {"train": 8, "val": 4, "test": 37} and done.folder == str(folder)
        by_bytes = {np.asarray(Image.open(f)).tobytes(): int(f.parent.name[5:]) for f in source.rglob("*.png")}
        names = sorted(f"class{i}" for i in range(37))
        for part in ("train800", "val200", "test"):
            for file, label in listed(folder, part):
                assert (
                    file.suffix == ".png" and names[label] == f"class{by_bytes[np.asarray(Image.open(file)).tobytes()]}"
                )
        assert listed(folder, "train800val200") == listed(folder, "train800") + listed(folder, "val200")
        task = Task("oxford_iiit_pet", "natural", 37, folder)
        assert len(data_of(task, "test").labels) == 37 and len(data_of(task, "val").labels) == 4

    def test_lossy_grey_turned_and_transparent_pictures_become_what_ttctune_reads_of_them(self, tmp_path):
        source = write_image_tree(tmp_path / "source", 2, parts={"train": 4, "val": 2, "test": 1})
        first = source / "train" / "class0" / "000.png"
        first.unlink()
        exif = Image.Exif()
        exif[274] = 6
        noise = Image.effect_noise((20, 10), 90).convert("RGB")
        noise.save(first.with_suffix(".jpg"), exif=exif)
        Image.new("LA", (4, 4), (7, 0)).save(source / "train" / "class0" / "001.png")
        Image.new("I;16", (4, 4), 65535).save(source / "train" / "class0" / "002.png")
        export(VTAB["patch_camelyon"], from_folder(source), tmp_path / "vtab")
        written = [Image.open(file) for file, _ in listed(tmp_path / "vtab" / "patch_camelyon", "train800")[:3]]
        assert [(image.mode, image.size) for image in written] == [("RGB", (10, 20)), ("RGB", (4, 4)), ("L", (4, 4))]
        decoded = Image.open(first.with_suffix(".jpg")).transpose(Image.Transpose.ROTATE_270)
        assert np.array_equal(np.asarray(written[0]), np.asarray(decoded))
        assert [image.getpixel((0, 0)) for image in written[1:]] == [(7, 7, 7), 255]

    def test_what_is_written_can_be_exported_again_to_the_same_bits(self, tmp_path):
        source = write_vtab_task(tmp_path / "kitti", {"train": 8, "val": 4, "test": 5}, 4)
        for root in ("one", "two"):
            export(VTAB["kitti"], from_folder(source), tmp_path / root)
        files = [{p.relative_to(r): p.read_bytes() for p in r.rglob("*") if p.is_file() and p.suffix != ".json"}
                 for r in (tmp_path / "one", tmp_path / "two")]  # fmt: skip
        assert files[0] == files[1] and len(files[0]) == 17 + 4

    def test_the_record_says_origin_rule_classes_and_what_differs_from_vtab(self, tmp_path):
        source = write_image_tree(tmp_path / "cells", ("a", "b"), parts={"train": 4, "val": 2, "test": 1})
        done = export(VTAB["patch_camelyon"], from_folder(source), tmp_path / "vtab")
        record = json.loads((tmp_path / "vtab" / "patch_camelyon" / "export.json").read_text())
        assert record["origin"] == str(source) and record["classes"] == ["a", "b"] and record["rule"] == done.rule
        assert any("2 test images, not the 32,768" in note for note in record["notes"])

    def test_folders_called_by_numbers_keep_them_as_labels(self, tmp_path):
        names = [str(number) for number in range(12)]
        source = write_image_tree(tmp_path / "made", names, parts={"train": 2, "val": 1, "test": 1})
        for label in names:
            Image.new("L", (4, 4), int(label)).save(source / "test" / label / "000.png")
        origin = from_folder(source)
        assert origin.classes == tuple(names)
        read = origin.read("test", range(origin.sizes["test"]))
        assert [label for _, label in read] == [image.getpixel((0, 0)) for image, _ in origin.read("test", range(12))]


class TestHuggingFace:
    """From a data set as `datasets` gives it."""

    def test_columns_are_found_by_their_kind_and_pictures_arrive_bit_by_bit(self, tmp_path, monkeypatch):
        install(monkeypatch, hugging_face({"train": 100, "test": 5}, 100), "datasets")
        origin = from_hugging_face("me/set")
        export(VTAB["cifar"], origin, tmp_path, keep_order=True)
        folder = tmp_path / "cifar"
        for name, first in (("train800", 0), ("val200", 90), ("test", 1000)):
            for number, (file, label) in enumerate(listed(folder, name)):
                assert label == (first + number) % 1000
                assert np.array_equal(np.asarray(Image.open(file)), pixels(first + number))

    @pytest.mark.parametrize(
        ("config", "said"),
        [({"name": "me/other"}, "data set me/other: FileNotFoundError: Couldn't find any data file at me/other"),
         ({"label": "coarse"}, "column 'coarse' in me/set; expected one of fine_label; name it with --label"),
         ({"image": "picture"}, "column 'picture' in me/set; expected one of img; name it with --image")],
    )  # fmt: skip
    def test_what_is_not_there_is_refused_in_one_line(self, monkeypatch, config, said):
        install(monkeypatch, hugging_face({"train": 3}, 2), "datasets")
        with pytest.raises(DataError) as caught:
            from_hugging_face(**({"name": "me/set"} | config))
        assert said in str(caught.value) and "\n" not in str(caught.value)

    def test_several_columns_of_labels_have_to_be_chosen_from(self, monkeypatch):
        module = hugging_face({"train": 3}, 2)
        install(monkeypatch, module, "datasets")
        module.load_dataset("me/set")["train"].features["coarse_label"] = type("ClassLabel", (), {})()
        with pytest.raises(DataError, match=r"2 columns of type ClassLabel in me/set; .* fine_label, coarse"):
            from_hugging_face("me/set")

    def test_a_column_of_something_else_is_refused_where_it_is_read(self, tmp_path, monkeypatch):
        install(monkeypatch, hugging_face({"train": 8, "validation": 4, "test": 2}, 2), "datasets")
        for column, said in (({"image": "id"}, "is of type str"), ({"label": "id"}, "has the label '0'")):
            with pytest.raises(DataError, match=f"train 0 of me/set {said}"):
                export(VTAB["patch_camelyon"], from_hugging_face("me/set", **column), tmp_path / "vtab")
        assert not (tmp_path / "vtab").exists()

    def test_another_number_of_classes_is_refused_before_anything_is_written(self, tmp_path, monkeypatch):
        install(monkeypatch, hugging_face({"train": 8, "validation": 4, "test": 2}, 2), "datasets")
        with pytest.raises(DataError, match="2 classes; expected the 100 of cifar"):
            export(VTAB["cifar"], from_hugging_face("me/set"), tmp_path / "vtab")
        assert not (tmp_path / "vtab").exists()


class TestTfds:
    """From the benchmark's own source."""

    def test_the_slices_are_those_of_the_benchmarks_own_code(self, tmp_path, monkeypatch):
        asked: list[str] = []
        sizes = {"train": 7000, "validation": 15, "test": 15}
        example = {"objects": {"size": [0] * 5}}
        install(monkeypatch, tensorflow_datasets(sizes, lambda i: example | {"image": pixels(i)}, asked),
                "tensorflow_datasets")  # fmt: skip
        origin = from_tfds(VTAB["clevr_count"], "/data/tfds")
        done = export(VTAB["clevr_count"], origin, tmp_path)
        assert asked == ["clevr:3.*.* in /data/tfds", "prepared", "train[0:8]", "train[6300:6304]", "validation[0:15]"]
        assert [label for _, label in listed(tmp_path / "clevr_count", "train800")] == [2] * 8
        image = Image.open(tmp_path / "clevr_count" / "images" / "val200" / "000002.png")
        assert np.array_equal(np.asarray(image), pixels(6302))
        assert done.notes == ("15 test images, not the 15,000 of VTAB-1k",) and "order of the source" in done.rule

    @pytest.mark.parametrize("row", VTAB.values(), ids=lambda row: row.name)
    def test_every_task_has_a_label_and_a_picture_of_an_example_of_its_kind(self, row):
        example = {
            "image": np.ones((4, 4, 1), np.uint8),
            "label": np.int64(1),
            "objects": {"size": np.zeros(4), "pixel_coords": np.full((4, 3), 9.0), "type": np.array([0, 5]),
                        "location": np.array([[0, 0, 12.0], [0, 0, 3.0]])},
            "label_x_position": np.int64(31), "label_orientation": np.int64(39),
            "label_azimuth": np.int64(17), "label_elevation": np.int64(8),
        }  # fmt: skip
        expected = {"clevr_dist": 2, "kitti": 1, "dsprites_loc": 15, "dsprites_ori": 15, "smallnorb_azi": 17,
                    "smallnorb_ele": 8}.get(row.name, 1)  # fmt: skip
        assert LABELS.get(row.name, LABELS["label"])(example) == expected < row.classes
        picture = PIXELS.get(row.name, PIXELS["image"])(example)
        assert picture.max() == (255 if "dsprites" in row.name else 1) and picture.dtype == np.uint8

    @pytest.mark.parametrize(
        ("task", "distances", "label"),
        [("clevr_dist", [7.9, 30.0], 0), ("clevr_dist", [10.5, 12.0], 5), ("kitti", [], 3), ("kitti", [5.0, 80.0], 0),
         ("kitti", [25.0], 2)],
    )  # fmt: skip
    def test_the_nearest_object_decides_a_distance(self, task, distances, label):
        places = np.array([[0.0, 0.0, distance] for distance in distances]).reshape(-1, 3)
        objects = {"pixel_coords": places, "location": places, "type": np.zeros(len(distances), np.int64)}
        assert LABELS[task]({"objects": objects}) == label

    @pytest.mark.parametrize("value", range(40))
    def test_orientations_fall_into_16_classes_of_two_or_three(self, value):
        assert LABELS["dsprites_ori"]({"label_orientation": np.int64(value)}) == int(value / 2.5)

    def test_what_tfds_no_longer_has_as_vtab_took_it_is_said(self, tmp_path, monkeypatch):
        module = tensorflow_datasets({"train": 90, "test": 3}, lambda i: {"image": pixels(i), "label": i % 37}, [])
        install(monkeypatch, module, "tensorflow_datasets")
        row = VTAB["oxford_iiit_pet"]
        assert "VTAB used version 3" in export(row, from_tfds(row), tmp_path).notes[0]

    def test_a_failing_download_is_one_line(self, monkeypatch):
        module = tensorflow_datasets({"train": 3}, dict, [])
        module.builder = lambda name, data_dir=None: 1 / 0  # type: ignore[attr-defined]
        install(monkeypatch, module, "tensorflow_datasets")
        with pytest.raises(DataError, match=r"TFDS's dtd:3\.\*\.\*: ZeroDivisionError: division by zero; expected"):
            from_tfds(VTAB["dtd"])

    def test_a_source_that_ends_early_is_refused_and_nothing_is_left(self, tmp_path, monkeypatch):
        sizes = {"train": 90, "validation": 9, "test": 9}
        module = tensorflow_datasets(sizes, lambda i: {"image": pixels(i), "label": np.int64(0)}, [])
        module.as_numpy = lambda examples: examples[:7]  # type: ignore[attr-defined]
        install(monkeypatch, module, "tensorflow_datasets")
        with pytest.raises(DataError, match=r"train 7 of TFDS's dtd:3\.\*\.\* is missing"):
            export(VTAB["dtd"], from_tfds(VTAB["dtd"]), tmp_path / "vtab")
        assert not (tmp_path / "vtab").exists()


@pytest.mark.parametrize(
    ("open_it", "module", "command"),
    [
        (lambda: from_hugging_face("me/set"), "datasets", "pip install datasets"),
        (lambda: from_tfds(VTAB["dtd"]), "tensorflow_datasets", "pip install tensorflow tensorflow-datasets"),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_the_command_that_installs_it(
    monkeypatch, open_it, module, command
):
    install(monkeypatch, None, module)
    with pytest.raises(DataError, match=f"needs the package {module} .*{command}"):
        open_it()


class TestWholeOrNotAtAll:
    """The folder on disk."""

    @pytest.fixture
    def source(self, tmp_path) -> Origin:
        return from_folder(write_vtab_task(tmp_path / "source", {"train": 8, "val": 4, "test": 3}, 4))

    def export(self, source: Origin, root: Path, **how: bool) -> Exported:
        return export(VTAB["kitti"], source, root, **how)

    def test_a_task_that_is_there_is_replaced_only_on_demand(self, source, tmp_path):
        self.export(source, tmp_path / "vtab")
        before = (tmp_path / "vtab" / "kitti" / "test.txt").stat().st_mtime_ns
        with pytest.raises(FolderError, match="is taken"):
            self.export(source, tmp_path / "vtab")
        assert (tmp_path / "vtab" / "kitti" / "test.txt").stat().st_mtime_ns == before
        self.export(source, tmp_path / "vtab", overwrite=True)
        assert [path.name for path in (tmp_path / "vtab").iterdir()] == ["kitti"]

    def test_a_folder_of_somebody_else_stays(self, source, tmp_path):
        (tmp_path / "vtab" / "kitti").mkdir(parents=True)
        (tmp_path / "vtab" / "kitti" / "notes.txt").write_text("mine")
        with pytest.raises(FolderError, match="not ttctune's"):
            self.export(source, tmp_path / "vtab", overwrite=True)
        assert [path.name for path in (tmp_path / "vtab").rglob("*")] == ["kitti", "notes.txt"]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, DataError("a", "b", "c"), OSError(28, "No space left")])
    @pytest.mark.parametrize("at", [0, 9])
    def test_what_fails_midway_leaves_nothing(self, source, tmp_path, error, at):
        def broken(split, positions):
            for number, item in enumerate(source.read(split, positions)):
                if number == at % 8 and (split == "train") == (at < 8):
                    raise error
                yield item

        with pytest.raises((KeyboardInterrupt, DataError, FolderError)):
            self.export(Origin("broken", source.sizes, broken), tmp_path / "vtab")
        assert not (tmp_path / "vtab").exists()

    def test_a_label_beyond_the_classes_is_named_with_its_place(self, tmp_path):
        folder = write_vtab_task(tmp_path / "source", {"train": 8, "val": 4, "test": 3}, 4)
        read = from_folder(folder).read
        shifted = Origin("here", {"train": 8, "validation": 4, "test": 3}, lambda split, positions: (
            (image, label + 1) for image, label in read(split, positions)))  # fmt: skip
        with pytest.raises(DataError, match="train 3 of here has the label 4; expected 0 to 3"):
            self.export(shifted, tmp_path / "vtab")

    def test_progress_counts_every_image_once(self, source, tmp_path):
        seen: list[tuple[int, int]] = []
        export(VTAB["kitti"], source, tmp_path / "vtab", progress=lambda done, total: seen.append((done, total)))
        assert seen == [(done, 15) for done in range(1, 16)]
