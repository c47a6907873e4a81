"""The state of an unfinished run, written whole or not at all after each epoch.

Nothing random is kept: every epoch draws from a generator seeded by (seed, stage, epoch).
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import save
from torch import Tensor

from ttctune.errors import FolderError
from ttctune.files import write_atomically

STATE = "state.safetensors"
STAGES = ("", "head", "align", "tune")


@dataclass(frozen=True)
class Checkpoint:
    """Where a run stands.

    Attributes:
        stage: Name of the stage it is in; "" before the first.
        epoch: Epochs of that stage that are done.
        adapter: Trained tensors and selections, named as in the adapter's file.
        optimizer: `<parameter>/<key>` -> tensor, of the stage's optimiser.
        importance: Site -> score; empty before scoring.
        history: One row for each epoch that is done.
        settled: What was decided while running (precision, accumulation), for repetition.
    """

    stage: str = ""
    epoch: int = 0
    adapter: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    importance: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    settled: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write into `folder`, replacing the state before it in one step."""
        tensors = {
            f"{part}:{name}": tensor.detach().cpu().contiguous()
            for part in ("adapter", "optimizer", "importance")
            for name, tensor in getattr(self, part).items()
        }
        state = {k: getattr(self, k) for k in ("stage", "epoch", "history", "settled")}
        write_atomically(folder / STATE, save(tensors, metadata={"state": json.dumps(state)}))

    @classmethod
    def read(cls, folder: Path) -> "Checkpoint":
        """The state in `folder`; the start of a run where there is none yet.

        Raises:
            FolderError: The file is damaged.
        """
        if not (folder / STATE).exists():
            return cls()
        parts: dict[str, Any] = {"adapter": {}, "optimizer": {}, "importance": {}}
        try:
            with safetensors.safe_open(folder / STATE, framework="pt") as file:
                state = json.loads(file.metadata()["state"])
                for key in file.keys():  # noqa: SIM118  (not a mapping)
                    part, _, name = key.partition(":")
                    parts[part][name] = file.get_tensor(key)
            kinds = {key: type(value) for key, value in state.items()}
            if kinds != {"stage": str, "epoch": int, "history": list, "settled": dict}:
                raise ValueError(f"its state holds {', '.join(kinds) or 'nothing'}")
            if state["stage"] not in STAGES:
                raise ValueError(f"its stage is {state['stage']!r}")
            return cls(**parts, **state)
        except (safetensors.SafetensorError, KeyError, ValueError, TypeError, RecursionError, OSError) as error:
            raise FolderError(
                f"{folder / STATE} is damaged ({error})", "a whole checkpoint", "start again with --overwrite"
            ) from error
