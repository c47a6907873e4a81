"""The same grid on Ray: a local cluster of several nodes, one of which is killed while jobs run on it."""

import sys

import pytest
from tests.bench.tasks import conditions

from ttctune.bench.engine_ray import RayEngine
from ttctune.bench.grid import jobs_of
from ttctune.bench.progress import Progress
from ttctune.bench.runner import run_grid
from ttctune.errors import RecipeError


def test_ray_that_is_not_installed_is_said_in_one_line(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RecipeError, match=r"pip install 'ttctune\[ray\]'"):
        RayEngine(conditions(model), None, None, 0)


@pytest.fixture(scope="module")
def cluster():
    """A head without cores, and two nodes of one core."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False, logging_level="CRITICAL")
    cluster.wait_for_nodes()
    yield cluster, nodes
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_a_job_that_the_cluster_can_never_do_is_refused(cluster, model):
    with pytest.raises(RecipeError, match="2 CPUs, 0 GPUs; expected what one job needs"):
        RayEngine(conditions(model), None, None, 0.25)
    with pytest.raises(RecipeError, match="2 CPUs"):
        RayEngine(conditions(model, threads=3), None, None, 0)


@pytest.mark.slow
def test_a_grid_loses_a_node_and_no_job(cluster, tmp_path, tasks, model):
    import ray

    def nodes_alive():
        return sum(node["Alive"] for node in ray.nodes())

    class Unlucky(RayEngine):
        lost = 0

        def wait(self):
            """Kill a node as soon as both have a job of this grid on them."""
            busy = ray.available_resources().get("CPU", 0) == 0
            if not self.lost and busy and len(self._running) == 2 and len(outcomes) >= 2:
                self.lost = 1
                cluster[0].remove_node(cluster[1][1], allow_graceful=False)
            events = super().wait()
            outcomes.extend(events)
            return events

    outcomes = []
    common = conditions(model, epochs=20)
    jobs = jobs_of(tasks, ["linear", "norm", "ttc"], 2, "val")
    assert nodes_alive() == 3
    with Unlucky(common, None, None, 0) as engine:
        assert engine.slots == 2
        outcome = run_grid(jobs, common, tmp_path, engine, Progress(quiet=True))
    assert engine.lost and nodes_alive() == 2
    assert [event.reason for event in outcomes if not hasattr(event, "record")] == ["its node was lost"]
    assert not outcome.failed and len(outcome.records) == 12 == len([*tmp_path.rglob("seed*.json")])
