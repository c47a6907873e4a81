"""Files that vanish under a run, and disks that are full or read-only: one line, and nothing half-written."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tests.images.pictures import write_image_tree
from tests.run_helpers import save_model, sha, short, short_flags

import ttctune
from ttctune.cli.main import main
from ttctune.errors import FolderError, WeightsError
from ttctune.output_folder import beside, claimed, locked, state_of, unfinished, written_whole
from ttctune.training.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The name of a tiny local model."""
    return save_model(tmp_path_factory.mktemp("model") / "vit")


@pytest.fixture
def tree(tmp_path):
    """Three classes of five images, to be damaged."""
    return write_image_tree(tmp_path / "tree", 3, 5)


@pytest.fixture
def fit(model, tree, tmp_path, capsys):
    """Run the command; returns exit code and the last line on stderr."""
    handler = signal.getsignal(signal.SIGTERM)

    def run(*more):
        arguments = ["fit", "--data", str(tree), "--model", model, "-o", str(tmp_path / "x"), "--quiet"]
        code = main([*arguments, *short_flags(), *map(str, more)])
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) <= 1, lines
        return code, "".join(lines)

    yield run
    signal.signal(signal.SIGTERM, handler)


def once(act):
    """A function that acts when it is first called."""
    left = [act]

    def perhaps():
        if left:
            left.pop()()

    return perhaps


def test_an_image_that_vanishes_after_it_was_listed_is_named(fit, tree, tmp_path, monkeypatch):
    real, vanish = Image.open, once(lambda: (tree / "class2" / "004.png").unlink())
    monkeypatch.setattr(Image, "open", lambda *a, **k: (vanish(), real(*a, **k))[1])
    code, line = fit()
    assert code == 1 and "class2/004.png does not exist" in line
    assert not (tmp_path / "x").exists() and not beside(tmp_path / "x").exists()


def test_a_data_folder_that_vanishes_while_it_is_read_is_one_line(fit, tree, tmp_path, monkeypatch):
    real, vanish = Image.open, once(lambda: shutil.rmtree(tree))
    monkeypatch.setattr(Image, "open", lambda *a, **k: (vanish(), real(*a, **k))[1])
    code, line = fit()
    assert code == 1 and str(tree) in line and not (tmp_path / "x").exists()


@pytest.mark.parametrize("gone", ["x/checkpoint", "x"])
def test_a_run_whose_folder_vanishes_ends_in_one_line_and_can_be_given_again(fit, tmp_path, monkeypatch, gone):
    write, vanish = Checkpoint.write, once(lambda: shutil.rmtree(tmp_path / gone))
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "write", lambda self, folder: (write(self, folder), vanish())[0])
        code, line = fit()
    assert code == 1 and "no such file or directory" in line
    assert not (tmp_path / "x").exists()
    assert fit() == (0, "")


def test_weights_that_vanish_leave_a_run_that_goes_on_once_they_are_back(model, tree, tmp_path, monkeypatch):
    weights = shutil.copy(Path(model.removeprefix("local-dir:")) / "model.safetensors", tmp_path / "w.safetensors")
    write = Checkpoint.write

    def stop(self, folder):
        write(self, folder)
        raise KeyboardInterrupt

    arguments = {"weights": weights, "out": tmp_path / "x", "quiet": True}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoint, "write", stop)
        ttctune.adapt(model, tree, short(), **arguments)
    os.replace(weights, tmp_path / "away")
    with pytest.raises(WeightsError, match=r"w\.safetensors"):
        ttctune.adapt(model, tree, short(), resume=True, **arguments)
    assert unfinished(tmp_path / "x") == tmp_path / "x"
    os.replace(tmp_path / "away", weights)
    ttctune.adapt(model, tree, short(), resume=True, **arguments)
    ttctune.adapt(model, tree, short(), out=tmp_path / "whole", quiet=True)
    assert sha(tmp_path / "x" / "adapter.safetensors") == sha(tmp_path / "whole" / "adapter.safetensors")


def test_what_a_dead_process_left_beside_a_folder_is_cleared_by_the_next(tmp_path):
    for enter in (
        lambda: claimed(tmp_path / "x", resume=False, overwrite=False),
        lambda: written_whole(tmp_path / "x"),
    ):
        (beside(tmp_path / "x") / "half").mkdir(parents=True)
        with enter() as working:
            assert not (working / "half").exists()
        assert not beside(tmp_path / "x").exists()


def test_a_folder_that_another_process_is_writing_whole_is_in_use(tmp_path):
    with written_whole(tmp_path / "x") as made:
        (made / "a").write_text("whole")
        for enter in (
            lambda: claimed(tmp_path / "x", resume=False, overwrite=False),
            lambda: written_whole(tmp_path / "x"),
        ):
            with pytest.raises(FolderError, match="in use"), enter():
                pass
    assert (tmp_path / "x" / "a").read_text() == "whole"


def test_a_lock_on_a_folder_that_was_replaced_meanwhile_is_no_lock(tmp_path, monkeypatch):
    def replaced(handle, _):
        os.rename(tmp_path / "x", tmp_path / "old")
        (tmp_path / "x").mkdir()

    monkeypatch.setattr("fcntl.flock", replaced)
    with pytest.raises(FolderError, match="in use"), locked(tmp_path / "x"):
        pass


def test_a_merge_does_not_take_the_place_of_a_run_that_would_replace_the_folder(fit, tmp_path, monkeypatch):
    assert fit() == (0, "")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("ttctune.run.prepare", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        ttctune.adapt("vit", tmp_path, short(), out=tmp_path / "x", overwrite=True, quiet=True)
    with pytest.raises(FolderError, match="holds an unfinished run"), written_whole(tmp_path / "x", overwrite=True):
        pass
    assert state_of(beside(tmp_path / "x")) == "unfinished"


@pytest.fixture
def disk(tmp_path):
    """Mounts a file system of some kB at a folder; skips where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], capture_output=True)
        if done.returncode:
            pytest.skip("needs the right to mount")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True)


def limited(kilobytes, *arguments):
    """The command, where no file may grow beyond a size."""
    program = (
        "import resource, sys; from ttctune.cli.main import main; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({kilobytes << 10},) * 2); sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_a_disk_without_room_for_the_checkpoint_is_one_line_and_holds_nothing_afterwards(model, tree, disk):
    folder = disk("-o", "size=16k")
    arguments = ["fit", "--data", tree, "--model", model, "-o", folder / "x", "--quiet", *short_flags()]
    done = subprocess.run(
        [sys.executable, "-m", "ttctune", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "no space left" in done.stderr and len(done.stderr.splitlines()) == 1
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_a_read_only_disk_is_one_line(model, tree, disk):
    folder = disk("-o", "ro")
    arguments = ["fit", "--data", tree, "--model", model, "-o", folder / "x", "--quiet", *short_flags()]
    done = subprocess.run(
        [sys.executable, "-m", "ttctune", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "read-only" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_stops_merge_in_one_line_with_nothing_left(fit, tmp_path):
    assert fit() == (0, "")
    done = limited(20, "merge", tmp_path / "x", "-o", tmp_path / "merged")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tree", "x"]
