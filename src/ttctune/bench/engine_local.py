"""Jobs on this machine: a few worker processes, each with a pipe, each knowing when the runner is gone.

A pool of the standard library would fail as a whole when one of its processes dies, and not say which job that
process was doing; here a dead worker costs its own job, and another takes its place.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from ttctune.bench.engine import Advanced, Done, Engine, Event, Lost
from ttctune.bench.grid import Conditions, Job
from ttctune.wording import counted

#: Seconds after which `wait` returns without an event, so that the time left can be shown anew.
PATIENCE = 1.0


class LocalEngine(Engine):
    """Worker processes.

    Args:
        conditions: What all jobs share.
        jobs: How many run at the same time.
    """

    def __init__(self, conditions: Conditions, jobs: int) -> None:
        self.slots = jobs
        self.title = f"{counted(jobs, 'process')} of {counted(conditions.threads, 'thread')}"
        self._conditions = conditions
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []

    def start(self, job: Job) -> None:
        """Give a job to an idle worker, or to a new one."""
        slot = min(set(range(self.slots)) - {worker.slot for worker in self._busy})
        worker = next((worker for worker in self._idle if worker.slot == slot), None)
        if worker is not None:
            self._idle.remove(worker)
            if not worker.alive:  # ended while it had nothing to do, which is no fault of the job's
                worker.kill()
                worker = None
        worker = worker or _Worker(self._conditions, slot)
        self._busy.append(worker)
        worker.start(job)

    def wait(self) -> Sequence[Event]:
        """What the workers have sent."""
        ready = wait([worker.pipe for worker in self._busy], PATIENCE)
        return [event for worker in [*self._busy] if worker.pipe in ready for event in self._heard(worker)]

    def close(self) -> None:
        """Kill the workers: no job leaves anything half-written, because only the runner writes."""
        for worker in (*self._idle, *self._busy):
            worker.kill()
        self._idle, self._busy = [], []

    def _heard(self, worker: "_Worker") -> list[Event]:
        job = worker.job
        assert job is not None
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            self._busy.remove(worker)
            return [Lost(job, worker.epitaph())]
        if isinstance(message, float):
            return [Advanced(job, message)]
        self._busy.remove(worker)
        self._idle.append(worker)
        return [Done(job, message)]


class _Worker:
    """A process and the runner's end of its pipe."""

    def __init__(self, conditions: Conditions, slot: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.slot = slot
        self.job: Job | None = None
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, conditions, slot), daemon=True)
        with _interrupts_ignored():  # a process inherits that: the runner hears them too, and decides
            self._process.start()
        theirs.close()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.is_alive()

    def start(self, job: Job) -> None:
        """Hand it a job."""
        self.job = job
        with suppress(OSError):  # where it has died already, reading from its pipe will show it
            self.pipe.send(job)

    def epitaph(self) -> str:
        """How the process ended, after whose death its pipe is empty."""
        self._process.join(PATIENCE)
        code = self._process.exitcode
        self.kill()
        if code is None or code >= 0:
            return f"its process ended with exit code {code}"
        name = signal.Signals(-code).name if -code in {*signal.Signals} else f"signal {-code}"
        return f"its process was ended by {name}" + ", as the system does for want of memory" * (name == "SIGKILL")

    def kill(self) -> None:
        """End the process, in whatever state it is."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(pipe: Connection, conditions: Conditions, slot: int) -> None:
    """Do jobs until there are no more."""
    threading.Thread(target=_end_with_runner, daemon=True).start()
    import torch

    from ttctune.bench.run_job import record_of

    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(slot % torch.cuda.device_count())
    with suppress(EOFError, ConnectionError):  # the runner is gone, and so is the need for any of this
        while True:
            job: Any = pipe.recv()
            pipe.send(record_of(job, conditions, pipe.send))


def _end_with_runner() -> None:
    runner = multiprocessing.parent_process()
    if runner is not None:
        runner.join()
        os._exit(1)
