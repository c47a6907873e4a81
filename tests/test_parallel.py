"""Two processes equal one: adapters, histories, selections; interruptions, refusals, lost processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.images.pictures import write_image_tree
from tests.processes import Several
from tests.run_helpers import arrays, save_model, sha, short, short_flags, tensors_of

import ttctune
from ttctune.cli.main import main
from ttctune.output_folder import state_of
from ttctune.run import adapt

#: Of a float32 adapter after several epochs: only the order in which gradients are added differs, which AdamW can make
#: as much as a fiftieth of a step at 1e-2 where a gradient is almost zero. `--accumulation 2` in one process is as far.
ROUNDING = {"rtol": 1e-4, "atol": 2e-4}
#: 19 training images in batches of 6, so that the last batch is a single image and process 1 has none of it.
PARTS = {"train": 19, "val": 5}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model") / "vit")


def images(seed=0):
    """Pictures and labels of train and val, odd in number."""
    pictures, labels = arrays(per_class=8, classes=3, seed=seed)
    cut = PARTS["train"]
    return {"train": (pictures[:cut], labels[:cut]), "val": (pictures[cut:], labels[cut:])}


def _adapt(model, out, settings, arguments=None):
    adapted = adapt(model, images(), short(**settings), out=out, quiet=True, device="cpu", **(arguments or {}))
    assert adapted.metrics["images"] == PARTS["val"]
    assert Path(out).joinpath("adapter.json").exists()  # on process 1 too, before it returns


def history(folder):
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def record(folder):
    return json.loads((folder / "adapter.json").read_text())


def assert_equal_to_rounding(one, other):
    a, b = tensors_of(one), tensors_of(other)
    assert a.keys() == b.keys()
    for name in a:
        if name.endswith("channels"):
            assert torch.equal(a[name], b[name]), name
        elif name.endswith("qkv.shift"):  # a shift of the keys drops out of the softmax, so its gradient is rounding
            (queries, _, values), (others, _, again) = a[name].chunk(3), b[name].chunk(3)
            assert torch.allclose(queries, others, **ROUNDING) and torch.allclose(values, again, **ROUNDING), name
        else:
            assert torch.allclose(a[name], b[name], **ROUNDING), name
    for row, again in zip(history(one), history(other), strict=True):
        assert row["loss"] == pytest.approx(again["loss"], rel=1e-5)
        assert row["accuracy"] == again["accuracy"] and row["learning_rates"] == again["learning_rates"]
    metrics, others = record(one)["metrics"], record(other)["metrics"]
    assert metrics.pop("part") == others.pop("part") == "val"
    assert metrics == pytest.approx(others, rel=1e-4)


LONG = {"align_epochs": 2, "tune_epochs": 4}
SETTINGS = {
    "augmented": {"flip": True, "crop": True, "randaugment": 5, "drop_path": 0.5, "gradient_clip": 1.0},
    "rows by class, weighted": {"form": "rows", "importance": "taylor_class", "class_weights": True},
    "scored by weights, in parts": {"importance": "taylor_weight", "accumulation": 2, "channels": 5},
    "head alone first, stream": {"align_epochs": 0, "sites": "stream", "importance": "l2"},
}


@pytest.mark.parametrize(
    "name", [name if number < 1 else pytest.param(name, marks=pytest.mark.slow) for number, name in enumerate(SETTINGS)]
)
def test_two_processes_equal_one_to_rounding(tmp_path, model, name):
    settings = LONG | SETTINGS[name]
    _adapt(model, tmp_path / "one", settings)
    several = Several(tmp_path / "printed", _adapt, model, str(tmp_path / "two"), settings)
    assert [(done.code, done.err) for done in several.ended()] == [(0, "")] * 2
    assert_equal_to_rounding(tmp_path / "one", tmp_path / "two")
    assert record(tmp_path / "two")["settled"]["processes"] == 2


@pytest.mark.slow
def test_more_processes_than_images_in_a_batch_still_equal_one(tmp_path, model):
    settings = {"batch_size": 2}
    _adapt(model, tmp_path / "one", settings)
    several = Several(tmp_path / "printed", _adapt, model, str(tmp_path / "three"), settings, count=3)
    assert [done.code for done in several.ended()] == [0] * 3
    assert_equal_to_rounding(tmp_path / "one", tmp_path / "three")


def _adapt_until_the_keeping_of(epochs, model, out, settings):
    """As if the machine went down while a checkpoint is kept."""
    import ttctune.run

    write, seen = ttctune.run.Checkpoint.write, []

    def stop(state, folder):
        write(state, folder)
        seen.append(state)
        if len(seen) == epochs:
            os._exit(9)

    ttctune.run.Checkpoint.write = stop
    _adapt(model, out, settings)


@pytest.mark.parametrize("epochs", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_an_interrupted_run_of_two_ends_in_the_bytes_of_one_that_was_not(tmp_path, model, epochs):
    settings = LONG | {"flip": True, "drop_path": 0.2}
    whole, out = tmp_path / "whole", tmp_path / "x"
    Several(tmp_path / "a", _adapt, model, str(whole), settings).ended()
    first, second = Several(tmp_path / "b", _adapt_until_the_keeping_of, epochs, model, str(out), settings).ended()
    assert first.code == 9 and second.code == 1 and state_of(out) == "unfinished"
    again = Several(tmp_path / "c", _adapt, model, str(out), settings, {"resume": True}).ended()
    assert [done.code for done in again] == [0, 0], again
    assert sha(out / "adapter.safetensors") == sha(whole / "adapter.safetensors")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_image_tree(tmp_path_factory.mktemp("images") / "shapes", 3, parts={"train": 5, "val": 2})


def flags(tree, model, out, *more, **settings):
    return ["fit", "--data", str(tree), "--model", model, "-o", str(out), *short_flags(**settings), *more]


def test_a_run_of_two_goes_on_alone_and_says_that_bits_differ(tmp_path, model, tree, capsys):
    stopped = Several(tmp_path / "a", main, flags(tree, model, tmp_path / "x", align_epochs=50))
    stopped.wait_for("align 2/")
    for process in stopped.processes:
        os.kill(process.pid, signal.SIGTERM)
    first, second = stopped.ended()
    assert first.code == 143 and first.err.splitlines()[-1] == "ttctune: terminated"
    assert f"-o {tmp_path / 'x'} --resume goes on" in first.err and "Traceback" not in first.err + second.err
    assert main(flags(tree, model, tmp_path / "x", "--resume", align_epochs=50)) == 0
    assert "processes 2 then, 1 now): equal to rounding, not in every bit" in capsys.readouterr().err


def test_only_process_0_prints_and_the_result_alone_is_on_stdout(tmp_path, model, tree):
    first, second = Several(tmp_path / "a", main, flags(tree, model, tmp_path / "x", "--json")).ended()
    assert (first.code, second.code) == (0, 0) and (second.out, second.err) == ("", "")
    assert json.loads(first.out)["settled"]["processes"] == 2 and "tune 1/1" in first.err


REFUSED = {
    "a folder that is taken": ([], "is not ttctune's"),
    "a bad value": (["--channels", "0"], "channels = '0'"),
    "weights that are not there": (["--weights", "nowhere.safetensors"], "nowhere.safetensors"),
    "a GPU for all": (["--device", "mps"], "device 'mps'"),
    "nothing to resume": (["--resume"], "holds no unfinished run"),
}


@pytest.mark.parametrize(
    "what", [what if number < 1 else pytest.param(what, marks=pytest.mark.slow) for number, what in enumerate(REFUSED)]
)
def test_a_refusal_is_one_line_in_all_and_exit_code_1_everywhere(tmp_path, model, tree, what):
    more, said = REFUSED[what]
    out = tmp_path / "x"
    if what == "a folder that is taken":
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    first, second = Several(tmp_path / "a", main, flags(tree, model, out, *more)).ended()
    assert (first.code, second.code) == (1, 1) and second.err == ""
    assert len(first.err.splitlines()) == 1 and said in first.err
    assert not out.exists() or list(out.iterdir()) == [out / "notes.txt"]


def _with_images_of_its_own(tree, broken, model, out):
    return main(flags(broken if os.environ["RANK"] == "1" else tree, model, out))


def test_a_broken_image_of_one_process_is_one_line_that_names_the_process(tmp_path, model, tree):
    broken = write_image_tree(tmp_path / "broken", 3, parts={"train": 5, "val": 2})
    next((broken / "train").rglob("*.png")).write_bytes(b"no image")
    several = Several(tmp_path / "a", _with_images_of_its_own, tree, broken, model, tmp_path / "x")
    first, second = several.ended()
    assert (first.code, second.code, second.err) == (1, 1, "")
    assert first.err.count("ttctune: ") == 1 and first.err.splitlines()[-1].startswith("ttctune: process 1: ")
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_other_images_on_another_process_are_refused(tmp_path, model, tree):
    others = write_image_tree(tmp_path / "others", 3, parts={"train": 6, "val": 2})
    several = Several(tmp_path / "a", _with_images_of_its_own, tree, others, model, tmp_path / "x")
    first, second = several.ended()
    assert (first.code, second.code) == (1, 1)
    assert "process 1: training images that are not those of process 0" in first.err.splitlines()[-1]


def _out_of_memory(model, out, largest, settings):
    """Process 1 has less memory than process 0."""
    from timm.models import VisionTransformer

    forward = VisionTransformer.forward_features

    def limited(self, x, **arguments):
        if os.environ["RANK"] == "1" and len(x) > largest and self.training:
            raise MemoryError
        return forward(self, x, **arguments)

    VisionTransformer.forward_features = limited
    _adapt(model, out, settings)


def test_one_process_short_of_memory_splits_its_own_share(tmp_path, model):
    _adapt(model, tmp_path / "one", LONG)
    several = Several(tmp_path / "a", _out_of_memory, model, str(tmp_path / "two"), 1, LONG)
    assert [done.code for done in several.ended()] == [0, 0]
    assert_equal_to_rounding(tmp_path / "one", tmp_path / "two")
    assert record(tmp_path / "two")["settled"]["accumulation"] == 3


@pytest.mark.slow
def test_one_process_without_memory_for_an_image_ends_all(tmp_path, model):
    first, second = Several(tmp_path / "a", _out_of_memory, model, str(tmp_path / "two"), 0, LONG).ended()
    assert (first.code, second.code) == (1, 1)
    assert "process 1: memory ran out with one image" in first.err.splitlines()[-1]


def test_other_verbs_are_the_work_of_process_0_alone(tmp_path, model, tree):
    ttctune.adapt(model, str(tree), short(), out=tmp_path / "x", quiet=True)
    first, second = Several(tmp_path / "a", main, ["evaluate", str(tmp_path / "x"), "--data", str(tree)]).ended()
    assert (first.code, second.code) == (0, 0) and "accuracy" in first.out and second.out == second.err == ""


@pytest.mark.slow
def test_a_dry_run_of_two_says_so_once_and_writes_nothing(tmp_path, model, tree):
    arguments = flags(tree, model, tmp_path / "x", "--dry-run", "--json")
    first, second = Several(tmp_path / "a", main, arguments).ended()
    assert (first.code, second.code, second.out) == (0, 0, "") and json.loads(first.out)["classes"] == 3
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_other_and_leaves_a_folder_to_resume(tmp_path, model, tree, killed):
    arguments = flags(tree, model, tmp_path / "x", align_epochs=30)
    run = Several(tmp_path / "a", main, arguments)
    run.wait_for("align 3/")
    run.processes[killed].kill()
    ended = run.ended()
    assert ended[killed].code == -signal.SIGKILL and ended[1 - killed].code == 1
    if killed:
        assert "another process of this run was lost" in ended[0].err.splitlines()[-1]
        assert "Traceback" not in ended[0].err
    assert state_of(tmp_path / "x") == "unfinished"
    again = Several(tmp_path / "b", main, [*arguments, "--resume"]).ended()
    assert [done.code for done in again] == [0, 0], again


@pytest.mark.slow
def test_torchrun_starts_it_and_ends_it(tmp_path, model, tree):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "ttctune", *flags(tree, model, tmp_path / "x")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert record(tmp_path / "x")["settled"]["processes"] == 2
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 1 and done.stderr.count("ttctune: ") == 1 and "is finished" in done.stderr
