"""The learning rate of each method, chosen on the pooled val parts of several tasks.

    python benchmarks/rates.py --root DIR --weights FILE -o results/rates     # tries what is missing

DIR has a folder for each task. Each method is trained at four rates, once a task: on train, for half of the usual
epochs, and scored on val. Three are the same for all; the fourth is beyond the better of the outer two; and where the
best of them lies at an edge, further ones follow. The rate with the highest mean over the tasks goes into chosen.toml,
for `ttctune bench --settings`. What stands in -o already is not done again. No test part is read.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

from paired import in_points, runs_of, said

from ttctune.bench.benchmark import benchmark
from ttctune.bench.methods import METHODS
from ttctune.bench.record import read_record
from ttctune.bench.report.grid import Grid

MODEL, SIZE, EPOCHS = "deit_tiny_patch16_224", 96, 10
FIRST = (
    "linear",
    "norm",
    "bitfit",
    "lora",
    "lora+norm",
    "align+lora",
    "ssf",
    "adaptformer",
    "vpt",
    "sct",
    "ttc",
    "ttc-maps",
    "ttc-random",
    "full",
)
RATES = (1e-2, 5e-3, 2e-2, 2.5e-3, 4e-2, 1.25e-3, 8e-2, 1.6e-1, 3.2e-1)
#: Numbers of the rates that every method is tried at: the middle one, half and twice of it.
COMMON = (0, 1, 2)
ASCENDING = sorted(range(len(RATES)), key=RATES.__getitem__)
OURS = "ttc"
#: In so few epochs stochastic depth is left out, for every method.
SHORT = "drop_path = 0.0"
#: Rates of another order: the same, times this.
SCALES = {"full": 0.02, "linear": 2.0}


def rates_of(method: str) -> tuple[float, ...]:
    """The rates that are tried, the likeliest first."""
    return tuple(float(f"{rate * SCALES.get(method, 1.0):.6g}") for rate in RATES)


def settings_file(path: Path, settings: dict[str, tuple[float, str]], about: str = "") -> Path:
    """A file for `ttctune bench --settings`: the rate of each method, and another line of it."""
    lines = [f'["{name}"]\nlearning_rate = {rate:g}\n{other}\n' for name, (rate, other) in settings.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([f"# {about}\n"] * bool(about) + lines))
    return path


def tasks_in(out: Path) -> list[str]:
    """The tasks that have results of any method."""
    return sorted({file.parent.parent.name for file in out.glob("*/*/*/seed0.json")})


def means(out: Path, method: str) -> dict[int, float]:
    """Number of a rate -> mean accuracy over the tasks, for every rate whose jobs are all done."""
    tasks = tasks_in(out)
    found = {number: mean(out, method, number, tasks) for number in range(len(RATES))}
    return {number: value for number, value in found.items() if value is not None}


def mean(out: Path, method: str, number: int, tasks: list[str]) -> float | None:
    """The mean accuracy at a rate; None where not all jobs are done."""
    records = [read_record(file) for file in sorted((out / str(number)).glob(f"*/{method}/seed0.json"))]
    if not tasks or [r.task for r in records if r.failed is None] != tasks:
        return None
    return sum(record.accuracy for record in records) / len(records)


def following(found: dict[int, float]) -> int | None:
    """Number of the rate to try next: beyond the better edge; None once four are done and the best lies within."""
    absent = [number for number in COMMON if number not in found]
    if absent:
        return absent[0]
    lowest, *_, highest = tried = [number for number in ASCENDING if number in found]
    outer = (lowest, highest) if len(found) == len(COMMON) else tried
    best = best_of(found, outer)
    if best not in (lowest, highest):
        return None
    place = ASCENDING.index(best) + (1 if best == highest else -1)
    return ASCENDING[place] if 0 <= place < len(ASCENDING) else None


def best_of(found: dict[int, float], among: Iterable[int] | None = None) -> int:
    """Number of the rate with the highest mean, on equal terms of the smaller one."""
    return max(found if among is None else among, key=lambda number: (found[number], -RATES[number]))


def table(tried: dict[str, dict[int, float]]) -> str:
    """Mean accuracy in percent: a row a method, its rates ascending, the best bold; `tried` has the means of each."""
    order = [number for number in ASCENDING if any(number in found for found in tried.values())]
    heads = [f"{RATES[number]:g}" for number in order]
    lines = [f"| method | {' | '.join(heads)} | best rate |", "|---|" + "---:|" * (len(order) + 1)]
    for method, found in tried.items():
        best = best_of(found) if found else None
        cells = [f"{100 * found[n]:.1f}" if n in found else "" for n in order]
        cells = [f"**{c}**" if n == best else c for n, c in zip(order, cells, strict=True)]
        chosen = "" if best is None else f"{rates_of(method)[best]:g}" + " so far" * (following(found) is not None)
        lines.append(f"| {title_of(method)} | {' | '.join(cells)} | {chosen} |")
    return "\n".join(lines) + "\n"


def versus(out: Path, tried: dict[str, dict[int, float]]) -> str:
    """The two-stage method minus each other one, both at their best rates: a row a method."""
    best = {method: runs_of(out / str(best_of(found)), method) for method, found in tried.items() if found}
    runs = [run for own in best.values() for run in own.values()]
    grid = Grid(runs, {run.task: "none" for run in runs})
    means = {method: 100 * grid.average(method, "tasks") for method in best}
    against = {row.method: row for row in grid.versus(OURS)}
    heads = ("parameters", "%", "two-stage minus it, on these tasks", "p", "on tasks of this sort", "wins/ties/losses")
    lines = [f"| method | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for method in sorted(means, key=means.__getitem__):
        cells = [f"{max(run.parameters for run in best[method].values()):,}", f"{means[method]:.1f}"]
        if method == OURS:
            cells += [""] * 4
        else:
            row = against[method]
            gain, over_tasks = said(in_points(row.difference)), said(in_points(row.over_tasks))
            cells += [gain, f"{row.p:.2g}", over_tasks, "/".join(map(str, row.wins))]
        lines.append(f"| {title_of(method)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def title_of(method: str) -> str:
    """What people call it."""
    return METHODS[method].title.replace("`", "")


def page(out: Path, tried: dict[str, dict[int, float]], model: str, size: int) -> str:
    """The results as Markdown."""
    return f"""# The learning rate of each method

