"""What `ttctune vtab check` finds in copies that are right, incomplete, mixed up or damaged."""

import shutil
from pathlib import Path

import pytest
from PIL import Image
from tests.bench.vtab_tree import COUNTS, write_vtab_task, write_vtab_tree

from ttctune.bench.suites import VTAB, Task, data_of
from ttctune.bench.suites.check import Finding, check_vtab, foreign_folders
from ttctune.bench.suites.copies import DEFAULT_JPEG, describe_copy, encoding_of
from ttctune.errors import DataError


@pytest.fixture
def kitti(small, tmp_path) -> Path:
    """One task, with nothing wrong."""
    return write_vtab_task(tmp_path / "vtab" / "kitti", COUNTS, 4)


def found(root: Path, task: str = "kitti", **how: bool) -> Finding:
    return next(finding for finding in check_vtab(root, **how) if finding.task == task)


@pytest.mark.slow
def test_a_task_of_vtabs_own_size_is_ok(tmp_path):
    write_vtab_task(tmp_path / "kitti", VTAB["kitti"].sizes, 4, side=8)
    finding = found(tmp_path)
    assert finding.state == "ok" and finding.images == {"train": 800, "val": 200, "test": 711}


def test_a_whole_task_is_ok_and_the_others_say_how_to_get_them(kitti):
    findings = check_vtab(kitti.parent)
    assert [finding.task for finding in findings] == list(VTAB)
    states = {finding.task: finding.state for finding in findings}
    assert states.pop("kitti") == "ok" and set(states.values()) == {"missing"}
    whole = found(kitti.parent)
    assert whole.images == COUNTS and whole.classes == 4 and not whole.problems
    assert (whole.copy, whole.lossy) == ("lossless (PNG)", False)
    assert "vtab export --from tfds --task dtd" in found(kitti.parent, "dtd").problems[0]


def test_a_thorough_look_gives_the_digest_that_records_bear(kitti):
    task = Task("kitti", "structured", 4, kitti)
    assert found(kitti.parent, thorough=True).data_digest == data_of(task, "test").digest
    assert found(kitti.parent).data_digest is None and len(found(kitti.parent).digest or "") == 64


def test_a_tree_of_all_19_is_wrong_in_its_numbers_alone(tmp_path):
    findings = check_vtab(write_vtab_tree(tmp_path))
    assert {finding.state for finding in findings} == {"wrong"}
    problems = {problem for finding in findings for problem in finding.problems}
    assert "16 train, 8 val, 12 test images, not 800, 200, 711" in problems
    assert all("images, not" in problem or "classes occur" in problem for problem in problems)


def test_folders_that_are_none_of_the_19_are_named(tmp_path):
    for name in ("cifar", "Pets", "imagenet"):
        (tmp_path / name).mkdir()
    assert foreign_folders(tmp_path) == ["imagenet"]


@pytest.mark.parametrize("what", ["train800.txt", "val200.txt", "test.txt"])
def test_a_list_that_is_not_there_is_named(kitti, what):
    (kitti / what).unlink()
    assert found(kitti.parent).problems[0] == f"{what} is missing" and found(kitti.parent).state == "wrong"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("images/x.png 4", "outside the range: 4"),
        ("../elsewhere.png 0", "'../elsewhere.png'"),
        ("/etc/passwd.png 0", "/etc/passwd.png"),
        ("images/out.png 0", "leads outside"),
        ("images/test/missing.png 0", "missing.png"),
        ("images/test/000001.png 1", "again"),
        ("images/test/000001.png one", "images/test/000001.png one"),
    ],
)
def test_a_line_that_cannot_be_is_one_problem_with_its_file(kitti, tmp_path, line, said):
    for file in (tmp_path / "elsewhere.png", kitti / "images" / "x.png"):
        Image.new("RGB", (8, 8)).save(file)
    (kitti / "images" / "out.png").symlink_to(tmp_path / "elsewhere.png")
    (kitti / "test.txt").write_text((kitti / "test.txt").read_text() + line + "\n")
    finding = found(kitti.parent)
    assert finding.state == "wrong" and len(finding.problems) == 1
    assert said in finding.problems[0] and "test.txt" in finding.problems[0] and "\n" not in finding.problems[0]


