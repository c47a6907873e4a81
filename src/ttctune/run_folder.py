"""The folder of a run: begun, gone on with, or left as if the run had never been."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ttctune import adapter_folder
from ttctune.backbone.model import Backbone, name_of
from ttctune.errors import FolderError, ProcessError
from ttctune.output_folder import CHECKPOINT, begin, claimed, discard, read_run
from ttctune.recipe import Recipe
from ttctune.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class RunFolder:
    """Where a run writes, and the folder that will hold its result.

    Attributes:
        working: Where the run writes: `path`, or a folder beside it that will replace it.
        path: What the person named.
        existed: Whether `working` was there before.
    """

    working: Path
    path: Path
    existed: bool

    @contextmanager
    def discarded_on_error(self) -> Iterator[None]:
        """Leave nothing of a run that fails before its first epoch is done; one that is interrupted stays."""
        try:
            yield
        except ProcessError:
            raise  # this process did nothing wrong: an interruption
        except Exception:
            if not self._has_epochs() and self.working.exists():
                if self.existed:
                    discard(self.working / CHECKPOINT, self.path)
                    (self.working / adapter_folder.HISTORY).unlink(missing_ok=True)
                else:
                    discard(self.working, self.path)
            raise

    def _has_epochs(self) -> bool:
        with suppress(FolderError):
            return bool(Checkpoint.read(self.working / CHECKPOINT).history)
        return False


@contextmanager
def run_folder(
    out: str | Path | None,
    model: str | nn.Module | Backbone,
    recipe: Recipe,
    resume: bool,
    overwrite: bool,
    warm_start: str | None = None,
) -> Iterator[RunFolder | None]:
    """Own the output folder of a run and mark it as begun, or go on with what is there; None without a folder.

    Raises:
        FolderError: The folder cannot be used, or holds a run with another model or other settings.
    """
    if out is None:
        yield None
        return
    path = Path(out).resolve()
    existed = path.exists()
    begun = {
        "model": name_of(model),
        "warm_start": warm_start,
        "recipe": recipe.model_dump(mode="json"),
    }
    with claimed(path, resume=resume, overwrite=overwrite) as working:
        folder = RunFolder(working, path, existed and working == path)
        if resume:
            _check_same(read_run(working), begun, path)
            for left_over in (working / CHECKPOINT).glob("*.part"):
                left_over.unlink()
        else:
            begin(working, begun)
        yield folder


def _check_same(before: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    for what in ("model", "warm_start"):
        old, new = before.get(what), now[what]
        if old != new:
            title = what.replace("_", " ")
            raise FolderError(f"{title} {new}", f"{old}, as {path} began with", f"give that {title}")
    old, new = before.get("recipe", {}), now["recipe"]
    different = [k for k in new if old.get(k) != new[k]]
    if different:
        first = different[0]
        raise FolderError(
            f"{first} = {new[first]}",
            f"{old.get(first)}, as {path} began with",
            "give the same settings, or --overwrite",
        )
