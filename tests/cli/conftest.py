"""The command in this process, and a finished run to use it on."""

import json
import signal
from typing import Any, NamedTuple

import pytest
from tests.images.pictures import write_image_tree
from tests.run_helpers import save_model, short_flags

from ttctune.cli.main import main


class Outcome(NamedTuple):
    """What a command returned and printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The result on stdout, which holds nothing else."""
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def _signals():
    """The handlers of signals as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def ttctune(capsys, monkeypatch):
    """Run the command line; returns exit code and output."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*arguments) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The name of a tiny local model."""
    return save_model(tmp_path_factory.mktemp("model") / "vit")


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """Three classes with train, val and test parts."""
    parts = {"train": 5, "val": 2, "test": 3}
    return write_image_tree(tmp_path_factory.mktemp("images") / "shapes", 3, parts=parts)


@pytest.fixture(scope="session")
def fitted(tmp_path_factory, model, tree):
    """A finished run."""
    folder = tmp_path_factory.mktemp("run") / "shapes"
    assert main(["fit", "--data", str(tree), "--model", model, "-o", str(folder), "--quiet", *short_flags()]) == 0
    return folder
