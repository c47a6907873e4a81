"""Faults at the very system calls with which a child process writes: death, or a disk that refuses. Linux only.

Nothing in the product takes part: the child replaces the functions of `os`, `open` and the C library's `renameat2`
before it runs the command.
"""

import builtins
import ctypes
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: What a full disk still allows.
REMOVALS = ("unlink", "rmdir")


@dataclass(frozen=True)
class Fault:
    """What goes wrong.

    Attributes:
        call: The number of the call, from 0.
        when: "before" or "after" the call, or in the "middle" of a write.
        signal: Kills the process there; 0 does not.
        error: Number of the system's error that this call and every later one that writes ends with; 0 for none.
    """

    call: int
    when: str
    signal: int = 0
    error: int = 0


class Watch:
    """Sees every call that changes something below a folder, and brings about the fault.

    Attributes:
        seen: "<call> <paths relative to the folder>" of each.
    """

    def __init__(self, root: Path, fault: Fault | None = None) -> None:
        self.root, self.fault = str(root), fault
        self.seen: list[str] = []

    def install(self) -> None:
        """Replace the functions of this process for good."""
        for name in ("mkdir", "unlink", "rmdir", "rename", "replace", "fsync"):
            setattr(os, name, self._watched(name, getattr(os, name)))
        self._open = io.open
        io.open = builtins.open = self._opened  # type: ignore[assignment]
        real = ctypes.CDLL

        def library(name: str | None, *arguments: Any, **settings: Any) -> Any:
            loaded = real(name, *arguments, **settings)
            if name is None:
                loaded.renameat2 = self._watched_rename(loaded.renameat2)
            return loaded

        ctypes.CDLL = library  # type: ignore[assignment, misc]

    def call(self, name: str, paths: list[str], do: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        """Do what the process wants, or what the fault says."""
        if not paths[0].startswith(self.root):
            return do()
        number, fault = len(self.seen), self.fault
        self.seen.append(" ".join([name, *(os.path.relpath(path, self.root) for path in paths)]))
        if fault is None or number < fault.call:
            return do()
        if fault.error:
            if name in REMOVALS and fault.error != 30:
                return do()
            if half and fault.when == "middle":
                half()
            raise OSError(fault.error, os.strerror(fault.error), paths[0])
        if number > fault.call:
            return do()
        if fault.when == "middle" and half:
            half()
        result = do() if fault.when == "after" else None
        os.kill(os.getpid(), fault.signal)
        return result if fault.when == "after" else do()  # where the process lives on for a moment

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def watched(first: Any, *more: Any, **settings: Any) -> Any:
            paths = [_path_of(first, settings.get("dir_fd"))]
            if name in ("rename", "replace"):
                paths.append(_path_of(more[0]))
            return self.call(name, paths, lambda: real(first, *more, **settings))

        return watched

    def _watched_rename(self, real: Callable[..., int]) -> Callable[..., int]:
        def watched(at: int, one: bytes, at_other: int, other: bytes, flags: int) -> int:
            try:
                done = self.call(
                    "renameat2", [os.fsdecode(one), os.fsdecode(other)], lambda: real(at, one, at_other, other, flags)
                )
            except OSError as error:
                ctypes.set_errno(error.errno or 0)
                return -1
            return int(done)

        return watched

    def _opened(self, file: Any, mode: str = "r", *arguments: Any, **settings: Any) -> Any:
        path = _path_of(file)
        if not set(mode) & set("wxa+") or not path.startswith(self.root):
            return self._open(file, mode, *arguments, **settings)
        if not isinstance(file, int):
            self.call("open", [path], lambda: self._open(file, mode.replace("b", "") + "b").close())
        kind = io.BufferedRandom if "+" in mode else io.BufferedWriter
        raw = io.FileIO(file, "r+" if isinstance(file, int) else mode.replace("b", "").replace("t", ""))
        torn = type("Torn", (kind,), {"write": self._write(kind, path)})(raw)
        return torn if "b" in mode else io.TextIOWrapper(torn, settings.get("encoding"), write_through=True)

    def _write(self, kind: type, path: str) -> Callable[..., int]:
        def write(file: Any, data: Any) -> int:
            content = bytes(data)

            def half() -> None:
                kind.write(file, content[: len(content) // 2])  # type: ignore[attr-defined]
                file.flush()

            return int(self.call("write", [path], lambda: kind.write(file, content), half))  # type: ignore[attr-defined]

        return write


def _path_of(file: Any, folder: int | None = None) -> str:
    if isinstance(file, int):
        return os.readlink(f"/proc/self/fd/{file}")
    path = os.fsdecode(file)
    return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path) if folder is not None else os.path.abspath(path)


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        code: Exit code, or minus the number of the signal that killed it.
        said: What it wrote to stderr.
        calls: What it called, where it lived to tell.
    """

    code: int
    said: str
    calls: list[str]


def start(body: Callable[[], int], root: Path, said: Path, fault: Fault | None = None) -> int:
    """Run `body` in a fork of this process, watched below `root`; its stderr goes to the file `said`."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stdout, sys.stderr = open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
        watch = Watch(root, fault)
        watch.install()
        code = body()
        said.with_suffix(".calls").write_text("\n".join(watch.seen))
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def wait(process: int, said: Path) -> Ended:
    """Wait for a child."""
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    calls = said.with_suffix(".calls")
    lines = calls.read_text().splitlines() if calls.exists() else []
    calls.unlink(missing_ok=True)
    return Ended(code, said.read_text() if said.exists() else "", lines)
