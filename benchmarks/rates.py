"""The learning rate of each method, chosen on the pooled val parts of several tasks.

    python benchmarks/rates.py --root DIR --weights FILE -o results/rates     # tries what is missing

DIR has a folder for each task. Each method is trained at four rates, once a task: on train, for half of the usual
epochs, and scored on val. The rate with the highest mean over the tasks goes into chosen.toml, for `ttctune bench
--settings`. What stands in -o already is not done again. No test part is read.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

from ttctune.bench.benchmark import benchmark
from ttctune.bench.methods import METHODS
from ttctune.bench.record import read_record

MODEL, SIZE, EPOCHS = "deit_tiny_patch16_224", 96, 10
FIRST = ("linear", "norm", "lora", "lora+norm", "align+lora", "ssf", "sct", "ttc", "ttc-maps", "ttc-random", "full")
RATES = (1e-2, 5e-3, 2e-2, 2.5e-3)
#: In so few epochs stochastic depth is left out, for every method.
SHORT = "drop_path = 0.0"
#: Rates of another order: the same four, times this.
SCALES = {"full": 0.02, "linear": 2.0}


def rates_of(method: str) -> tuple[float, ...]:
    """The rates that are tried, the likeliest first."""
    return tuple(float(f"{rate * SCALES.get(method, 1.0):.6g}") for rate in RATES)


def settings_file(path: Path, rates: dict[str, float], others: str) -> Path:
    """A file for `ttctune bench --settings`: the rate of each method, and a line that all of them share."""
    lines = [f'["{name}"]\nlearning_rate = {rate:g}\n{others}\n' for name, rate in rates.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    return path


def tasks_in(out: Path) -> list[str]:
    """The tasks that have results of any method."""
    return sorted({file.parent.parent.name for file in out.glob("*/*/*/seed0.json")})


def means(out: Path, method: str) -> dict[float, float]:
    """Rate -> mean accuracy over the tasks, for the rates whose jobs are all done."""
    found, tasks = {}, tasks_in(out)
    for number, rate in enumerate(rates_of(method)):
        records = [read_record(file) for file in sorted((out / str(number)).glob(f"*/{method}/seed0.json"))]
        if tasks and [r.task for r in records if r.failed is None] == tasks:
            found[rate] = sum(record.accuracy for record in records) / len(records)
    return found


def cells_of(out: Path, method: str) -> dict[float, str]:
    """Rate -> mean accuracy in percent; the best is bold, on equal terms the smaller rate; what is not done is "-"."""
    found = means(out, method)
    best = best_of(found) if found else None
    cells = {rate: f"{100 * found[rate]:.1f}" if rate in found else "-" for rate in sorted(rates_of(method))}
    return {rate: f"**{cell}**" if rate == best else cell for rate, cell in cells.items()}


def best_of(found: dict[float, float]) -> float:
    """The rate of the highest mean, on equal terms the smaller one."""
    return max(found, key=lambda rate: (found[rate], -rate))


def table(out: Path, methods: Iterable[str]) -> str:
    """Mean accuracy in percent: a row a method, its rates ascending."""
    lines = ["| method |" + " rate | % |" * len(RATES), "|---|" + "---|---|" * len(RATES)]
    for method in methods:
        cells = " | ".join(f"{rate:g} | {cell}" for rate, cell in cells_of(out, method).items())
        lines.append(f"| {METHODS[method].title.replace('`', '')} | {cells} |")
    return "\n".join(lines) + "\n"


def page(out: Path, methods: Iterable[str], model: str, size: int) -> str:
    """The results as Markdown."""
    return f"""# The learning rate of each method

```
python benchmarks/rates.py --root DIR --weights FILE --model {model} --image-size {size} -o {out} \\
    --page FILE
```

{model} at {size} px, {EPOCHS} epochs in all, no stochastic depth, seed 0, on {", ".join(tasks_in(out))}:
trained on train, scored on val (test parts are not read). Each row has the same number of rates, a factor of two apart.
Means over the tasks, bold where highest; "-" is not done yet. Every job's record is in `{out}/0` to
`{out}/{len(RATES) - 1}`, and the choice in `{out}/chosen.toml` when all are done.

{table(out, methods)}"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--image-size", type=int, default=SIZE)
    parser.add_argument("--methods", default=",".join(FIRST))
    parser.add_argument("--rates", default="0,1,2,3", help="numbers of the rates to try now")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--page", type=Path, help="Markdown to write as rates get done")
    parser.add_argument("--only-page", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    methods = tuple(arguments.methods.split(","))
    for number in () if arguments.only_page else map(int, arguments.rates.split(",")):
        settings = settings_file(
            arguments.out / f"{number}.toml", {method: rates_of(method)[number] for method in METHODS}, SHORT
        )
        benchmark(
            "folder",
            arguments.root,
            methods,
            arguments.model,
            arguments.out / str(number),
            weights=arguments.weights,
            epochs=EPOCHS,
            image_size=arguments.image_size,
            settings=settings,
            jobs=2,
        )
        print(table(arguments.out, methods), flush=True)
    if arguments.page:
        arguments.page.write_text(page(arguments.out, methods, arguments.model, arguments.image_size))
    found = {method: means(arguments.out, method) for method in methods}
    if all(len(rates) == len(RATES) for rates in found.values()):
        chosen = {method: best_of(rates) for method, rates in found.items()}
        print(settings_file(arguments.out / "chosen.toml", chosen, f"trials = {len(RATES)}").read_text())
