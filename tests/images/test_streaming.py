"""Streamed images: equal to kept ones in every bit, in the memory of a few batches."""

import gc
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import torch

from ttctune.errors import DataError
from ttctune.images import PartSource, epoch_order, open_images
from ttctune.images.pictures import LazyPictures
from ttctune.images.streaming import stream

from .pictures import describe, write_image_tree

DESCRIPTION = describe()


class Counted(LazyPictures):
    """Pictures of one colour each; remembers which were asked for, and by which thread."""

    def __init__(self, count):
        self.count, self.asked, self.threads = count, [], set()

    def __len__(self):
        return self.count

    def picture(self, index):
        self.asked.append(index)
        self.threads.add(threading.current_thread())
        return np.full((4, 4, 3), index % 256, np.uint8)


def counted(count=40, threads=3, **settings):
    """Counted pictures, opened; and the pictures themselves, with what opening did forgotten."""
    pictures = Counted(count)
    images, _ = stream(PartSource(pictures, [0] * count, **settings), DESCRIPTION, threads=threads)
    pictures.asked.clear()
    return images, pictures


@pytest.mark.parametrize("threads", [1, 2, 5, None])
@pytest.mark.parametrize("size", [1, 4, 15, 100])
@pytest.mark.parametrize("shuffled", [False, True])
def test_batches_are_those_of_kept_images_in_every_bit(tmp_path, threads, size, shuffled):
    """Any order, size and number of threads; labels, lengths and digest too."""
    write_image_tree(tmp_path, 3, 5)
    kept = open_images(tmp_path, DESCRIPTION).train
    streamed = open_images(tmp_path, DESCRIPTION, streaming=True, threads=threads).train
    order = epoch_order(len(kept), 0, 1) if shuffled else None
    for expected, got in zip(kept.batches(size, order=order), streamed.batches(size, order=order), strict=True):
        assert torch.equal(expected[0], got[0]) and expected[0].stride() == got[0].stride()
        assert torch.equal(expected[1], got[1])
    assert (len(kept), kept.digest()) == (len(streamed), streamed.digest())


def test_an_order_may_name_some_images_and_some_twice():
    """As for kept images."""
    images, _ = counted()
    batches = list(images.batches(3, order=torch.tensor([5, 5, 39, 0])))
    assert [[5, 5, 39], [0]] == [pictures[:, 0, 0, 0].tolist() for pictures, _ in batches]
    assert [] == list(images.batches(3, order=torch.tensor([], dtype=torch.int64)))
    with pytest.raises(DataError, match="batch size 0"):
        images.batches(0)


def test_bad_images_are_left_out_as_from_kept_images(tmp_path):
    """The same set, names and digest; without skipping the same refusal, at opening."""
    write_image_tree(tmp_path, 3, 5)
    for name in ("class0/001.png", "class2/004.png"):
        (tmp_path / name).write_bytes(b"rubbish")
    settings = {"val_fraction": 0, "skip_bad": True}
    kept, streamed = (open_images(tmp_path, DESCRIPTION, streaming=s, **settings) for s in (False, True))
    assert kept.skipped_images == streamed.skipped_images and 2 == streamed.skipped
    assert kept.train.digest() == streamed.train.digest()
    assert torch.equal(kept.train.labels, streamed.train.labels)
    assert torch.equal(kept.train.images, next(streamed.train.batches(100))[0])
    with pytest.raises(DataError, match=r"class0/001\.png"):
        open_images(tmp_path, DESCRIPTION, streaming=True)


@pytest.mark.parametrize("threads", [1, 3])
def test_an_image_that_goes_bad_later_is_named_where_it_is_met(tmp_path, threads):
    """In one line, with nothing left running; the batches before it are whole."""
    write_image_tree(tmp_path, 3, 5)
    images = open_images(tmp_path, DESCRIPTION, val_fraction=0, streaming=True, threads=threads).train
    (tmp_path / "class1" / "002.png").write_bytes(b"rubbish")
    alive, batches = threading.active_count(), images.batches(4)
    assert torch.equal(images.labels[:4], next(batches)[1])
    with pytest.raises(DataError, match=r"class1/002\.png cannot be read") as caught:
        next(batches)
    assert "\n" not in str(caught.value) and alive == threading.active_count()


