"""The command as a process of its own: interrupted, killed, short of memory, and quick to help."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.images.pictures import write_image_tree
from tests.run_helpers import save_model, sha, short_flags

from ttctune.output_folder import state_of

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "ttctune"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def arguments(tree, model, out, **settings):
    """A fit of many short epochs."""
    flags = short_flags(**({"align_epochs": 25, "tune_epochs": 25, "flip": True, "drop_path": 0.1} | settings))
    flags = [flag for flag in flags if flag != "True"]
    return ["fit", "--data", str(tree), "--model", model, "-o", str(out), "--threads", "1", *flags]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, model, tree):
    """SHA-256 of the adapter of a run that nobody stops."""
    out = tmp_path_factory.mktemp("whole") / "x"
    subprocess.run([*COMMAND, *arguments(tree, model, out)], check=True, env=ENVIRONMENT, capture_output=True)
    return sha(out / "adapter.safetensors")


def heed_interrupts():
    """Undo what a shell does to its background jobs: they ignore interrupts, and so would the command."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def stop(command, number, until):
    """Start a command, send a signal once a line of stderr matches; returns exit code and the lines after it."""
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, preexec_fn=heed_interrupts
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if re.search(until, line):
                break
        process.send_signal(number)
        rest = process.stderr.read()
        return process.wait(60), rest


STOPS = [
    (signal.SIGINT, 130, "pixels"),
    (signal.SIGINT, 130, "align 3/"),
    (signal.SIGINT, 130, "scoring"),
    (signal.SIGTERM, 143, "tune 2/"),
    (signal.SIGKILL, -9, "pixels"),
    (signal.SIGKILL, -9, "scoring"),
]


