"""How the arithmetic is done: number format and attention kernel, chosen by hand or by measuring."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ttctune.errors import RecipeError
from ttctune.out_of_memory import is_out_of_memory

#: Half formats may differ from float32 by this share of the loss and still count as safe.
TOLERANCE = 0.02
MEASURED_STEPS = 2
#: A candidate replaces a safer one only where it takes less than this share of its time.
WORTH_IT = 0.95

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """One way to compute.

    Attributes:
        format: "fp32", "bf16" or "fp16"; the half formats by autocast, weights and sums staying float32.
        fused_attention: Whether attention runs as one fused kernel or as plain matrix products.
        reason: Why it was chosen, in one line.
    """

    format: str
    fused_attention: bool = True
    reason: str = "as asked for"

    def forward_context(self, device: torch.device) -> AbstractContextManager[Any]:
        """Entered around each forward pass."""
        if self.format == "fp32":
            return nullcontext()
        return torch.autocast(device.type, DTYPES[self.format])

    @property
    def title(self) -> str:
        """Format and kind of attention, for people."""
        return f"{self.format} {'fused' if self.fused_attention else 'unfused'}"


@contextmanager
def attention(model: nn.Module, fused: bool) -> Iterator[None]:
    """Fuse the attention of `model` or not; as it was on leaving."""
    switches = [(m, m.fused_attn) for m in model.modules() if hasattr(m, "fused_attn")]
    for module, before in switches:
        module.fused_attn = bool(fused and before)  # type: ignore[assignment]
    try:
        yield
    finally:
        for module, before in switches:
            module.fused_attn = before


def candidates(device: torch.device) -> list[Precision]:
    """What `auto` measures on a device, the safest first."""
    if device.type == "cpu":
        return [
            Precision("fp32", fused_attention=True),
            Precision("fp32", fused_attention=False),
            Precision("bf16", fused_attention=True),
            Precision("bf16", fused_attention=False),
        ]
    if device.type == "cuda":
        half = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        return [Precision("fp32"), Precision(half)]
    return [Precision("fp32")]


def by_hand(format: str, device: torch.device) -> Precision:
    """The format a person asked for, with the attention that is fast for it on the device.

    Raises:
        RecipeError: No such format; "auto" is one to train with only.
    """
    if format not in tuple(DTYPES):
        raise RecipeError(f"precision = {format!r}", ", ".join(DTYPES), "choose one of these")
    return Precision(format, fused_attention=device.type != "cpu" or format == "fp32")


def measure(device: torch.device, step: Callable[[Precision], float]) -> Precision:
    """Try each candidate on a few steps and keep the fastest safe one.

    Args:
        device: Where the steps run.
        step: Runs one training step without an update, and returns its loss. A candidate beyond the first for which
            it raises for want of memory is left out.

    Returns:
        The choice, with the measured times in its reason.
    """
    tried = candidates(device)
    if len(tried) == 1:
        return Precision("fp32", reason="the only one for this device")
    losses = {tried[0]: step(tried[0])}
    for candidate in tried[1:]:
        try:
            losses[candidate] = step(candidate)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
    tried = list(losses)
    seconds = dict.fromkeys(tried, float("inf"))
    for _ in range(MEASURED_STEPS):
        for candidate in tried:
            _wait(device)
            start = time.perf_counter()
            step(candidate)
            _wait(device)
            seconds[candidate] = min(seconds[candidate], time.perf_counter() - start)
    exact = losses[tried[0]]
    best = tried[0]
    for candidate in tried[1:]:
        safe = abs(losses[candidate] - exact) <= TOLERANCE * abs(exact)
        if safe and seconds[candidate] < WORTH_IT * seconds[best]:
            best = candidate
    others = ", ".join(f"{c.title} {1000 * seconds[c]:.0f}" for c in tried if c != best)
    reason = f"{1000 * seconds[best]:.0f} ms a step" + f" ({others})" * bool(others)
    return Precision(best.format, best.fused_attention, reason)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