def test_the_list_of_both_may_name_copies_in_another_order_but_not_other_labels(kitti):
    lines = (kitti / "train800val200.txt").read_text().splitlines()
    (kitti / "train800val200.txt").write_text("\n".join(sorted(lines)))
    assert found(kitti.parent).state == "ok"
    (kitti / "train800val200.txt").write_text("\n".join(lines[:-1]))
    assert "train800val200.txt does not list the labels" in found(kitti.parent).problems[0]
    (kitti / "train800val200.txt").unlink()
    without = found(kitti.parent)
    assert not without.problems and without.notes == ["train800val200.txt is missing, which other programs read"]


def double(kitti: Path, encode: dict[str, object] | None = None) -> None:
    """Put a picture of train into test, as the same file or encoded anew."""
    source, target = kitti / "images" / "train800" / "000007.png", kitti / "images" / "test" / "000010.png"
    target.unlink()
    if encode is None:
        shutil.copy(source, target)
    else:
        Image.open(source).save(target, **encode)


@pytest.mark.parametrize("thorough", [False, True])
def test_an_image_of_train_in_test_is_reported_with_both_names(kitti, thorough):
    double(kitti)
    line = "1 image of test in train too (test/000010.png = train800/000007.png)"
    assert found(kitti.parent, thorough=thorough).problems == [line]


def test_an_image_that_was_encoded_anew_is_found_by_its_pixels(kitti):
    double(kitti, {"compress_level": 0})
    assert found(kitti.parent).state == "ok"
    assert "test/000010.png = train800/000007.png" in found(kitti.parent, thorough=True).problems[0]


def test_val_of_train_and_test_of_val_are_found_too(kitti):
    """As in a loader that took val200 for the test set."""
    shutil.rmtree(kitti / "images" / "val200")
    shutil.copytree(kitti / "images" / "train800", kitti / "images" / "val200")
    assert found(kitti.parent).problems == ["8 images of val in train too (val200/000000.png = train800/000000.png)"]


def test_equal_pictures_are_no_fault_of_a_copy_where_the_data_set_itself_repeats_them(tmp_path):
    folder = write_vtab_task(tmp_path / "dsprites_ori", {"train": 4, "val": 4, "test": 4}, 2)
    shutil.copy(folder / "images" / "train800" / "000000.png", folder / "images" / "test" / "000001.png")
    finding = found(tmp_path, "dsprites_ori")
    assert "test/000001.png" in finding.notes[0] and not any("too (" in problem for problem in finding.problems)


@pytest.mark.parametrize("thorough", [False, True])
def test_an_image_that_is_none_is_named(kitti, thorough):
    (kitti / "images" / "test" / "000000.png").write_text("rubbish")
    assert "test/000000.png cannot be read" in found(kitti.parent, thorough=thorough).problems[0]


def test_two_folders_of_one_task_are_wrong(kitti):
    (kitti.parent / "kitti(closest_vehicle_distance)").mkdir()
    finding = found(kitti.parent)
    assert finding.state == "wrong" and "two folders" in finding.problems[0]


@pytest.mark.parametrize("kind", ["absent", "file"])
def test_a_root_that_is_no_folder_is_refused(tmp_path, kind):
    root = tmp_path / "root"
    if kind == "file":
        root.write_text("x")
    with pytest.raises(DataError, match="root"):
        check_vtab(root)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpegs_of_pillows_default_quality_are_known_by_their_tables(tmp_path, mode):
    picture = Image.effect_noise((32, 32), 80).convert(mode)
    picture.save(tmp_path / "default.jpg")
    picture.save(tmp_path / "good.jpg", quality=92)
    picture.save(tmp_path / "best.png")
    (tmp_path / "none.jpg").write_text("x")
    kinds = [encoding_of(tmp_path / name) for name in ("default.jpg", "good.jpg", "best.png", "none.jpg")]
    assert kinds == [DEFAULT_JPEG, "JPEG", "PNG", None]


@pytest.mark.parametrize(
    ("encodings", "original", "lossy"),
    [
        ({"PNG"}, "arrays", False),
        ({"JPEG"}, "JPEG", False),
        ({"JPEG"}, "PNG", True),
        ({DEFAULT_JPEG}, "JPEG", True),
        ({"PNG", "JPEG"}, "arrays", True),
    ],
)
def test_a_copy_is_lossy_where_it_was_encoded_again(encodings, original, lossy):
    assert describe_copy(encodings, original)[1] is lossy


def test_a_copy_in_jpegs_says_so(tmp_path):
    write_vtab_task(tmp_path / "svhn", {"train": 4, "val": 4, "test": 4}, 2, ending="jpg")
    finding = found(tmp_path, "svhn")
    assert finding.lossy is True and finding.copy == "lossy (JPEG of default quality)"
