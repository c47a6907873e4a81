"""Whether this machine and its installation are fit for ttctune, and what to do where they are not.

Each check is a function that returns findings; what a check needs is imported in it, so that a broken installation is
a finding too.
"""

import importlib.metadata
import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from ttctune.machine import available_memory, fast_instructions, usable_cores
from ttctune.version import __version__

#: Less than this and a small model may not train, or a run may not be kept; bytes.
LEAST_MEMORY, LEAST_DISK = 2 << 30, 1 << 30
#: Seconds to wait for the hub, and that each number format is measured.
HUB_WAIT, MEASURED = 3.0, 0.3
#: Rows and columns of the matrices that are multiplied, and the largest error of a product in bfloat16.
SIDE, LARGEST_ERROR = 512, 0.02


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        name: What was looked at.
        state: "ok"; "warning": works, but badly or not all of it; "problem": ttctune cannot work.
        text: What was found.
        cure: What to do, unless all is well.
    """

    name: str
    state: Literal["ok", "warning", "problem"]
    text: str
    cure: str = ""


def examine() -> list[Finding]:
    """Run every check; a few seconds."""
    findings: list[Finding] = []
    for check in CHECKS:
        try:
            findings.extend(check())
        except Exception as error:  # whatever breaks a check would break a run
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            cure = "install ttctune into a new environment: pip install ."
            findings.append(Finding(check.__name__, "problem", reason, cure))
    return findings


def packages() -> Iterator[Finding]:
    """Versions of Python and of what ttctune needs, against the floors that it declares."""
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Finding("ttctune", "ok", __version__)
    try:
        declared = importlib.metadata.requires("ttctune") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding("packages", "warning", "ttctune is not installed, so its needs are unknown", "pip install .")
        return
    for need in map(Requirement, declared):
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        cure = f"pip install '{need}'"
        try:
            version = importlib.metadata.version(need.name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(need.name, "problem", "not installed", cure)
            continue
        if need.specifier.contains(version, prereleases=True):
            yield Finding(need.name, "ok", version)
        else:
            yield Finding(need.name, "warning", f"{version}, outside of {need.specifier}", cure)


def torchvision() -> Iterator[Finding]:
    """Whether torchvision's operators fit this torch."""
    from ttctune import torchvision_operators

    if torchvision_operators.DECLARED is None:
        yield Finding("operators", "ok", "those of torchvision load")
    else:
        text = (
            "those of torchvision belong to another build of torch; ttctune works without them, other programs may not"
        )
        yield Finding("operators", "warning", text, "install torch and torchvision from the same index")


def processor() -> Iterator[Finding]:
    """Cores, instructions, and whether torch's threads fit them."""
    import torch

    cores, threads = usable_cores(), torch.get_num_threads()
    fast = ", ".join(fast_instructions()) or "no fast instructions known"
    yield Finding("cores", "ok", f"{cores} usable of {os.cpu_count()}; {fast}")
    cure = f"give --threads {cores}, or fewer on a busy machine"
    if threads > cores:
        yield Finding("threads", "warning", f"{threads} on {cores} usable cores: many times slower", cure)
    elif (load := os.getloadavg()[0]) > (os.cpu_count() or 1) and threads > 1:
        text = f"{threads} on a busy machine (load {load:.1f} on {os.cpu_count()} cores): often slower than one"
        yield Finding("threads", "warning", text, "give --threads 1, or wait")
    else:
        yield Finding("threads", "ok", str(threads))


def memory() -> Iterator[Finding]:
    """Memory that is left."""
    free = available_memory()
    text = f"{free / 1e9:.1f} GB available"
    if free < LEAST_MEMORY:
        yield Finding(
            "memory", "warning", text, "take a small model, --image-size 96, --accumulation 4, --cache-mb 256"
        )
    else:
        yield Finding("memory", "ok", text)


