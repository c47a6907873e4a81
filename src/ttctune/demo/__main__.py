"""The main job on what ships with the package: four small tasks, four methods, no download.

    python -m ttctune.demo                                             # two minutes on two cores
    python -m ttctune.demo --full --seeds 3 --page docs/results/demo.md

The embedded backbone is adapted to scikit-learn's digits and to three drawn tasks (how many, which way, where) by a
linear probe, LayerNorm alone, full fine-tuning and the two-stage method, with equal epochs on equal images. Accuracy
is measured once, at the last epoch, on pictures that no method trained on.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from ttctune.backbone.embedded import NAME
from ttctune.backbone.saving import write_timm_folder
from ttctune.bench.methods import METHODS
from ttctune.demo.comparison import COMPARED, FULL, SMALL, Job, Result, results_of
from ttctune.demo.table import page, show
from ttctune.demo.tasks import TASKS
from ttctune.errors import RecipeError, TtcError
from ttctune.loading import load
from ttctune.output_folder import written_whole


def known_results(file: Path | None) -> list[Result]:
    """Results that an earlier call left in `file`."""
    if file is None or not file.exists():
        return []
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [Result(Job(**row.pop("job")), **row) for row in rows]


def finish(out: Path) -> None:
    """Merge the adapter of the digits, and say what to try next."""
    adapter, merged = out / "digits", out / "digits-merged"
    with written_whole(merged, overwrite=merged.exists()) as made:
        adapted = load(adapter)
        write_timm_folder(made, adapted.merge(), adapted.input, adapted.classes)
    kilobytes = (adapter / "adapter.safetensors").stat().st_size / 1000
    print(f"adapters:     {', '.join(str(out / task) for task in TASKS)} ({kilobytes:.0f} kB each)")
    print(f"merged model: {merged}, a plain timm model")
    print("next, on images of your own (a folder per class):")
    print(f"  ttctune fit --data DIR --model {NAME}")
    print("and better, with a larger model (`ttctune models` lists them):")
    print("  ttctune fit --data DIR --model deit_tiny_patch16_224")


def main() -> int:
    """Run the demo and return the exit code."""
    parser = argparse.ArgumentParser(
        "python -m ttctune.demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/demo"), metavar="DIR")
    parser.add_argument("--full", action="store_true", help="more images and epochs, 64 px")
    parser.add_argument("--seeds", type=int, default=1, metavar="N")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the table there, and results beside it")
    arguments = parser.parse_args()
    size = FULL if arguments.full else SMALL
    kept = arguments.page.with_suffix(".jsonl") if arguments.page else None
    results = known_results(kept)
    # the longest first, so that no core waits for the last
    jobs = [Job(t, m, s) for s in range(arguments.seeds) for m in reversed(COMPARED) for t in TASKS]
    todo = [job for job in jobs if job not in {r.job for r in results}]
    start = time.monotonic()
    try:
        if arguments.seeds < 1:
            raise RecipeError(f"seeds {arguments.seeds}", "1 or more", "change --seeds")
        for result in results_of(todo, size, arguments.out):
            results.append(result)
            name = f"{METHODS[result.job.method].title} on {result.job.task}"
            print(f"{time.monotonic() - start:5.0f} s  {name}: {result.accuracy:.1%}", file=sys.stderr, flush=True)
            if kept:
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(result)) + "\n")
        show(results, size, arguments.seeds)
        if arguments.page:
            arguments.page.write_text(page(results, size, arguments.seeds), encoding="utf-8")
        finish(arguments.out)
    except TtcError as error:
        print(f"ttctune: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
