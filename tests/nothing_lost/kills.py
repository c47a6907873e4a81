"""Kills fit, merge and save at random moments, and refuses their writes: the folder is old or new, never half.

    python tests/nothing_lost/kills.py [--seed 0] [--each 10] [--page docs/results/nothing-lost.md]

First every command runs once unharmed, and the calls with which it writes are listed. Then it runs again and again, in
forks of one process, and dies (SIGKILL, SIGTERM) before, after or in the middle of a call drawn at random from a
phase, or at a random time; or from a random call on the disk is full (ENOSPC) or read-only (EROFS). After each, the
folder must be in its old or its new complete state, the next command must take up where this one ended, and then hold
what the unharmed run made, bit for bit, with nothing left beside it. Exit code 1, with the case, where it is not so.
"""

import argparse
import errno
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import ttctune.torchvision_operators  # noqa: E402  isort: skip  (before timm)

import timm.models  # noqa: E402, F401
from tests.images.pictures import write_image_tree  # noqa: E402
from tests.nothing_lost.faults import Ended, Fault, start, wait  # noqa: E402
from tests.run_helpers import save_model, sha, short_flags  # noqa: E402

import ttctune  # noqa: E402
import ttctune.backbone.saving  # noqa: E402
import ttctune.cli.printing  # noqa: E402
import ttctune.run  # noqa: E402
from ttctune.cli.main import main as command  # noqa: E402
from ttctune.errors import TtcError  # noqa: E402
from ttctune.output_folder import state_of, unfinished  # noqa: E402

SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM}
ERRORS = {"ENOSPC": errno.ENOSPC, "EROFS": errno.EROFS}
ADAPTER = {
    "README.md",
    "adapter.json",
    "adapter.safetensors",
    "history.jsonl",
    "importance.safetensors",
    "recipe.toml",
}
ANY_TIME = "{}, at any time"


class LostError(AssertionError):
    """Something was lost."""


def hold(condition: bool, claim: str) -> None:
    if not condition:
        raise LostError(claim)