def disk() -> Iterator[Finding]:
    """Room where runs and temporary files go."""
    for name, folder in (("this folder", Path.cwd()), ("temporary files", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(folder).free
        text = f"{free / 1e9:.1f} GB free in {folder}"
        cure = "name another folder with -o" if name == "this folder" else "set TMPDIR to another folder"
        if not os.access(folder, os.W_OK):
            yield Finding(name, "warning", f"{folder} cannot be written", cure)
        else:
            yield Finding(name, "warning", text, cure) if free < LEAST_DISK else Finding(name, "ok", text)


def devices() -> Iterator[Finding]:
    """Graphics processors that torch can use."""
    import torch

    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    if found:
        yield Finding("device", "ok", ", ".join(f"{d.name} ({d.total_memory / 1e9:.0f} GB)" for d in found))
    elif torch.backends.mps.is_available():
        yield Finding("device", "ok", "an Apple GPU (mps)")
    elif shutil.which("nvidia-smi") and torch.version.cuda is None:
        text = "an NVIDIA driver is here, but this torch is built for the CPU alone"
        yield Finding("device", "warning", text, "install torch and torchvision for CUDA, see pytorch.org")
    else:
        yield Finding("device", "ok", "the CPU alone")


def compiler() -> Iterator[Finding]:
    """Whether --compile can work."""
    import torch

    from ttctune.training.compilation import compiler_found

    if compiler_found(torch.device("cuda" if torch.cuda.is_available() else "cpu")):
        yield Finding("compiler", "ok", "found, --compile can be used")
    else:
        yield Finding("compiler", "warning", "none, so --compile does nothing", "install g++, on CUDA gcc")


def hub() -> Iterator[Finding]:
    """Whether weights can be fetched and kept."""
    from huggingface_hub import constants

    cure = "give --weights FILE, or --model local-dir:FOLDER"
    kept = Path(constants.HF_HUB_CACHE)
    there = next(folder for folder in (kept, *kept.parents) if folder.exists())
    if not os.access(there, os.W_OK):
        yield Finding("weights", "warning", f"{kept} cannot be written", f"set HF_HOME to another folder, or {cure}")
    else:
        yield Finding("weights", "ok", f"are kept in {kept}")
    if constants.HF_HUB_OFFLINE:
        yield Finding("hub", "warning", "HF_HUB_OFFLINE is set, so nothing is fetched", f"unset it, or {cure}")
    elif _hub_answers(constants.ENDPOINT):
        yield Finding("hub", "ok", f"{constants.ENDPOINT} answers")
    else:
        yield Finding("hub", "warning", f"{constants.ENDPOINT} does not answer", cure)


def _hub_answers(endpoint: str) -> bool:
    """Ask in a thread of its own: looking up a name can take longer than any time limit."""
    from huggingface_hub.utils import get_session

    answers: list[int] = []

    def ask() -> None:
        try:
            answers.append(get_session().head(endpoint, timeout=HUB_WAIT).status_code)
        except Exception:  # every kind of failure of two clients (requests, httpx) says the same: no answer
            return

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_WAIT)
    return bool(answers)


def arithmetic() -> Iterator[Finding]:
    """Whether matrix products come out right, and which number format is fast."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    exact = torch.randn(SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    truth = exact @ exact
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = exact.to(device, dtype)
        seconds[dtype] = _seconds(lambda m=matrix: float((m @ m)[0, 0]))  # type: ignore[misc]
        error = float(((matrix @ matrix).cpu().double() - truth).abs().max() / truth.abs().max())
        if not error < LARGEST_ERROR:
            text = f"products in {dtype} are wrong by {error:.1%}".replace("torch.", "")
            yield Finding("arithmetic", "problem", text, "install another torch, or another --precision and --device")
            return
    share = seconds[torch.bfloat16] / seconds[torch.float32]
    likely = "bf16" if share < 0.95 else "fp32"
    yield Finding(
        "arithmetic",
        "ok",
        f"a product in bf16 takes {share:.2f} of fp32's time; --precision auto likely takes {likely}",
    )


def _seconds(product: Callable[[], float]) -> float:
    """The least time of one product, from as many as fit into `MEASURED` seconds, two at least."""
    taken: list[float] = []
    while len(taken) < 2 or sum(taken) < MEASURED:
        start = time.perf_counter()
        product()
        taken.append(time.perf_counter() - start)
    return min(taken)


CHECKS = (packages, torchvision, processor, memory, disk, devices, compiler, hub, arithmetic)
