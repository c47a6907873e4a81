"""Who may write where, and that a folder is old or new, never half."""

import errno
import fcntl
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ttctune.errors import FolderError
from ttctune.files import replaced, write_atomically
from ttctune.output_folder import (
    ADAPTER,
    CHECKPOINT,
    MERGED,
    RUN,
    begin,
    beside,
    check_apart,
    claimed,
    finish,
    locked,
    new_folder,
    publish,
    read_run,
    state_of,
    written_whole,
)


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder, with its text."""
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def make(folder: Path, state: str) -> Path:
    """A folder in a state."""
    match state:
        case "empty":
            folder.mkdir()
        case "finished":
            folder.mkdir()
            (folder / "adapter.json").write_text('{"ttctune_format": 1, "old": true}')
        case "unfinished":
            folder.mkdir()
            begin(folder, {"model": "x"})
            (folder / CHECKPOINT / "state.safetensors").write_text("state")
        case "merged":
            folder.mkdir()
            (folder / "config.json").write_text('{"merged_by_ttctune": "0.1"}')
            (folder / "model.safetensors").write_text("weights")
        case "exported":
            folder.mkdir()
            (folder / "export.json").write_text('{"exported_by_ttctune": "0.1"}')
            (folder / "0.png").write_text("image")
        case "foreign":
            folder.mkdir()
            (folder / "thesis.txt").write_text("years of work")
        case "foreign json":
            folder.mkdir()
            (folder / "adapter.json").write_text('{"peft_type": "LORA"}')
        case "file":
            folder.write_text("a file")
    return folder


def swap(one: Path, other: Path) -> None:
    """Exchange two folders."""
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


STATES = {
    "absent": "empty",
    "empty": "empty",
    "finished": "finished",
    "unfinished": "unfinished",
    "foreign": "foreign",
    "foreign json": "foreign",
    "file": "foreign",
}

#: state -> what a plain run, --resume and --overwrite do: where they work, or what they say.
RULES = {
    "absent": ("itself", "no unfinished run", "itself"),
    "empty": ("itself", "no unfinished run", "itself"),
    "finished": ("is finished.*--overwrite", "no unfinished run", "beside"),
    "unfinished": ("--resume", "itself", "beside"),
    "foreign": ("not ttctune's", "not ttctune's", "not ttctune's"),
    "foreign json": ("not ttctune's", "not ttctune's", "not ttctune's"),
    "file": ("not ttctune's", "not ttctune's", "not ttctune's"),
}


@pytest.mark.parametrize(("made", "state"), STATES.items())
def test_the_state_of_a_folder_is_told_by_its_marks(tmp_path, made, state):
    assert state_of(make(tmp_path / "x", made)) == state


@pytest.mark.parametrize("made", RULES)
@pytest.mark.parametrize("way", ["plain", "resume", "overwrite"])
def test_each_state_is_used_resumed_or_refused_as_designed(tmp_path, made, way):
    folder = make(tmp_path / "x", made)
    before = contents(tmp_path)
    rule = RULES[made][("plain", "resume", "overwrite").index(way)]
    flags = {"resume": way == "resume", "overwrite": way == "overwrite"}
    if rule in ("itself", "beside"):
        with claimed(folder, **flags) as working:
            assert working.is_dir()
            assert (working == folder) == (rule == "itself")
    else:
        with pytest.raises(FolderError, match=rule), claimed(folder, **flags):
            pass
        assert contents(tmp_path) == before and folder.exists() == (made != "absent")


def test_a_run_that_overwrites_is_resumed_beside_the_old_folder(tmp_path):
    folder = make(tmp_path / "x", "finished")
    with claimed(folder, resume=False, overwrite=True) as working:
        begin(working, {"model": "y"})
    assert state_of(folder) == "finished"
    with claimed(folder, resume=True, overwrite=False) as again:
        assert again == working and read_run(again) == {"model": "y"}


def test_of_two_unfinished_runs_the_later_is_resumed(tmp_path):
    """Also where the earlier one has come to stand beside: killed while the two were exchanged."""
    folder = make(tmp_path / "x", "unfinished")
    with claimed(folder, resume=False, overwrite=True) as working:
        begin(working, {"model": "later"})
        os.utime(folder / RUN, ns=(1, 1))
    for _ in range(2):
        with claimed(folder, resume=True, overwrite=False) as again:
            assert read_run(again) == {"model": "later"}
        swap(folder, beside(folder))


@pytest.mark.parametrize("state", ["finished", "unfinished"])
@pytest.mark.parametrize(("names", "said"), [(["notes.txt"], "holds notes.txt;"), (["b", "a"], "holds a and 1 more;")])
def test_what_a_person_put_beside_an_adapter_is_not_overwritten(tmp_path, state, names, said):
    folder = make(tmp_path / "x", state)
    for name in names:
        (folder / name).write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(FolderError, match=said), claimed(folder, resume=False, overwrite=True):
        pass
    if state == "finished":
        with pytest.raises(FolderError, match=said), written_whole(folder, overwrite=True, replaces=ADAPTER):
            pass
    assert contents(tmp_path) == before


def test_a_merged_model_may_be_overwritten_by_a_run(tmp_path):
    folder = make(tmp_path / "x", "merged")
    with claimed(folder, resume=False, overwrite=True) as working:
        assert working == beside(folder)


def test_what_a_person_put_beside_a_merged_model_is_not_overwritten(tmp_path):
    folder = make(tmp_path / "x", "merged")
    (folder / "README.md").write_text("my model card")
    for way in (claimed(folder, resume=False, overwrite=True), written_whole(folder, overwrite=True, replaces=MERGED)):
        with pytest.raises(FolderError, match=r"holds README\.md"), way:
            pass


def test_an_exported_task_is_no_place_for_a_run(tmp_path):
    folder = make(tmp_path / "x", "exported")
    with pytest.raises(FolderError, match="is an exported task"), claimed(folder, resume=False, overwrite=True):
        pass


def test_a_run_beside_a_folder_that_is_gone_is_resumed_or_named_and_not_thrown_away(tmp_path):
    folder = make(tmp_path / "x", "finished")
    with claimed(folder, resume=False, overwrite=True) as working:
        begin(working, {"model": "y"})
    shutil.rmtree(folder)
    with pytest.raises(FolderError, match="--resume"), claimed(folder, resume=False, overwrite=False):
        pass
    with claimed(folder, resume=True, overwrite=False) as again:
        assert read_run(again) == {"model": "y"}


def test_where_a_file_system_is_mounted_nothing_is_replaced_and_that_is_said_at_once(tmp_path, monkeypatch):
    folder, empty = make(tmp_path / "x", "finished"), make(tmp_path / "y", "empty")
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) in (folder, empty))
    for way in (claimed(folder, resume=False, overwrite=True), written_whole(folder, overwrite=True),
                written_whole(empty)):  # fmt: skip
        with pytest.raises(FolderError, match=r"is where a file system is mounted.*a folder inside it"), way:
            pass
    with claimed(empty, resume=False, overwrite=False) as working:
        assert working == empty


def test_a_folder_that_cannot_be_locked_is_not_left_behind(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(FolderError, match="no locks"), claimed(tmp_path / "x", resume=False, overwrite=False):
        pass
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("source", ["a\0b", "x/y"])
def test_a_source_that_is_no_path_is_left_to_its_reader(tmp_path, source):
    check_apart(tmp_path, [source])


def test_a_process_that_does_not_own_a_folder_does_not_take_it_away(tmp_path):
    """Two that begin at once: the folder of the one is still empty when the other is refused."""
    folder = tmp_path / "x"
    with claimed(folder, resume=False, overwrite=False) as working:
        with pytest.raises(FolderError, match="in use"), claimed(folder, resume=False, overwrite=False):
            pass
        assert working.is_dir()
        begin(working, {"model": "x"})


def test_a_folder_that_died_on_its_way_is_put_back_before_a_run_replaces_it(tmp_path):
    make(tmp_path / ".x.ttctune-old", "finished")
    with claimed(tmp_path / "x", resume=False, overwrite=True) as working:
        assert working == beside(tmp_path / "x") and state_of(tmp_path / "x") == "finished"


def test_a_persons_folder_called_old_stays(tmp_path):
    mine = make(tmp_path / ".x.old", "foreign")
    with written_whole(tmp_path / "x") as made:
        (made / "a").write_text("x")
    assert contents(mine) == {"thesis.txt": "years of work"}


def test_what_an_earlier_overwrite_left_beside_is_cleared(tmp_path):
    folder = make(tmp_path / "x", "finished")
    with claimed(folder, resume=False, overwrite=True) as working:
        begin(working, {"model": "y"})
        (working / "importance.safetensors").write_text("of another run")
    with claimed(folder, resume=False, overwrite=True) as working:
        begin(working, {"model": "z"})
        assert contents(working).keys() == {RUN}


@pytest.mark.parametrize("left", [[], ["run.json.part"]])
def test_a_run_killed_before_its_first_mark_leaves_a_folder_that_counts_as_empty(tmp_path, left):
    folder = tmp_path / "x"
    (folder / CHECKPOINT).mkdir(parents=True)
    for name in left:
        (folder / CHECKPOINT / name).write_text("{")
    with claimed(folder, resume=False, overwrite=False) as working:
        begin(working, {"model": "x"})
        assert contents(folder).keys() == {RUN}


def test_a_strangers_checkpoint_folder_is_foreign(tmp_path):
    (tmp_path / "x" / CHECKPOINT).mkdir(parents=True)
    (tmp_path / "x" / CHECKPOINT / "weights.pt").write_text("x")
    assert state_of(tmp_path / "x") == "foreign"


def test_a_second_owner_is_refused_until_the_first_has_left(tmp_path):
    with locked(tmp_path / "x"), pytest.raises(FolderError, match="in use"), locked(tmp_path / "x"):
        pass
    with locked(tmp_path / "x"):
        pass


@pytest.mark.parametrize("way", ["plain", "resume", "overwrite"])
@pytest.mark.parametrize("first", ["plain", "overwrite"])
def test_a_folder_in_use_is_said_to_be_in_use_whatever_is_asked(tmp_path, first, way):
    folder = tmp_path / "x"
    if first == "overwrite":
        make(folder, "finished")
    with claimed(folder, resume=False, overwrite=first == "overwrite") as working:
        begin(working, {"model": "x"})
        with (
            pytest.raises(FolderError, match="in use by another run"),
            claimed(folder, resume=way == "resume", overwrite=way == "overwrite"),
        ):
            pass
        assert state_of(working) == "unfinished"


@pytest.mark.slow
def test_a_lock_dies_with_its_process(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from ttctune.output_folder import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "x")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(FolderError, match="in use"), locked(tmp_path / "x"):
            pass
        process.kill()
        process.wait()
        with locked(tmp_path / "x"):
            pass


def test_finishing_takes_the_checkpoint_away_and_replaces_the_old_folder(tmp_path):
    folder = make(tmp_path / "x", "finished")
    with claimed(folder, resume=False, overwrite=True) as working:
        begin(working, {})
        (working / "adapter.json").write_text('{"ttctune_format": 1, "new": true}')
        finish(working, folder)
    assert json.loads((folder / "adapter.json").read_text()) == {"ttctune_format": 1, "new": True}
    assert contents(tmp_path).keys() == {"x/adapter.json"}


def test_a_run_killed_while_it_is_put_in_place_can_be_resumed(tmp_path, monkeypatch):
    folder = make(tmp_path / "x", "finished")

    def killed(*_, **__):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), claimed(folder, resume=False, overwrite=True) as working:
        begin(working, {"model": "y"})
        (working / "adapter.json").write_text('{"ttctune_format": 1, "new": true}')
        monkeypatch.setattr("ttctune.output_folder.runs.publish", killed)
        finish(working, folder)
    monkeypatch.undo()
    assert json.loads((folder / "adapter.json").read_text())["old"]
    with claimed(folder, resume=True, overwrite=False) as working:
        finish(working, folder)
    assert json.loads((folder / "adapter.json").read_text())["new"]


@pytest.mark.parametrize("atomic", [True, False])
def test_a_folder_is_exchanged_whole(tmp_path, monkeypatch, atomic):
    old, new = make(tmp_path / "x", "finished"), tmp_path / "new"
    new.mkdir()
    (new / "a").write_text("new")
    if not atomic:
        monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())
    publish(new, old)
    assert contents(tmp_path) == {"x/a": "new"}


def test_a_folder_killed_between_two_steps_of_an_exchange_is_put_back(tmp_path, monkeypatch):
    """Where folders cannot be swapped in one step, the old one is aside for a moment."""
    old, replace = make(tmp_path / "x", "finished"), os.replace

    def killed_at_the_second(source, target):
        if Path(target) == old:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())
    monkeypatch.setattr("os.replace", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt), written_whole(old, overwrite=True) as made:
        (made / "adapter.json").write_text('{"ttctune_format": 1, "new": true}')
    assert not old.exists()
    monkeypatch.undo()
    with pytest.raises(FolderError, match="taken"), written_whole(old):
        pass
    assert json.loads((old / "adapter.json").read_text())["old"]


@pytest.mark.slow
def test_a_reader_never_sees_a_folder_half_replaced(tmp_path):
    folder = tmp_path / "x"
    program = (
        "import sys; from pathlib import Path; from ttctune.output_folder import publish\n"
        "folder = Path(sys.argv[1])\n"
        "for i in range(400):\n"
        "    made = folder.with_name('made'); made.mkdir()\n"
        "    [(made / name).write_text(str(i)) for name in 'ab']\n"
        "    publish(made, folder)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(folder)]) as process:
        while not folder.exists() and process.poll() is None:
            time.sleep(0.001)
        seen = 0
        while process.poll() is None:
            assert (folder / "a").exists() and (folder / "b").exists()
            seen += 1
    assert process.returncode == 0 and seen > 10


@pytest.mark.parametrize("made", ["absent", "empty", "finished"])
def test_a_folder_written_whole_appears_at_the_end(tmp_path, made):
    folder = make(tmp_path / "x", made)
    before = contents(tmp_path)
    with written_whole(folder, overwrite=True) as new:
        (new / "a").write_text("new")
        assert {k: v for k, v in contents(tmp_path).items() if k.startswith("x/")} == before
    assert contents(tmp_path) == {"x/a": "new"}


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("made", ["absent", "empty", "finished"])
def test_a_folder_written_whole_vanishes_where_anything_fails(tmp_path, made, error):
    folder = make(tmp_path / "x", made)
    before = contents(tmp_path)
    expected = FolderError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), written_whole(folder, overwrite=True) as new:
        (new / "a").write_text("half")
        raise error
    assert contents(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ([] if made == "absent" else ["x"])


@pytest.mark.parametrize(
    ("made", "overwrite", "said"),
    [
        ("finished", False, "--overwrite"),
        ("unfinished", False, "choose another"),
        ("unfinished", True, "choose another"),
        ("foreign", True, "not ttctune's"),
        ("file", True, "not ttctune's"),
    ],
)
def test_a_taken_folder_is_not_written_whole(tmp_path, made, overwrite, said):
    folder = make(tmp_path / "x", made)
    before = contents(tmp_path)
    with pytest.raises(FolderError, match=said), written_whole(folder, overwrite=overwrite):
        raise AssertionError("entered")
    assert contents(tmp_path) == before


@pytest.mark.parametrize("made", ["finished", "merged", "both"])
@pytest.mark.parametrize("replaces", [ADAPTER, MERGED])
def test_a_folder_of_another_kind_is_never_replaced(tmp_path, made, replaces):
    folder = make(tmp_path / "x", "empty" if made == "merged" else "finished")
    if made != "finished":
        (folder / "config.json").write_text('{"merged_by_ttctune": "0.1"}')
    before = contents(tmp_path)
    if (made, replaces) in (("finished", ADAPTER), ("merged", MERGED)):
        with written_whole(folder, overwrite=True, replaces=replaces) as new:
            (new / "a").write_text("new")
        assert contents(tmp_path) == {"x/a": "new"}
        return
    with (
        pytest.raises(FolderError, match=f"or {replaces} to replace"),
        written_whole(folder, overwrite=True, replaces=replaces),
    ):
        raise AssertionError("entered")
    assert contents(tmp_path) == before


def fails(*_, **__):
    raise RuntimeError("x")


@pytest.mark.parametrize("existed", [False, True])
@pytest.mark.parametrize("way", ["claimed", "written whole", "too long a name"])
def test_folders_above_that_were_made_for_nothing_are_gone_again(tmp_path, way, existed):
    above = tmp_path / "a"
    if existed:
        above.mkdir()
    act = {
        "claimed": lambda: claimed(above / "b" / "x", resume=False, overwrite=False),
        "written whole": lambda: written_whole(above / "b" / "x"),
        "too long a name": lambda: claimed(above / "b" / ("x" * 300), resume=False, overwrite=False),
    }[way]
    with pytest.raises((RuntimeError, FolderError)), act():
        fails()
    assert [path.name for path in tmp_path.rglob("*")] == ["a"] * existed


def test_new_folders_are_made_at_once_and_gone_where_nothing_lies_in_them(tmp_path):
    runs = tmp_path / "runs"
    with new_folder(runs, "x") as first, new_folder(runs, "x") as second:
        assert (first, second) == (runs / "x", runs / "x-2") and first.is_dir() and second.is_dir()
        (second / "a").write_text("x")
    assert contents(tmp_path) == {"runs/x-2/a": "x"} and not first.exists()
    (second / "a").unlink()
    second.rmdir()
    runs.rmdir()
    with pytest.raises(RuntimeError), new_folder(runs, "x"):
        fails()
    assert not runs.exists()
    runs.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FolderError, match="runs is a link to nothing"), new_folder(runs, "x"):
        fails()
    runs.unlink()
    runs.write_text("a file")
    with pytest.raises(FolderError, match="runs is a file"), new_folder(runs, "x"):
        pass


def test_the_present_folder_and_a_link_can_be_written_whole(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with written_whole(Path()) as new:
        (new / "a").write_text("x")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with written_whole(tmp_path / "link") as new:
        (new / "b").write_text("x")
    assert contents(tmp_path).keys() == {"here/a", "real/b"} and (tmp_path / "link").is_symlink()


def test_a_folder_below_a_file_cannot_be_made_and_says_so_in_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    for act in (
        lambda: claimed(tmp_path / "file" / "x", resume=False, overwrite=False),
        lambda: written_whole(tmp_path / "file" / "x"),
    ):
        with pytest.raises(FolderError, match=r"cannot write .*not a directory") as caught, act():
            pass
        assert "\n" not in str(caught.value)


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    file = tmp_path / "x"
    with replaced(file) as first:
        first.write(b"first")
        with pytest.raises(FolderError, match="x is being written by another process"):
            write_atomically(file, "second")
    assert contents(tmp_path) == {"x": "first"}


def test_what_a_killed_writer_left_is_no_part_of_the_next_file(tmp_path):
    (tmp_path / "x.part").write_text("a long text of a process that was killed")
    write_atomically(tmp_path / "x", "new")
    assert contents(tmp_path) == {"x": "new"}


@pytest.mark.parametrize("step", ["open", "fsync", "replace"])
def test_a_file_that_cannot_be_written_is_as_it_was(tmp_path, monkeypatch, step):
    file = tmp_path / "x"
    write_atomically(file, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(FolderError, match="no space left on device"):
        patch.setattr(os, step, full)
        write_atomically(file, "new")
    assert contents(tmp_path) == {"x": "old"}


@pytest.fixture
def short_files():
    """No file of this process can grow beyond 1,000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [2_000, 200_000])  # within a buffer, which closing the file would write again; beyond
def test_a_file_without_room_is_as_it_was_and_says_which_it_is(tmp_path, short_files, size):
    write_atomically(tmp_path / "x", "old")
    with pytest.raises(FolderError, match=r"cannot write .*x: file too large"):
        write_atomically(tmp_path / "x", b"x" * size)
    assert contents(tmp_path) == {"x": "old"}


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 64 kB, where it can be made."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_leaves_what_was_there(tiny_disk):
    write_atomically(tiny_disk / "x", "old")
    with pytest.raises(FolderError, match="no space left"):
        write_atomically(tiny_disk / "x", b"x" * 200_000)
    with pytest.raises(FolderError, match="no space left"), written_whole(tiny_disk / "y") as new:
        (new / "a").write_bytes(b"x" * 200_000)
    assert contents(tiny_disk) == {"x": "old"} and [p.name for p in tiny_disk.iterdir()] == ["x"]


def test_a_damaged_run_record_is_refused_with_advice(tmp_path):
    folder = make(tmp_path / "x", "unfinished")
    for text in ("", "{", "[]", "\xff"):
        (folder / RUN).write_bytes(text.encode("latin-1"))
        with pytest.raises(FolderError, match=r"damaged.*--overwrite"):
            read_run(folder)
