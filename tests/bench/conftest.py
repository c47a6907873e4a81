"""A tiny model and tiny tasks, made once."""

import pytest
from tests.bench.tasks import write_tasks
from tests.run_helpers import save_model

from ttctune.bench.suites import tasks_of


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The name of a tiny local model."""
    return save_model(tmp_path_factory.mktemp("model") / "vit")


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """A folder of two tasks."""
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="session")
def tasks(root):
    """Those two tasks."""
    return tasks_of("folder", root)
