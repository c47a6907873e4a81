"""Ten errors put into the method on purpose; the tests have to notice every one of them.

    python tests/mutants.py

Prints which test caught which error. Exit code 1 if one survives, or if its place in the source is not found
exactly once (then the row below has to follow the source).
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
METHOD = "ttctune/method"


@dataclass(frozen=True)
class Mutant:
    """One error.

    Attributes:
        file: Of the method, without its folder.
        old: Text that occurs in it exactly once.
        new: What replaces it.
        claim: What does not hold any more.
        tests: The test file that has to notice.
    """

    file: str
    old: str
    new: str
    claim: str
    tests: str


MUTANTS = (
    Mutant(
        "importance.py",
        '"taylor": Reading(lambda z, g: _gate_gradient(z, g).abs(), _image_mean)',
        '"taylor": Reading(lambda z, g: (z * g).abs().sum(1), _image_mean)',
        "the absolute value is taken after the sum over tokens",
        "test_importance.py",
    ),
    Mutant(
        "importance.py",
        "loss(_wide(logits), labels).sum().backward()",
        "loss(_wide(logits), labels).mean().backward()",
        "losses are summed per image, not averaged per batch",
        "test_importance.py",
    ),
    Mutant(
        "selection.py",
        "return score.sort(descending=True, stable=True).indices",
        "return len(score) - 1 - score.flip(0).sort(descending=True, stable=True).indices",
        "ties go to the lower index",
        "test_selection.py",
    ),
    Mutant(
        "selection.py",
        "if cost <= left:",
        "if cost <= left + 1:",
        "a budget is never exceeded",
        "test_selection.py",
    ),
    Mutant(
        "selection.py",
        "return parameters_of(site, form, k + 1) - parameters_of(site, form, k)",
        "return parameters_of(site, form, 1)",
        "the next channel of a map costs 2k + 2",
        "test_selection.py",
    ),
    Mutant(
        "tuned_linear.py",
        "scale = log_scale[s].exp()",
        "scale = torch.ones_like(log_scale[s])",
        "the gradient of a map goes through the gates",
        "test_tuned_linear.py",
    ),
    Mutant(
        "tuned_linear.py",
        "mean = torch.zeros_like(one) if shift is None else shift.to(one.dtype)",
        "mean = torch.zeros_like(one)",
        "the gradient of a gate's scale is of the output without the shift",
        "test_tuned_linear.py",
    ),
    Mutant(
        "channels.py",
        "return self.map @ weight, torch.addmv(self.bias, self.map, bias)",
        "return self.map @ weight, self.bias",
        "the map acts on the layer's bias too",
        "test_tuned_linear.py",
    ),
    Mutant(
        "tuned_stream.py",
        "self.norm(x.index_add_(-1, s,",
        "self.norm(x.index_add(-1, s,",
        "a map on the stream reaches the skip connection",
        "test_tuned_stream.py",
    ),
    Mutant(
        "merge.py",
        "plain.bias.copy_(bias)",
        "pass",
        "the bias is merged",
        "test_merge.py",
    ),
    Mutant(
        "merge.py",
        "model = copy.deepcopy(attachment.model)",
        "model = copy.copy(attachment.model)",
        "the merged model shares nothing",
        "test_merge.py",
    ),
)


def main() -> int:
    """Run all mutants; 0 if every one was caught."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        files = sorted({mutant.tests for mutant in MUTANTS})
        if failed := _run(source, files):
            print(f"without any mutant: {failed} fails; nothing can be said")
            return 1
        rows = [(mutant, _outcome(source, mutant)) for mutant in MUTANTS]
    width = max(len(mutant.claim) for mutant in MUTANTS)
    for mutant, (caught, outcome) in rows:
        print(f"{'caught' if caught else 'MISSED'}  {mutant.file:16}{mutant.claim:{width + 2}}{outcome}")
    missed = sum(not caught for _, (caught, _) in rows)
    print(f"{len(rows) - missed} of {len(rows)} caught, {time.monotonic() - start:.0f} s")
    return 1 if missed else 0


def _outcome(source: Path, mutant: Mutant) -> tuple[bool, str]:
    path = source / METHOD / mutant.file
    text = path.read_text()
    if (found := text.count(mutant.old)) != 1:
        return False, f"found {found} times in the source: {mutant.old}"
    path.write_text(text.replace(mutant.old, mutant.new))
    try:
        failed = _run(source, [mutant.tests])
    finally:
        path.write_text(text)
    return bool(failed), failed or "survived"


def _run(source: Path, files: list[str]) -> str:
    """Name of the first test that fails against this source, or nothing."""
    pytest = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        f"pythonpath={source}",
    ]
    run = subprocess.run(
        [*pytest, *(str(ROOT / "tests" / "method" / file) for file in files)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    if run.returncode == 0:
        return ""
    failed = re.search(r"^FAILED \S+::(\S+)", run.stdout, re.MULTILINE)
    if run.returncode != 1 or failed is None:
        raise SystemExit(f"pytest did not run:\n{run.stdout[-3000:]}{run.stderr[-3000:]}")
    return failed[1]


if __name__ == "__main__":
    sys.exit(main())