@pytest.mark.parametrize(("number", "code", "until"), STOPS, ids=[f"{n.name} at {u}" for n, _, u in STOPS])
def test_a_stopped_run_says_how_to_go_on_and_then_ends_in_the_same_bytes(
    tmp_path, model, tree, whole, number, code, until
):
    command = [*COMMAND, *arguments(tree, model, tmp_path / "x")]
    got, rest = stop(command, number, until)
    assert got == code
    if number != signal.SIGKILL:
        assert f"-o {tmp_path / 'x'} --resume" in rest and "Traceback" not in rest
        assert rest.splitlines()[-1] == ("ttctune: interrupted" if number == signal.SIGINT else "ttctune: terminated")
    assert state_of(tmp_path / "x") == "unfinished"
    again = subprocess.run([*command, "--resume"], env=ENVIRONMENT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert sha(tmp_path / "x" / "adapter.safetensors") == whole
    assert {p.name for p in (tmp_path / "x").iterdir()} >= {"adapter.json", "README.md"}
    assert not list((tmp_path / "x").glob("*.part")) and not (tmp_path / "x" / "checkpoint").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_streamed_run_that_is_stopped_leaves_no_process_and_ends_in_the_same_bytes(
    tmp_path, model, tree, whole, number, code
):
    command = [*COMMAND, *arguments(tree, model, tmp_path / "x"), "--streaming", "--workers", "2"]
    got, rest = stop(command, number, "align 3/")
    assert got == code and "Traceback" not in rest
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and str(tmp_path) in command_of(pid)]
    again = subprocess.run([*command, "--resume"], env=ENVIRONMENT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert sha(tmp_path / "x" / "adapter.safetensors") == whole


def command_of(pid):
    """The command line of a process; nothing when it has ended."""
    try:
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return ""


def test_a_run_killed_again_and_again_ends_in_the_same_bytes(tmp_path, model, tree, whole):
    command = [*COMMAND, *arguments(tree, model, tmp_path / "x")]
    for epoch in (2, 9, 20):
        assert stop(command, signal.SIGKILL, rf"align {epoch}/")[0] == -9
        command = command if "--resume" in command else [*command, "--resume"]
    subprocess.run(command, check=True, env=ENVIRONMENT, capture_output=True)
    assert sha(tmp_path / "x" / "adapter.safetensors") == whole


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_goes_on(tmp_path, model, tree):
    command = [*COMMAND, *arguments(tree, model, tmp_path / "x")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as first:
        assert first.stderr is not None
        for line in first.stderr:
            if "align 1/" in line:
                break
        first.send_signal(signal.SIGSTOP)
        for more in ([], ["--resume"], ["--overwrite"]):
            second = subprocess.run([*command, *more], capture_output=True, text=True, env=ENVIRONMENT)
            assert second.returncode == 1 and "in use by another run" in second.stderr
        first.kill()


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A model and images that need some memory: 196 tokens, 192 channels."""
    import timm

    folder = tmp_path_factory.mktemp("large")
    sizes = {"img_size": 224, "patch_size": 8, "embed_dim": 64, "depth": 12, "num_heads": 4, "num_classes": 0}
    import tests.run_helpers as helpers

    before = helpers.MODEL_ARGS, helpers.PIXELS["input_size"]
    helpers.MODEL_ARGS, helpers.PIXELS["input_size"] = sizes, (3, 224, 224)
    try:
        name = save_model(folder / "model", timm.create_model("vit_tiny_patch16_224", **sizes))
    finally:
        helpers.MODEL_ARGS, helpers.PIXELS["input_size"] = before
    return name, write_image_tree(folder / "images", 2, 20)


def limited(command, megabytes):
    """Run under a limit of address space."""
    limit = megabytes << 20

    def lower():
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, preexec_fn=lower, timeout=500)


def test_a_memory_limit_gives_smaller_parts_or_one_clear_line(tmp_path, large):
    name, tree = large
    flags = ["--align-epochs", "1", "--tune-epochs", "1", "--batch-size", "32", "--precision", "fp32", "--threads", "1"]
    outcomes = {}
    for megabytes in (900, 1200, 1500, 1800, 2100, 2400, 6000):
        out = tmp_path / f"{megabytes}"
        done = limited([*COMMAND, "fit", "--data", str(tree), "--model", name, "-o", str(out), *flags], megabytes)
        outcomes[megabytes] = (done.returncode, "same effective batch" in done.stderr)
        if done.returncode == 0:
            assert (out / "adapter.json").is_file()
        else:
            assert done.returncode == 1, done.stderr
            assert "Traceback" not in done.stderr, done.stderr
            assert done.stderr.splitlines()[-1].startswith("ttctune: ") and "memory" in done.stderr
    assert outcomes[6000] == (0, False), outcomes
    assert (0, True) in outcomes.values(), outcomes


def test_help_imports_no_torch_and_is_there_at_once():
    program = (
        "import sys; from ttctune.cli.main import main; code = main(['--help']); "
        "print(sorted({'torch', 'timm', 'PIL', 'numpy', 'accelerate'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    libraries = [sys.executable, "-c", "import typer.rich_utils, pydantic; pydantic.BaseModel"]
    ours = [Path(sys.executable).parent / "ttctune", "--help"]
    without, whole = ([_processor_seconds(command) for _ in range(5)] for command in (libraries, ours))
    assert min(whole) < max(0.4, 2 * min(without))  # a processor that others share needs longer for everything


def _processor_seconds(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    ("program", "unwanted"),
    [
        ("import ttctune; dir(ttctune); ttctune.__version__", "torch"),
        ("import ttctune.images", "timm"),
        ("import ttctune.adapted", "torchmetrics"),
    ],
)
def test_nothing_is_imported_before_it_is_needed(program, unwanted):
    """The package's names are there at once, images know nothing of models, and few commands need metrics."""
    program += f"; import sys; print({unwanted!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_reader_who_goes_away_is_no_crash(tmp_path, fitted, tree):
    line = f"{sys.executable} -m ttctune predict {fitted} {tree} | head -n 1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=ENVIRONMENT)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_names_of_files_may_hold_any_bytes(tmp_path, fitted, tree):
    odd = os.fsencode(tmp_path) + b"/\xff\xfe.png"
    Path(os.fsdecode(odd)).write_bytes(next(tree.rglob("*.png")).read_bytes())
    for more in ([], ["--json"], ["--csv"]):
        done = subprocess.run([*COMMAND, "predict", str(fitted), str(tmp_path), *more], capture_output=True)
        assert done.returncode == 0, done.stderr
    rows = subprocess.run([*COMMAND, "predict", str(fitted), str(tmp_path), "--json"], capture_output=True).stdout
    assert os.fsencode(json.loads(rows)[0]["file"]) == odd