def test_a_shortened_shard_is_named(tmp_path):
    """Bytes that were there at opening and are gone."""
    from .shards import sample, write_tar

    shard = write_tar(tmp_path / "a.tar", [*sample("0", "cat"), *sample("1", "dog")])
    images = open_images(shard, DESCRIPTION, val_fraction=0, streaming=True).train
    shard.write_bytes(shard.read_bytes()[:600])
    with pytest.raises(DataError, match=r"a\.tar: 0\.png cannot be read \(OSError: .*has become shorter"):
        list(images.batches(2))


def test_nothing_good_and_nothing_at_all_are_refused(tmp_path):
    """As when images are kept."""
    with pytest.raises(DataError, match="there are no images"):
        stream(PartSource([], []), DESCRIPTION)
    bad = PartSource([tmp_path / "gone.png"] * 2, [0, 1])
    with pytest.raises(DataError, match="none of the 2 images can be read"):
        stream(bad, DESCRIPTION, skip_bad=True)


def test_the_next_batch_is_decoded_meanwhile_and_no_more():
    """Few pictures are ahead of the one in use, however many there are."""
    images, pictures = counted(400, threads=2)
    ahead = [len(pictures.asked) - 16 * (i + 1) for i, _ in enumerate(images.batches(16))]
    assert max(ahead) <= 16 and sorted(pictures.asked) == list(range(400))


def test_batches_that_nobody_asks_for_any_more_stop_the_threads():
    """When only the first batch is wanted, and when an epoch is broken off."""
    images, pictures = counted(400)
    alive, filters = threading.active_count(), list(warnings.filters)
    next(iter(images.batches(8)))
    batches = images.batches(8)
    next(batches)
    with pytest.raises(KeyboardInterrupt):
        batches.throw(KeyboardInterrupt)
    del batches
    gc.collect()
    assert alive == threading.active_count() and filters == warnings.filters and len(pictures.asked) < 60


def test_a_persons_own_data_set_is_called_by_the_calling_thread_alone():
    """Its connections and files may belong to that thread."""
    data = [(np.full((4, 4, 3), i, np.uint8), i % 2) for i in range(10)]

    class Dataset:
        def __init__(self):
            self.threads = set()

        def __len__(self):
            return len(data)

        def __getitem__(self, index):
            self.threads.add(threading.current_thread())
            return data[index]

    dataset = Dataset()
    images = open_images(dataset, DESCRIPTION, val_fraction=0, streaming=True, threads=4).train
    assert 10 == sum(len(labels) for _, labels in images.batches(4))
    assert {threading.current_thread()} == dataset.threads


def test_progress_of_opening_is_told(tmp_path):
    """Over all parts, as when images are kept."""
    told = []
    write_image_tree(tmp_path, 2, parts={"train": 3, "val": 2})
    open_images(tmp_path, DESCRIPTION, streaming=True, progress=lambda *numbers: told.append(numbers))
    assert [(i, 10) for i in range(1, 11)] == told


GROWTH = """
import sys
from pathlib import Path
from ttctune.images import open_images
from ttctune.backbone.description import InputDescription
from ttctune.training.memory import peak_memory
import torch
before = peak_memory(torch.device("cpu"))
description = InputDescription(64, 64, (0.5,) * 3, (0.5,) * 3)
images = open_images(Path(sys.argv[1]), description, val_fraction=0, streaming=True, threads=2).train
count = sum(len(labels) for _, labels in images.batches(32))
print(count, peak_memory(torch.device("cpu")) - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_memory_does_not_grow_with_the_number_of_images(tmp_path, kind):
    """Ten times as many cost paths and labels, below two kilobytes each, where decoded they take twelve."""
    from .shards import png, write_tar

    picture, peaks = png(), {}
    for count in (1_000, 10_000):
        for label in range(2):
            if kind == "shards":
                name = tmp_path / f"{count}" / f"{label}.tar"
                rows = (
                    (f"{i}.{end}", body)
                    for i in range(count // 2)
                    for end, body in (("png", picture), ("cls", b"%d" % label))
                )
                write_tar(name, rows)
            else:
                (tmp_path / f"{count}" / f"{label}").mkdir(parents=True)
                for i in range(count // 2):
                    (tmp_path / f"{count}" / f"{label}" / f"{i}.png").write_bytes(picture)
        command = [sys.executable, "-c", GROWTH, str(tmp_path / f"{count}")]
        done = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        assert count == int(done[0])
        peaks[count] = int(done[1])
    assert peaks[10_000] - peaks[1_000] < 9_000 * 2_000