```
python benchmarks/rates.py --root DIR --weights FILE --model {model} --image-size {size} -o {out} \\
    --page FILE
```

{model} at {size} px, {EPOCHS} epochs in all, no stochastic depth, seed 0, on {", ".join(tasks_in(out))}:
trained on train, scored on val (test parts are not read). Every method is tried at four rates, each twice the last,
three that are common to all and one beyond the better of the outer two; where the best of these lies at an edge,
further ones follow; those tried for [selection.md](selection.md) stand here too. Mean accuracy over the tasks in %,
bold where highest. Every job's record is in a folder of its rate under `{out}`, and the choice, when all are done,
in `{out}/chosen.toml`.

{table(tried)}
Of full fine-tuning the rates are 0.02 of those above, of the linear probe twice. A rate is that of a method's own
parameters: norms have the same and the head half of it, but with the three kinds of LoRA and full fine-tuning the head
keeps 0.005, and the norms beside LoRA 0.01.

## Each at its best rate

Two-stage minus the other method, in points: with its 95 % interval by paired bootstrap over images with the tasks
fixed, p after Holm's correction, and Student's interval with the tasks as the sample; wins, ties and losses by task.
One seed, and rates and our default form were chosen on these images: another seed and other images would differ by more
than these intervals say. Parameters without head.

{versus(out, tried)}"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--image-size", type=int, default=SIZE)
    parser.add_argument("--methods", default=",".join(FIRST))
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--page", type=Path, help="Markdown to write as rates get done")
    parser.add_argument("--only-page", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    methods = tuple(arguments.methods.split(","))
    tried = {method: means(arguments.out, method) for method in methods}
    while not arguments.only_page:
        left = {method: following(found) for method, found in tried.items()}
        numbers = [number for number in range(len(RATES)) if number in left.values()]
        if not numbers:
            break
        number = numbers[0]
        settings = settings_file(
            arguments.out / f"{number}.toml", {method: (rates_of(method)[number], SHORT) for method in METHODS}
        )
        done = benchmark(
            "folder",
            arguments.root,
            [method for method in methods if left[method] == number],
            arguments.model,
            arguments.out / str(number),
            weights=arguments.weights,
            epochs=EPOCHS,
            image_size=arguments.image_size,
            settings=settings,
            jobs=2,
        )
        tried = {method: means(arguments.out, method) for method in methods}
        print(table(tried), flush=True)
        if done.failed:
            raise SystemExit(f"{len(done.failed)} jobs failed; the same command does them again")
    if arguments.page:
        arguments.page.write_text(page(arguments.out, tried, arguments.model, arguments.image_size))
    if methods == FIRST and all(following(found) is None for found in tried.values()):
        chosen = {
            method: (rates_of(method)[best_of(found)], f"trials = {len(found)}") for method, found in tried.items()
        }
        about = f"Chosen on val after {EPOCHS} epochs without stochastic depth, by benchmarks/rates.py."
        print(settings_file(arguments.out / "chosen.toml", chosen, about).read_text())
