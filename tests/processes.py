"""Several processes of one run, as a launcher starts them, but without the seconds that each takes to import torch."""

import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["ttctune.run", "ttctune.training.processes"])
#: Far more than any of these runs takes; a deadlock is a failure and not a wait.
PATIENCE = 120


class Ended(NamedTuple):
    """How a process ended: its exit code (minus the signal that killed it) and what it printed."""

    code: int | None
    out: str
    err: str


class Several:
    """Processes that run one function each, with rank and count in the environment.

    Args:
        folder: For what they print.
        function: Of a module; its result is the exit code.
        arguments: Of the function.
        count: How many.
    """

    def __init__(self, folder: Path, function: Callable[..., int | None], *arguments: Any, count: int = 2) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.files = [folder / f"rank{rank}" for rank in range(count)]
        self.processes = [
            CONTEXT.Process(target=_one, args=(rank, count, port, self.files[rank], function, arguments))
            for rank in range(count)
        ]
        for process in self.processes:
            process.start()

    def wait_for(self, text: str) -> None:
        """Until process 0 has printed a text on stderr."""
        deadline = time.monotonic() + PATIENCE
        while text not in self._printed(0, "err"):
            assert time.monotonic() < deadline and self.processes[0].is_alive(), self._printed(0, "err")
            time.sleep(0.02)

    def ended(self) -> list[Ended]:
        """How each ended; none may hang."""
        deadline = time.monotonic() + PATIENCE
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        hanging = [rank for rank, process in enumerate(self.processes) if process.is_alive()]
        for rank in hanging:
            self.processes[rank].kill()
        assert not hanging, f"processes {hanging} hang"
        return [
            Ended(process.exitcode, self._printed(rank, "out"), self._printed(rank, "err"))
            for rank, process in enumerate(self.processes)
        ]

    def _printed(self, rank: int, stream: str) -> str:
        file = self.files[rank].with_suffix(f".{stream}")
        return file.read_text() if file.exists() else ""


def _one(rank: int, count: int, port: int, printed: Path, function: Callable[..., int | None], arguments: Any) -> None:
    import sys

    import torch

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    for stream, name in ((1, "out"), (2, "err")):
        with printed.with_suffix(f".{name}").open("w") as file:
            os.dup2(file.fileno(), stream)
    torch.set_num_threads(1)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(n), "w", buffering=1) for n in (1, 2))
    sys.exit(function(*arguments) or 0)
