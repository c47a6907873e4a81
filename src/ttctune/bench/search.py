"""Settings chosen by a search: the same number of trials for each method on each task, on val alone.

Every trial trains on train and is scored on val, whatever the split of the grid. The first trial is the method's own
recipe, so that a search cannot end below it on val; the others are drawn by Optuna's TPE, each from a seed of its own,
so that an interrupted search goes on as if it had not stopped. One process asks and tells, and writes the journal.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ttctune.bench.grid import Conditions, Job, changed_settings
from ttctune.bench.methods import method_of
from ttctune.bench.record import Record
from ttctune.errors import RecipeError, RecordError, TrainingError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

JOURNAL = "search.journal"
#: What the journal keeps of a study beside its trials: a digest of the images, and the settings that are not searched.
ABOUT = "about"
#: The search looks this many times above and below the learning rate of the method's recipe.
RATE_FACTOR = 10.0
WEIGHT_DECAYS = (1e-4, 1e-1)
#: Of the trials; jobs of the grid have seeds of their own.
SEED = 0
#: Trials before those that learn from earlier ones.
RANDOM_TRIALS = 5


class Search:
    """The searches of a grid, one study for a method on a task, in one journal.

    Args:
        folder: Of the results, owned by this process.
        trials: Of each study.
        conditions: What all jobs share.

    Raises:
        RecipeError: Optuna is not installed.
    """

    def __init__(self, folder: Path, trials: int, conditions: Conditions) -> None:
        self._optuna = _optuna(trials)
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self._journal = folder / JOURNAL
        _mend(self._journal)
        self._storage = JournalStorage(JournalFileBackend(str(self._journal)))
        self._trials, self._conditions = trials, conditions
        self._studies: dict[str, Study] = {}
        self._digests: dict[str, str] = {}

    def searched(self, job: Job) -> tuple[str, ...]:
        """Names of the settings that a search chooses for a job."""
        return tuple(self._space(job))

    def left(self, job: Job) -> int:
        """Trials of a job's study that are still to be done.

        Raises:
            RecordError: Its trials were made with other images or settings than those of now.
            DataError: The images cannot be read.
        """
        drawn = [t for t in self._study(job).get_trials(deepcopy=False) if self._is_drawn(t, job)]
        return self._trials - sum(1 for trial in drawn if trial.state.is_finished())

    def next_trial(self, job: Job) -> Job | None:
        """The next trial of a job's study, one at a time; None when all are done."""
        study, states = self._study(job), self._optuna.trial.TrialState
        trials = study.get_trials(deepcopy=False)
        drawn = [t for t in trials if t.state != states.WAITING and self._is_drawn(t, job)]
        for trial in trials:
            if trial.state == states.RUNNING and trial in drawn:
                return self._trial_job(job, trial.number, trial.params)  # its runner was killed
            if trial.state == states.RUNNING:
                study.tell(trial.number, state=states.FAIL)  # killed while it was being drawn: no trial
        if len(drawn) >= self._trials:
            return None
        if not drawn and all(t.state != states.WAITING for t in trials):
            study.enqueue_trial(self._own_settings(job))
        study.sampler = self._optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=SEED + len(drawn))
        trial = study.ask(self._space(job))
        return self._trial_job(job, trial.number, trial.params)

    def tell(self, trial: Job, record: Record) -> bool:
        """Enter what a trial has reached; one that diverged counts as a trial without a value.

        Returns:
            Whether it counts: what failed for another reason may say nothing of its settings, so it is done once more
            when the search goes on.
        """
        study, again = self._study(trial), f"failed {trial.trial}"
        if record.accuracy is not None:
            study.tell(trial.trial, record.accuracy)  # type: ignore[arg-type]
        elif record.diverged or again in study.user_attrs:
            study.tell(trial.trial, state=self._optuna.trial.TrialState.FAIL)  # type: ignore[arg-type]
        else:
            study.set_user_attr(again, record.failed)
            return False
        return True

    def settled(self, job: Job) -> Job:
        """The job with the settings that were best on val, the first of equals.

        Raises:
            TrainingError: No trial has a value.
        """
        good = [t for t in self._study(job).get_trials(deepcopy=False) if t.value is not None]
        if not good:
            given = f"all {self._trials} trials of {job.method} on {job.task.name} failed"
            raise TrainingError(given, "at least one that trains", "leave this method out, or change --precision")
        best = max(good, key=lambda trial: (trial.value, -trial.number))
        return self._with(job, best.params, trials=self._trials, chosen_by="search on val")

    def _study(self, job: Job) -> "Study":
        if job.study not in self._studies:
            study = self._optuna.create_study(
                storage=self._storage, study_name=job.study, direction="maximize", load_if_exists=True
            )
            self._check(study, job)
            self._studies[job.study] = study
        return self._studies[job.study]

    def _check(self, study: "Study", job: Job) -> None:
        """Keep with a new study what its trials are made with; refuse to go on with other images or settings."""
        trial = replace(job, split="val", fold=None, seed=SEED)
        if job.task.name not in self._digests:
            self._digests[job.task.name] = self._conditions.data(trial).digest
        drawn = self._space(job)
        settings = {name: value for name, value in self._conditions.settings(trial).items() if name not in drawn}
        digest, then = self._digests[job.task.name], study.user_attrs.get(ABOUT)
        if then is None:
            study.set_user_attr(ABOUT, {"images": digest, "settings": settings})
            return
        given = f"the trials of {job.method} on {job.task.name} in {self._journal} were made with"
        advice = "give what they were made with, or choose another -o"
        if then["images"] != digest:
            raise RecordError(f"{given} other images", f"those of {job.task.path}", advice)
        for name, before in changed_settings(then["settings"], settings):
            raise RecordError(f"{given} {name} = {before}", f"{settings[name]}, as the method has it now", advice)

    def _is_drawn(self, trial: "FrozenTrial", job: Job) -> bool:
        return bool(trial.params.keys() == self._space(job).keys())

    def _own_settings(self, job: Job) -> dict[str, Any]:
        settings = self._conditions.settings(job)
        return {name: settings[name] for name in self._space(job)}

    def _space(self, job: Job) -> "dict[str, BaseDistribution]":
        """Name -> values to draw from."""
        kinds = self._optuna.distributions
        method = method_of(job.method)
        rate, dial = method.learning_rate, method.dial
        space: dict[str, BaseDistribution] = {
            "learning_rate": kinds.FloatDistribution(rate / RATE_FACTOR, rate * RATE_FACTOR, log=True),
            "weight_decay": kinds.FloatDistribution(*WEIGHT_DECAYS, log=True),
        }
        return space if dial is None else space | {dial.name: kinds.CategoricalDistribution(dial.values)}

    def _trial_job(self, job: Job, number: int, drawn: Mapping[str, Any]) -> Job:
        return self._with(job, drawn, split="val", fold=None, seed=SEED, trial=number)

    def _with(self, job: Job, drawn: Mapping[str, Any], **changes: Any) -> Job:
        """The job with the values that were drawn."""
        dial = method_of(job.method).dial
        settings = {name: value for name, value in drawn.items() if dial is None or name != dial.name}
        return replace(job, settings=settings, dial=drawn[dial.name] if dial else None, **changes)


def _optuna(trials: int) -> Any:
    try:
        import optuna
    except ImportError:
        raise RecipeError(
            f"--trials {trials} without Optuna", "the extra `bench`", "pip install 'ttctune[bench]', or --trials 0"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _mend(journal: Path) -> None:
    """Take away what a killed runner may have left: the lock, and a last line that is cut off."""
    for left_over in journal.parent.glob(f"{journal.name}.lock*"):
        left_over.unlink()
    if journal.exists():
        content = journal.read_bytes()
        if not content.endswith(b"\n"):
            os.truncate(journal, content.rfind(b"\n") + 1)
