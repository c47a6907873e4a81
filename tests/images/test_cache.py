"""Decoding many pictures: order, memory or file, bad pictures, full disks."""

import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ttctune.errors import DataError, FolderError
from ttctune.images import decode, decode_all

from .pictures import describe, draw

DESCRIPTION = describe()
ONE = 3 * 16 * 16


def _files(folder: Path, n: int = 12, bad: tuple[int, ...] = ()) -> list[Path]:
    paths = []
    for i in range(n):
        paths.append(folder / f"{i}.png")
        draw(i, seed=i).save(paths[-1])
        if i in bad:
            paths[-1].write_bytes(b"rubbish")
    return paths


def _expected(paths: list[Path]) -> torch.Tensor:
    return torch.stack([decode(path, DESCRIPTION) for path in paths])


@pytest.mark.parametrize("threads", [1, 3, None])
@pytest.mark.parametrize("budget", [12 * ONE, 12 * ONE - 1])
@pytest.mark.parametrize("named", [True, False])
def test_the_order_is_kept_in_memory_and_in_a_file(tmp_path, threads, budget, named):
    """Any number of threads, any place: the same tensor, writable and free of warnings."""
    paths = _files(tmp_path)
    folder = tmp_path / "new" / "cache" if named else None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images, skipped = decode_all(
            paths, DESCRIPTION, budget_bytes=budget, folder=folder, threads=threads, name="train"
        )
    assert torch.equal(_expected(paths), images) and not skipped
    assert (named and budget < 12 * ONE) == (tmp_path / "new" / "cache" / "train.uint8").exists()


def test_the_file_holds_the_images_and_nothing_else(tmp_path):
    """The cache file is the plain uint8 array, and no unfinished file stays beside it."""
    paths = _files(tmp_path, bad=(3,))
    images, skipped = decode_all(paths, DESCRIPTION, budget_bytes=0, folder=tmp_path / "c", skip_bad=True)
    assert ["images.uint8"] == [path.name for path in (tmp_path / "c").iterdir()]
    assert np.array_equal(np.fromfile(tmp_path / "c" / "images.uint8", np.uint8), images.flatten().numpy())
    assert 11 == len(images) and [3] == [index for index, _ in skipped]


def test_a_file_that_is_in_use_is_replaced_not_overwritten(tmp_path):
    """A second cache in the same folder leaves the images of the first alone."""
    paths = _files(tmp_path)
    first, _ = decode_all(paths, DESCRIPTION, budget_bytes=0, folder=tmp_path / "c")
    second, _ = decode_all(paths[::-1], DESCRIPTION, budget_bytes=0, folder=tmp_path / "c")
    assert torch.equal(first, second.flip(0)) and torch.equal(_expected(paths), first)


@pytest.mark.parametrize("budget", [0, 1 << 30])
def test_bad_pictures_are_skipped_when_asked(tmp_path, budget):
    """The good ones stay in order; each bad one is named with its position and reason."""
    paths = _files(tmp_path, bad=(0, 5, 11))
    images, skipped = decode_all(paths, DESCRIPTION, budget_bytes=budget, skip_bad=True)
    assert torch.equal(_expected([p for i, p in enumerate(paths) if i not in (0, 5, 11)]), images)
    assert [0, 5, 11] == [index for index, _ in skipped]
    assert all(paths[index].name in reason for index, reason in skipped)


@pytest.mark.parametrize("threads", [1, 4])
def test_without_skipping_the_first_bad_picture_in_order_is_named(tmp_path, threads):
    """Which thread finds what first does not matter, and no file is left behind."""
    paths = _files(tmp_path, bad=(4, 2))
    with pytest.raises(DataError, match=r"2\.png"):
        decode_all(paths, DESCRIPTION, budget_bytes=0, folder=tmp_path / "c", threads=threads)
    assert [] == list((tmp_path / "c").iterdir())


