"""Jobs on a Ray cluster: each a task that asks for CPU threads and a share of a GPU.

Nothing but the job goes to a node and nothing but its record comes back, so nodes need no shared results folder. They
do need the package, and images and weights under the same paths.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ttctune.bench.engine import Done, Engine, Event, Lost
from ttctune.bench.grid import Conditions, Job
from ttctune.bench.record import Record
from ttctune.errors import RecipeError
from ttctune.wording import counted, first_line

#: Seconds after which `wait` returns without an event, so that the time left can be shown anew.
PATIENCE = 1.0


class RayEngine(Engine):
    """Tasks on a Ray cluster.

    Args:
        conditions: What all jobs share.
        jobs: How many run at the same time; None takes as many as the cluster has room for.
        address: Of the cluster; None starts one on this machine.
        gpus: Share of a GPU for each job; 0 asks for none.

    Raises:
        RecipeError: Ray is not installed, the cluster does not answer, or has not what one job needs.
    """

    def __init__(self, conditions: Conditions, jobs: int | None, address: str | None, gpus: float) -> None:
        self._ray, self._began = _connected(address)
        needs = {"CPU": float(conditions.threads), "GPU": gpus}
        has = self._ray.cluster_resources()
        room = min(int(has.get(what, 0) / count + 1e-6) for what, count in needs.items() if count)
        if not room:
            found = ", ".join(f"{has.get(what, 0):g} {what}s" for what in needs)
            raise RecipeError(f"a cluster with {found}", f"what one job needs: {needs}", "change --threads or --gpus")
        self.slots = min(room, jobs or room)
        nodes = sum(node["Alive"] for node in self._ray.nodes())
        self.title = f"Ray on {counted(nodes, 'node')}, {counted(self.slots, 'job')} at a time"
        options = {"num_cpus": conditions.threads, "num_gpus": gpus, "max_retries": 0}  # the runner starts jobs again
        self._do = self._ray.remote(**options)(_do)
        self._conditions = self._ray.put(conditions)
        self._running: dict[Any, Job] = {}

    def start(self, job: Job) -> None:
        """Submit a job; Ray finds a node for it."""
        self._running[self._do.remote(job, self._conditions)] = job

    def wait(self) -> Sequence[Event]:
        """What has ended."""
        ready, _ = self._ray.wait([*self._running], num_returns=len(self._running), timeout=0)
        if not ready:
            ready, _ = self._ray.wait([*self._running], num_returns=1, timeout=PATIENCE)
        return [self._ended(task, self._running.pop(task)) for task in ready]

    def close(self) -> None:
        """Cancel what is running, and end the cluster where this engine began it."""
        for task in self._running:
            with suppress(self._ray.exceptions.RayError):
                self._ray.cancel(task, force=True)
        self._running = {}
        if self._began:
            self._ray.shutdown()

    def _ended(self, task: Any, job: Job) -> Event:
        try:
            return Done(job, self._ray.get(task))
        except self._ray.exceptions.NodeDiedError:
            return Lost(job, "its node was lost", with_machine=True)
        except self._ray.exceptions.RayError as error:
            return Lost(job, f"{type(error).__name__}: {first_line(error)}")


def _do(job: Job, conditions: Conditions) -> Record:
    from ttctune.bench.run_job import record_of

    return record_of(job, conditions)


def _connected(address: str | None) -> tuple[Any, bool]:
    """Ray, connected to a cluster; and whether the connection was made here."""
    try:
        import ray
    except ImportError:
        raise RecipeError(
            "--engine ray without Ray", "the extra `ray`", "pip install 'ttctune[ray]', or --engine local"
        ) from None
    if ray.is_initialized():
        return ray, False
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = first_line(error)
        advice = "check --address, or start a cluster with `ray start --head`"
        raise RecipeError(f"--address {address}: {reason}", "a Ray cluster that answers", advice) from error
    return ray, True
