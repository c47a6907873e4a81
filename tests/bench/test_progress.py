"""What a person sees of a grid."""

import io

import pytest
from rich.console import Console
from tests.bench.records import record

from ttctune.bench import progress as module
from ttctune.bench.grid import Job
from ttctune.bench.progress import Progress


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def new(terminal=False, quiet=False):
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100, soft_wrap=True, highlight=False, color_system=None)
    return Progress(quiet, console), text


def test_the_time_left_is_that_of_each_methods_own_jobs(clock, tasks):
    progress, _ = new()
    jobs = [Job(tasks[0], "val", method, seed) for seed in range(3) for method in ("linear", "full")]
    progress.begin(jobs, [], slots=2)
    assert progress.time_left() == "?"
    for job, seconds in zip(jobs[:2], (10, 100), strict=True):
        progress.started(job)
        clock.now += seconds
        progress.ended(job, record(method=job.method))
    assert progress.time_left() == "0:01:50"  # two of each are left, on two workers
    progress.started(jobs[2])
    clock.now += 8
    assert progress.time_left() == "0:01:46"
    clock.now += 1000
    assert progress.time_left() == "0:01:45"


def test_without_a_terminal_each_job_is_one_line(clock, tasks):
    progress, text = new()
    jobs = [Job(tasks[0], "val", "norm", seed) for seed in range(2)]
    progress.begin(jobs, [record(method="linear")], slots=1)
    for job, made in zip(jobs, (record(), record(failed="a loss of nan")), strict=True):
        progress.started(job)
        clock.now += 2
        progress.ended(job, made)
    progress.stop()
    assert text.getvalue().splitlines() == [
        "2/3  norm on ants, seed 0  75.0%  2.0 s  0:00:02 left",
        "3/3  norm on ants, seed 1  failed: a loss of nan  2.0 s  0:00:00 left",
    ]


def test_on_a_terminal_a_table_shows_methods_and_running_jobs(clock, tasks):
    progress, text = new(terminal=True)
    job = Job(tasks[0], "val", "norm", 0)
    progress.begin([job], [record(method="linear")], slots=1)
    progress.started(job)
    progress.advanced(job, 0.25)
    clock.now = 3
    progress.refresh()
    progress.stop()
    shown = text.getvalue()
    assert "norm on ants, seed 0: 25%, 3 s" in shown
    assert "1 of 2 jobs" in shown and "75.0%" in shown


def test_quiet_is_quiet(clock, tasks):
    progress, text = new(quiet=True, terminal=True)
    job = Job(tasks[0], "val", "norm", 0)
    progress.begin([job], [], slots=1)
    progress.started(job)
    progress.ended(job, record(failed="x"))
    progress.stop()
    assert text.getvalue() == ""
