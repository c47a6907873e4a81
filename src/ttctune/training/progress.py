"""What a person sees while a run goes on: a bar on a terminal, a line an epoch elsewhere, nothing when quiet."""

import sys
import time
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

#: Images after which the decoding is reported again.
DECODED_STEP = 100


@dataclass
class Reporter:
    """Prints to stderr, so that stdout holds results alone.

    Attributes:
        quiet: Print nothing.
    """

    quiet: bool = False
    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False, soft_wrap=True))
    _bar: Progress | None = None
    _task: TaskID | None = None
    _work: int = 0
    _done: int = 0
    _started: float = 0.0
    _first_done: int = 0
    _epoch_done: int = 0

    def say(self, line: str) -> None:
        """One line for a person."""
        if not self.quiet:
            self.console.print(line, markup=False, emoji=False)

    def start(self, work: int, done: int = 0) -> None:
        """Begin a run of `work` images in all, `done` of which lie behind."""
        self._work = work
        self._done = self._first_done = self._epoch_done = done
        self._started = time.monotonic()
        if self.console.is_terminal and not self.quiet:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[status]}"),
                console=self.console,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=work, completed=done, status="")

    def decoding(self, done: int, total: int) -> None:
        """Say how far the decoding of the images is, on a terminal."""
        if self.console.is_terminal and not self.quiet:
            end = "\n" if done == total else "\r"
            if done % DECODED_STEP == 0 or done == total:
                self.console.print(f"decoding images: {done} of {total}", end=end)

    def step(self, title: str, images: int, loss: float, accuracy: float) -> None:
        """Count a step of `images` images in the epoch called `title`."""
        self._done += images
        if self._bar is not None and self._task is not None:
            status = f"loss {loss:.3f}  accuracy {accuracy:.1%}  {self.rate():.0f} images/s  {self.time_left()} left"
            self._bar.update(self._task, description=title, completed=self._done, status=status)

    def epoch(self, title: str, loss: float, accuracy: float, seconds: float) -> None:
        """Close an epoch, which took `seconds`."""
        rate = (self._done - self._epoch_done) / max(seconds, 1e-9)
        self._epoch_done = self._done
        if self._bar is None:
            self.say(
                f"{title}  loss {loss:.3f}  accuracy {accuracy:.1%}  {rate:.0f} images/s  "
                f"{seconds:.1f} s  {self.time_left()} left"
            )

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        sys.stderr.flush()

    def rate(self) -> float:
        """Images a second since the start, over everything."""
        return (self._done - self._first_done) / max(time.monotonic() - self._started, 1e-9)

    def time_left(self) -> str:
        """Estimate, as m:ss or h:mm:ss."""
        rate = self.rate()
        seconds = round((self._work - self._done) / rate) if rate else 0
        hours, rest = divmod(max(seconds, 0), 3600)
        return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
