"""What an engine is: it does jobs somewhere, several at a time, and says what becomes of them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ttctune.bench.grid import Job
from ttctune.bench.record import Record


@dataclass(frozen=True)
class Advanced:
    """A job has done this share of its training, 0 to 1."""

    job: Job
    share: float


@dataclass(frozen=True)
class Done:
    """A job has come to an end, well or not."""

    job: Job
    record: Record


@dataclass(frozen=True)
class Lost:
    """A job's worker died, for the reason given in one line; the job can be started again.

    Attributes:
        job: The job.
        reason: How it died.
        with_machine: Whether its whole machine was lost, so that it cannot have been the job's fault.
    """

    job: Job
    reason: str
    with_machine: bool = False


Event: TypeAlias = Advanced | Done | Lost


class Engine(ABC):
    """Does jobs; used as a context, which on leaving ends whatever is still running.

    Attributes:
        title: For people.
        slots: Jobs that run at the same time.
    """

    title: str
    slots: int

    @abstractmethod
    def start(self, job: Job) -> None:
        """Begin a job; at most `slots` may be running."""

    @abstractmethod
    def wait(self) -> Sequence[Event]:
        """What has happened since the last call; waits until something has, or a second has passed."""

    @abstractmethod
    def close(self) -> None:
        """End every job that is running, at once."""

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