def content(folder: Path) -> dict[str, str]:
    """File -> SHA-256; empty where there is no folder."""
    return {str(p.relative_to(folder)): sha(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@dataclass(frozen=True)
class Scene:
    """A command to be harmed.

    Attributes:
        name: What it does.
        body: Runs it on a folder, with more flags.
        old: The folder that is there before; None for none.
        phases: Name -> pattern of a call; the first that matches decides, and none means the phase before.
        is_fit: Whether it leaves a run that can be resumed.
    """

    name: str
    body: Callable[[Path, tuple[str, ...]], int]
    old: Path | None
    phases: dict[str, str]
    is_fit: bool = False

    def phase_of(self, calls: list[str]) -> list[str]:
        phase = list(self.phases)[-1]
        found = []
        for call in calls:
            phase = next((name for name, pattern in self.phases.items() if re.search(pattern, call)), phase)
            found.append(phase)
        return found


class Stage:
    """Model, images and finished folders, and the place where scenes are played."""

    def __init__(self, root: Path) -> None:
        self.root, self.said, self.count = root, root / "said", 0
        self.run(self._make)
        self.model = f"local-dir:{root / 'model'}"

    def _make(self) -> int:
        save_model(self.root / "model")
        write_image_tree(self.root / "few", 3, 5)
        write_image_tree(self.root / "many", 3, 150, size=(12, 12))
        return 0

    def run(self, body: Callable[[], int], root: Path | None = None, fault: Fault | None = None) -> Ended:
        """Run to the end, in a fork."""
        return wait(start(body, root or self.root, self.said, fault), self.said)

    def scene_folder(self, scene: Scene) -> Path:
        self.count += 1
        place = self.root / f"scene{self.count}"
        place.mkdir()
        if scene.old:
            shutil.copytree(scene.old, place / "x")
        return place

    def fit(self, images: str, seed: int, *flags: str) -> Callable[[Path, tuple[str, ...]], int]:
        settings = {"batch_size": 6 if images == "few" else 90, "seed": seed, "tune_epochs": 2, "cache_mb": 1}

        def body(out: Path, more: tuple[str, ...]) -> int:
            if (out / "adapter.json").exists():
                ttctune.load(out)
            start = ["fit", "--data", str(self.root / images), "--model", self.model, "-o", str(out)]
            return command([*start, "--threads", "1", "--quiet", *short_flags(**settings), *more])

        return lambda out, more: body(out, (*flags, *more))

    def merge(self, source: Path) -> Callable[[Path, tuple[str, ...]], int]:
        return lambda out, more: command(["merge", str(source), "-o", str(out), "--overwrite", "--quiet"])

    def save(self, source: Path) -> Callable[[Path, tuple[str, ...]], int]:
        def body(out: Path, more: tuple[str, ...]) -> int:
            try:
                ttctune.load(source).save(out, overwrite=True)
            except TtcError as error:
                print(f"ttctune: {error}", file=sys.stderr)
                return 1
            return 0

        return body


FIT = {
    "claiming the folder": r"^mkdir|/checkpoint/run\.json",
    "checkpoint": r"/checkpoint/state\.",
    "history": r"history\.jsonl",
    "adapter": r"adapter\.|importance\.|recipe\.|README",
    "removing the checkpoint": r"\.x\.ttctune",
}
CACHE = {"decoded images": r"/(train|val)\.", "-": "."}
OVERWRITE = {"swap of old and new": r"^renameat2|^fsync \.$|^replace x/", "run beside the old": r"^(?!unlink|rmdir)"}


def scenes(stage: Stage) -> list[Scene]:
    """Every command, and what it needs."""
    made = stage.root / "made"
    old, new, old_merged, old_saved = (made / name for name in ("old", "new", "merged", "saved"))
    for body, out in (
        (stage.fit("few", 1), old),
        (stage.fit("few", 0), new),
        (stage.merge(old), old_merged),
        (stage.save(old), old_saved),
    ):
        ended = stage.run(lambda body=body, out=out: body(out, ()))  # type: ignore[misc]
        hold(ended.code == 0, f"preparation: {ended.said}")
    return [
        Scene("fit", stage.fit("few", 0), None, FIT, True),
        Scene("fit of many images", stage.fit("many", 0), None, CACHE, True),
        Scene("fit --overwrite", stage.fit("few", 0, "--overwrite"), old, OVERWRITE, True),
        Scene("merge", stage.merge(new), None, {"merge": "."}),
        Scene("merge --overwrite", stage.merge(new), old_merged, {"merge over the old": "."}),
        Scene("save", stage.save(new), None, {"save": "."}),
        Scene("save over", stage.save(new), old_saved, {"save over the old": "."}),
    ]


def judge(stage: Stage, scene: Scene, place: Path, ended: Ended, whole: dict[str, str], harm: str) -> str:
    """Check the folder after the harm, go on, check the end; returns what the harm had left."""
    out = place / "x"
    codes = {"SIGKILL": {-9}, "SIGTERM": {143, -15}, "ENOSPC": {0, 1}, "EROFS": {0, 1}}[harm]
    hold(ended.code in codes, f"ended with {ended.code}: {ended.said}")
    hold("Traceback" not in ended.said, f"said {ended.said}")
    if ended.code == 1:
        lines = ended.said.splitlines()
        hold(len(lines) == 1 and lines[0].startswith("ttctune: "), f"said {ended.said}")
    left = _fit_after(stage, scene, out, whole) if scene.is_fit else _other_after(stage, scene, out, whole)
    hold(ended.code != 0 or left == "new", f"exit 0 and left {left}")
    hold([p.name for p in place.iterdir()] == ["x"], f"left {sorted(p.name for p in place.iterdir())}")
    return left


def _fit_after(stage: Stage, scene: Scene, out: Path, whole: dict[str, str]) -> str:
    old = content(scene.old)["adapter.safetensors"] if scene.old else None
    new = whole["adapter.safetensors"]
    if scene.old:
        hold(
            content(out).get("adapter.safetensors") in (old, new), "the old adapter is gone before the new one is there"
        )
    resumable, state = unfinished(out), state_of(out)
    hold(state in ("empty", "finished", "unfinished"), f"the folder is {state}")
    again = stage.run(lambda: scene.body(out, ("--resume",)))
    if resumable:
        hold(again.code == 0, f"resume ended with {again.code}: {again.said}")
        left = "resumable"
    else:
        hold(again.code == 1 and "no unfinished run" in again.said, f"resume ended with {again.code}: {again.said}")
        left = "new" if state == "finished" and content(out)["adapter.safetensors"] == new else "old"
    if left == "old":
        hold(stage.run(lambda: scene.body(out, ())).code == 0, "the command cannot be given again")
    hold({p.name for p in out.iterdir()} == ADAPTER, f"holds {sorted(p.name for p in out.iterdir())}")
    hold(sha(out / "adapter.safetensors") == new, "the adapter differs from that of a run that nobody stopped")
    hold(sha(out / "importance.safetensors") == whole["importance.safetensors"], "the scores differ")
    return left


def _other_after(stage: Stage, scene: Scene, out: Path, whole: dict[str, str]) -> str:
    old = content(scene.old) if scene.old else {}
    found = content(out)
    hold(found in (old, whole), f"the folder is neither old nor new: {sorted(found)}")
    again = stage.run(lambda: scene.body(out, ()))
    hold(again.code == 0, f"the command given again ended with {again.code}: {again.said}")
    hold(content(out) == whole, "the folder differs from that of a command that nobody stopped")
    return "new" if found == whole else "old"


class Show:
    """Plays every scene with every harm, and counts."""

    def __init__(self, stage: Stage, seed: int, each: int) -> None:
        self.stage, self.each, self.random = stage, each, random.Random(seed)
        self.harms: Counter[tuple[str, str]] = Counter()
        self.left: Counter[tuple[str, str]] = Counter()

    def play(self, scene: Scene) -> None:
        place = self.stage.scene_folder(scene)
        before = time.perf_counter()
        ended = self.stage.run(lambda: scene.body(place / "x", ()), place)
        seconds = time.perf_counter() - before
        hold(ended.code == 0 and bool(ended.calls), f"{scene.name} unharmed: {ended.said}")
        whole = content(place / "x")
        phases = scene.phase_of(ended.calls)
        for phase in (name for name in scene.phases if name in phases and name != "-"):
            calls = [number for number, name in enumerate(phases) if name == phase]
            for k in range(self.each + self.each // 2):
                harm = list(SIGNALS)[k % 3 == 2] if k < self.each else list(ERRORS)[k % 2]
                call = self.random.choice(calls)
                is_write = ended.calls[call].startswith("write")
                when = self.random.choice(["before", "middle", "after"] if is_write else ["before", "after"])
                fault = Fault(call, when, int(SIGNALS.get(harm, 0)), ERRORS.get(harm, 0))
                self._harm(scene, phase, harm, whole, fault, f"{when} call {call}, {ended.calls[call]}")
        if scene.name in ("fit", "fit --overwrite", "merge"):
            for k in range(self.each):
                self._at_any_time(scene, list(SIGNALS)[k % 3 == 2], whole, seconds)

    def _harm(self, scene: Scene, phase: str, harm: str, whole: dict[str, str], fault: Fault, where: str) -> None:
        place = self.stage.scene_folder(scene)
        ended = self.stage.run(lambda: scene.body(place / "x", ()), place, fault)
        self._count(scene, phase, harm, place, ended, whole, where)

    def _at_any_time(self, scene: Scene, harm: str, whole: dict[str, str], seconds: float) -> None:
        while True:
            place, after = self.stage.scene_folder(scene), self.random.uniform(0.02, seconds)
            process = start(lambda: scene.body(place / "x", ()), place, self.stage.said)  # noqa: B023  (used at once)
            time.sleep(after)
            os.kill(process, SIGNALS[harm])
            ended = wait(process, self.stage.said)
            if ended.code != 0:  # else it was done already, and this was no kill
                break
            shutil.rmtree(place)
        self._count(scene, ANY_TIME.format(scene.name), harm, place, ended, whole, f"after {after:.3f} s")

    def _count(
        self, scene: Scene, phase: str, harm: str, place: Path, ended: Ended, whole: dict[str, str], where: str
    ) -> None:
        try:
            left = judge(self.stage, scene, place, ended, whole, harm)
        except LostError as error:
            raise LostError(f"{scene.name}, {phase}, {harm} {where}: {error}") from None
        shutil.rmtree(place)
        self.harms[phase, harm] += 1
        self.left[phase, left] += 1

    @property
    def kills(self) -> int:
        return sum(count for (_, harm), count in self.harms.items() if harm in SIGNALS)


HEAD = """# Nothing lost

`python tests/nothing_lost/kills.py --seed {seed} --each {each}`

`fit`, `merge` and `Adapted.save` were killed {kills} times, and their writes refused {refused} times, at random
moments: before, after or in the middle of a call with which they write (drawn with the seed from the calls of a
phase), or at a random time. Each time the folder was in its old or its new complete state, or held a run that
`--resume` finished; at the end it held the very bytes of an unharmed command (the adapter's tensors and scores of
`fit`; every file of `merge` and `save`), and nothing lay beside it. A refused write, from which on the disk stayed full
(ENOSPC) or read-only (EROFS), ended in one line and exit code 1, or did no harm. The faults are made in the child
process by the test alone.

The last columns say what the folder was when the process had ended.

"""


def page(show: Show, seed: int) -> str:
    """The table, as Markdown."""
    harms, lefts = [*SIGNALS, *ERRORS], ["old", "resumable", "new"]
    refused = sum(show.harms.values()) - show.kills
    lines = [
        f"| phase | {' | '.join(harms)} | kills | {' | '.join(lefts)} |",
        f"|{'---|' * (len(harms) + len(lefts) + 2)}",
    ]
    for phase in dict.fromkeys(phase for phase, _ in show.harms):
        counts = [show.harms[phase, harm] for harm in harms]
        left = [show.left[phase, kind] for kind in lefts]
        lines.append(f"| {phase} | {' | '.join(map(str, [*counts, sum(counts[:2]), *left]))} |")
    return HEAD.format(seed=seed, each=show.each, kills=show.kills, refused=refused) + "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--each", type=int, default=10, help="kills in every phase, and half as many refused writes")
    parser.add_argument("--page", type=Path, help="write the table here too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder).resolve())
        show = Show(stage, arguments.seed, arguments.each)
        try:
            for scene in scenes(stage):
                show.play(scene)
                print(f"{scene.name}: done, {show.kills} kills so far", file=sys.stderr, flush=True)
        except LostError as error:
            print(f"LOST: {error}", file=sys.stderr)
            return 1
    text = page(show, arguments.seed)
    print(text)
    if arguments.page:
        arguments.page.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