def test_a_refusal_leaves_nothing_running(tmp_path):
    """After an error, even while it is being handled, Pillow's settings and the threads are as before."""
    filters, alive = list(warnings.filters), threading.active_count()
    try:
        decode_all(_files(tmp_path, bad=(1,)), DESCRIPTION, budget_bytes=1 << 20, threads=3)
    except DataError:
        assert filters == warnings.filters and alive == threading.active_count()
    else:
        pytest.fail("the bad picture was not noticed")


def test_none_good_is_an_error_even_when_skipping(tmp_path):
    """A set of rubbish is refused, saying what is wrong with its first picture."""
    paths = _files(tmp_path, 3, bad=(0, 1, 2))
    with pytest.raises(DataError, match=r"none of the 3 images can be read.*0\.png"):
        decode_all(paths, DESCRIPTION, budget_bytes=1 << 30, skip_bad=True)
    with pytest.raises(DataError, match="there are no images"):
        decode_all([], DESCRIPTION, budget_bytes=1 << 30)


def test_pictures_in_memory_are_named_by_number():
    """A bad array is called by its position."""
    with pytest.raises(DataError, match="image 1 has"):
        decode_all([np.zeros((4, 4), np.uint8), np.zeros((0, 4), np.uint8)], DESCRIPTION, budget_bytes=1 << 20)


def test_progress_is_told_after_each_picture_in_the_calling_thread(tmp_path):
    """(1, n) to (n, n), bad ones counted too."""
    told = []
    decode_all(
        _files(tmp_path, 5, bad=(1,)),
        DESCRIPTION,
        budget_bytes=1 << 20,
        skip_bad=True,
        threads=3,
        progress=lambda done, total: told.append((done, total, threading.current_thread())),
    )
    assert [(i, 5, threading.main_thread()) for i in range(1, 6)] == told


def test_each_picture_is_asked_for_once_and_few_are_held_ready():
    """Slow consumers do not make decoded pictures pile up."""
    asked: list[int] = []

    class Counting(Sequence):
        def __len__(self):
            return 100

        def __getitem__(self, index):
            asked.append(index)
            return np.zeros((4, 4), np.uint8)

    ahead = []
    decode_all(
        Counting(),
        DESCRIPTION,
        budget_bytes=1 << 30,
        threads=2,
        progress=lambda done, _: ahead.append(len(asked) - done),
    )
    assert sorted(asked) == list(range(100)) and max(ahead) <= 8


@pytest.mark.parametrize("named", [True, False])
def test_a_full_disk_is_one_clear_line_and_leaves_nothing(tmp_path, named):
    """When writing fails halfway the error names the folder, and the half-written file is gone."""
    resource = pytest.importorskip("resource")
    paths = _files(tmp_path)
    folder = tmp_path / "cache" if named else None
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 * ONE, limits[1]))
    try:
        with pytest.raises(FolderError, match="free some space") as caught:
            decode_all(paths, DESCRIPTION, budget_bytes=0, folder=folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert not named or ([] == list(folder.iterdir()) and str(folder) in str(caught.value))


def test_what_would_fill_the_disk_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    """Both numbers are said, and the way out; nothing is read or left behind."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=11 * ONE))
    with pytest.raises(FolderError, match=r"take 0\.0 GB, and 0\.0 GB are free.*--streaming"):
        decode_all([tmp_path / "gone.png"] * 12, DESCRIPTION, budget_bytes=0, folder=tmp_path / "c")
    assert [] == list((tmp_path / "c").iterdir())
    images, _ = decode_all(_files(tmp_path, 11), DESCRIPTION, budget_bytes=0, folder=tmp_path / "c")
    assert 11 == len(images)


def test_no_threads_at_all_is_refused():
    """Decoding takes at least one thread."""
    with pytest.raises(DataError, match="threads 0"):
        decode_all([np.zeros((4, 4), np.uint8)], DESCRIPTION, budget_bytes=1 << 20, threads=0)


def test_a_cache_folder_that_is_a_file_is_refused(tmp_path):
    """The path is named."""
    (tmp_path / "cache").write_text("")
    with pytest.raises(FolderError, match="cache"):
        decode_all(_files(tmp_path, 2), DESCRIPTION, budget_bytes=0, folder=tmp_path / "cache")
