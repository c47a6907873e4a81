"""The loop that keeps an engine busy until every job has a record."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ttctune.bench.engine import Advanced, Done, Engine, Event, Lost
from ttctune.bench.grid import Conditions, Job, check_data, check_group, check_settings, done_before
from ttctune.bench.progress import Progress
from ttctune.bench.record import Record, write_record
from ttctune.bench.run_job import failed
from ttctune.bench.search import Search
from ttctune.errors import DataError, TrainingError

#: How often a job is started whose worker dies each time; a lost machine does not count.
ATTEMPTS = 2


@dataclass
class Outcome:
    """What became of a grid.

    Attributes:
        before: Records of jobs that an earlier call has done.
        records: Of those done now, failed ones among them.
    """

    before: list[Record] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    @property
    def failed(self) -> list[Record]:
        """Records without a result."""
        return [record for record in self.records if record.failed is not None]


def run_grid(
    jobs: Sequence[Job],
    conditions: Conditions,
    folder: Path,
    engine: Engine,
    progress: Progress,
    search: Search | None = None,
) -> Outcome:
    """Do every job that has no result in `folder` yet, and write each record as it comes.

    Args:
        jobs: The grid.
        conditions: What all jobs share.
        folder: Owned by this process.
        engine: Where jobs are done.
        progress: Told of everything.
        search: Chooses the settings of the jobs; None leaves them as they are.

    Raises:
        RecordError: A record in `folder` is damaged, or was made with other settings or images, or in another group.
        DataError: The images of a task that has records cannot be read.
        FolderError: The folder cannot be written.
    """
    outcome, todo = Outcome(), []
    digests: dict[str, str] = {}
    for job in jobs:
        record = done_before(job, folder)
        if record is None:
            todo.append(job)
            continue
        searched = search.searched(job) if search else ()
        settings = {name: value for name, value in conditions.settings(job).items() if name not in searched}
        check_group(record, job, job.path(folder))
        check_settings(record, settings, job.path(folder))
        if job.task.name not in digests:
            digests[job.task.name] = conditions.data(job).digest
        check_data(record, digests[job.task.name], job, job.path(folder))
        outcome.before.append(record)
    progress.begin(todo, outcome.before, engine.slots)
    try:
        _Loop(conditions, folder, engine, progress, search, outcome).run(todo)
    finally:
        progress.stop()
    return outcome


class _Loop:
    """The state of a grid that runs."""

    def __init__(
        self,
        conditions: Conditions,
        folder: Path,
        engine: Engine,
        progress: Progress,
        search: Search | None,
        outcome: Outcome,
    ) -> None:
        self.conditions, self.folder, self.engine, self.progress = conditions, folder, engine, progress
        self.search, self.outcome = search, outcome
        self.queue: deque[Job] = deque()
        self.waiting: dict[str, list[Job]] = {}
        self.lost: Counter[Job] = Counter()

    def run(self, todo: Sequence[Job]) -> None:
        if self.search is None:
            self.queue.extend(todo)
        else:
            for job in todo:
                self.waiting.setdefault(job.study, []).append(job)
            for study, (first, *_) in [*self.waiting.items()]:
                try:
                    left = self.search.left(first)
                except DataError as error:
                    self._give_up(study, str(error))
                    continue
                self.progress.expect(first.method, left)
                self._go_on(study)
        running = 0
        while self.queue or running:
            while self.queue and running < self.engine.slots:
                job = self.queue.popleft()
                self.engine.start(job)
                self.progress.started(job)
                running += 1
            for event in self.engine.wait():
                running -= not isinstance(event, Advanced)
                self._heard(event)
            self.progress.refresh()

    def _heard(self, event: Event) -> None:
        job = event.job
        if isinstance(event, Advanced):
            self.progress.advanced(job, event.share)
        elif isinstance(event, Done):
            self._ended(job, event.record)
        elif self._may_try_again(event):
            self.progress.lost(job, event.reason)
            self.queue.appendleft(job)
        else:
            reason = f"its worker died {ATTEMPTS} times; the last time {event.reason}"
            self._ended(job, failed(job, self.conditions, reason))

    def _may_try_again(self, event: Lost) -> bool:
        self.lost[event.job] += not event.with_machine
        return self.lost[event.job] < ATTEMPTS

    def _ended(self, job: Job, record: Record) -> None:
        """Keep a record, and only then say that the job is done."""
        if job.trial is None or self.search is None:
            write_record(self.folder, record)
            self.outcome.records.append(record)
            self.progress.ended(job, record)
        else:
            counts = self.search.tell(job, record)
            self.progress.ended(job, record)
            if counts:
                self._go_on(job.study)
            else:
                self.progress.expect(job.method, 1 - self.search.left(job))
                self._give_up(
                    job.study,
                    f"a trial of its search failed, and is tried once more by the same command: {record.failed}",
                )

    def _go_on(self, study: str) -> None:
        """Queue the next trial of a search; after the last, the jobs that waited for it."""
        assert self.search is not None
        waiting = self.waiting[study]
        trial = self.search.next_trial(waiting[0])
        if trial is not None:
            self.queue.append(trial)
            return
        try:
            settled = [self.search.settled(job) for job in waiting]
        except TrainingError as error:
            self._give_up(study, str(error))
            return
        self.queue.extend(settled)
        del self.waiting[study]

    def _give_up(self, study: str, reason: str) -> None:
        """The jobs that waited for a search have failed."""
        for job in self.waiting.pop(study):
            self._ended(job, failed(job, self.conditions, reason))
