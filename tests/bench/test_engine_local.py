"""Worker processes: what they do, and what becomes of them and of their jobs when something is killed."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter

import psutil
import pytest
from tests.bench.tasks import conditions

from ttctune.bench.engine import Advanced, Done, Lost
from ttctune.bench.engine_local import LocalEngine
from ttctune.bench.grid import jobs_of
from ttctune.bench.progress import Progress
from ttctune.bench.record import read_record
from ttctune.bench.runner import run_grid

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "ttctune", "bench", "--suite", "folder", "--epochs", "2", "--device", "cpu"]


def timeless(record):
    """A record without what the clock says."""
    history = tuple({**row, "seconds": 0} for row in record.history)
    return record.model_copy(update={"seconds": 0.0, "history": history})


def test_one_process_and_two_give_the_same_records(tmp_path, tasks, model):
    common, found = conditions(model), []
    for jobs in (1, 2):
        folder = tmp_path / str(jobs)
        with LocalEngine(common, jobs) as engine:
            grid = jobs_of(tasks, ["norm", "ttc"], 1, "val")
            outcome = run_grid(grid, common, folder, engine, Progress(quiet=True))
        assert not outcome.failed
        found.append([timeless(read_record(path)) for path in sorted(folder.rglob("*.json"))])
    assert found[0] == found[1] and len(found[0]) == 4


def test_a_killed_worker_costs_its_own_job_alone_and_that_job_is_done_again(tmp_path, tasks, model):
    class Murderer(LocalEngine):
        def start(self, job):
            super().start(job)
            started[job] += 1
            if job.method == "norm" and started[job] == 1:
                os.kill(self._busy[-1]._process.pid, signal.SIGKILL)

    started = Counter()
    common = conditions(model)
    jobs = jobs_of(tasks[:1], ["linear", "norm", "ttc"], 1, "val")
    with Murderer(common, 2) as engine:
        outcome = run_grid(jobs, common, tmp_path, engine, Progress(quiet=True))
    assert not outcome.failed and len(outcome.records) == 3
    assert {job.method: count for job, count in started.items()} == {"linear": 1, "norm": 2, "ttc": 1}


def test_a_dead_worker_is_told_with_the_signal(tasks, model):
    engine = LocalEngine(conditions(model), 1)
    (job,) = jobs_of(tasks[:1], ["linear"], 1, "val")
    with engine:
        engine.start(job)
        os.kill(engine._busy[0]._process.pid, signal.SIGKILL)
        while not (events := engine.wait()):
            pass
        assert events == [Lost(job, "its process was ended by SIGKILL, as the system does for want of memory")]
        engine.start(job)
        while not isinstance(event := (engine.wait() or [None])[-1], Done):
            pass
        workers = [worker._process for worker in engine._idle]
        assert event.record.failed is None and len(workers) == 1
    assert not workers[0].is_alive()


def test_a_worker_that_died_while_idle_costs_no_job(tasks, model):
    (job,) = jobs_of(tasks[:1], ["linear"], 1, "val")
    with LocalEngine(conditions(model), 1) as engine:
        for _ in range(2):
            engine.start(job)
            while not (events := [event for event in engine.wait() if not isinstance(event, Advanced)]):
                pass
            assert [type(event) for event in events] == [Done]
            os.kill(engine._idle[0]._process.pid, signal.SIGKILL)
            engine._idle[0]._process.join()


def test_a_signal_without_a_name_is_told_by_its_number(tasks, model):
    (job,) = jobs_of(tasks[:1], ["linear"], 1, "val")
    with LocalEngine(conditions(model), 1) as engine:
        engine.start(job)
        os.kill(engine._busy[0]._process.pid, signal.SIGRTMIN + 1)
        while not (events := engine.wait()):
            pass
        assert events == [Lost(job, f"its process was ended by signal {signal.SIGRTMIN + 1}")]


def heed_interrupts():
    """Undo what a shell does to its background jobs: they ignore interrupts, and so would the command."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_runner_keeps_what_is_done_and_leaves_no_process(tmp_path, root, model, number, code):
    out = tmp_path / "results"
    command = [*COMMAND, "--root", str(root), "--model", model, "--methods", "linear,ttc"]
    command += ["--seeds", "2", "--jobs", "2", "-o", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts) as runner:
        for line in runner.stderr:
            if line.startswith("2/8"):
                break
        workers = psutil.Process(runner.pid).children(recursive=True)
        runner.send_signal(number)
        assert runner.wait(60) == code
        rest = runner.stderr.read()
    assert "Traceback" not in rest
    assert not psutil.wait_procs(workers, 20)[1]
    done = {path: path.read_bytes() for path in out.rglob("seed*.json")}
    assert 2 <= len(done) < 8 and not list(out.rglob("*.part"))
    before = time.time()
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert f"{8 - len(done)} jobs done, {len(done)} done before, 0 failed" in again.stderr
    assert len([*out.rglob("seed*.json")]) == 8
    assert all(path.read_bytes() == content and path.stat().st_mtime < before for path, content in done.items())
