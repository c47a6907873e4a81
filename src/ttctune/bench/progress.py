"""What a person sees while a grid runs: a live table on a terminal, a line a job elsewhere, nothing when quiet."""

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import mean

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ttctune.bench.grid import Job
from ttctune.bench.record import Record


@dataclass
class Running:
    """A job that runs since a moment (in seconds of the monotonic clock), and its share done, 0 to 1."""

    since: float
    share: float = 0.0


@dataclass
class Progress:
    """Counts jobs, estimates the time left, and shows both on stderr.

    Attributes:
        quiet: Show nothing.
    """

    quiet: bool = False
    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False, soft_wrap=True))

    def __post_init__(self) -> None:
        self._live: Live | None = None
        self._left: dict[str, int] = defaultdict(int)
        self._done: dict[str, int] = defaultdict(int)
        self._failed: dict[str, int] = defaultdict(int)
        self._right: dict[str, list[float]] = defaultdict(list)
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._running: dict[Job, Running] = {}
        self._slots = 1

    def begin(self, todo: Iterable[Job], done: Iterable[Record], slots: int) -> None:
        """Begin a grid of which some jobs are done already."""
        self._slots = slots
        for job in todo:
            self.expect(job.method)
        for record in done:
            self._done[record.method] += 1
            self._count(record)
        if self.console.is_terminal and not self.quiet:
            self._live = Live(get_renderable=self._table, console=self.console, auto_refresh=False, transient=True)
            self._live.start()

    def say(self, line: str) -> None:
        """One line for a person."""
        if not self.quiet:
            self.console.print(line, markup=False, emoji=False)

    def expect(self, method: str, jobs: int = 1) -> None:
        """There are more jobs of a method to do."""
        self._left[method] += jobs

    def started(self, job: Job) -> None:
        """A job has begun."""
        self._running[job] = Running(time.monotonic())

    def advanced(self, job: Job, share: float) -> None:
        """A job has done this share of its training."""
        self._running[job].share = share

    def lost(self, job: Job, reason: str) -> None:
        """The worker of a job died, and the job will be started again."""
        del self._running[job]
        self.say(f"{job.title}: {reason}; it is started again")

    def ended(self, job: Job, record: Record) -> None:
        """A job has come to its end."""
        now = time.monotonic()
        seconds = now - self._running.pop(job, Running(now)).since
        self._left[job.method] -= 1
        self._done[job.method] += 1
        if record.failed is None:
            self._seconds[job.method].append(seconds)
        if job.trial is None:
            self._count(record)
        if self._live is None or record.failed is not None:
            result = f"failed: {record.failed}" if record.accuracy is None else f"{record.accuracy:.1%}"
            done, left = sum(self._done.values()), sum(self._left.values())
            self.say(f"{done}/{done + left}  {job.title}  {result}  {seconds:.1f} s  {self.time_left()} left")

    def refresh(self) -> None:
        """Show the table as it is now."""
        if self._live is not None:
            self._live.refresh()

    def stop(self) -> None:
        """Take the table away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def time_left(self) -> str:
        """Estimate from the jobs of each method that are done, as h:mm:ss; ? before the first."""
        known = {method: mean(seconds) for method, seconds in self._seconds.items()}
        if not known:
            return "?"
        usual = mean(known.values())
        now = time.monotonic()
        seconds = sum(count * known.get(method, usual) for method, count in self._left.items())
        seconds -= sum(min(now - r.since, known.get(job.method, usual)) for job, r in self._running.items())
        minutes, rest = divmod(round(seconds / self._slots), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"

    def _count(self, record: Record) -> None:
        if record.accuracy is None:
            self._failed[record.method] += 1
        else:
            self._right[record.method].append(record.accuracy)

    def _table(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for name in ("method", "done", "failed", "mean accuracy so far"):
            table.add_column(name, justify="left" if name == "method" else "right")
        for method in {**self._done, **self._left}:
            done, right = self._done[method], self._right[method]
            accuracy = f"{mean(right):.1%}" if right else ""
            table.add_row(method, f"{done}/{done + self._left[method]}", str(self._failed[method] or ""), accuracy)
        lines = [
            Text(f"  {job.title}: {r.share:.0%}, {time.monotonic() - r.since:.0f} s")
            for job, r in self._running.items()
        ]
        done, left = sum(self._done.values()), sum(self._left.values())
        return Group(table, *lines, Text(f"{done} of {done + left} jobs, {self.time_left()} left"))
