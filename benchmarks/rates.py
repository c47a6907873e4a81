"""The learning rate of each method, chosen on the pooled val parts of several tasks.

    python benchmarks/rates.py --root DIR --weights FILE -o results/rates     # tries what is missing

DIR has a folder for each task. Each method is trained at four rates, once a task: on train, for half of the usual
epochs, and scored on val. The rate with the highest mean over the tasks goes into chosen.toml, for `ttctune bench
--settings`. What stands in -o already is not done again. No test part is read.
"""

import argparse
from pathlib import Path

from ttctune.bench.benchmark import benchmark
from ttctune.bench.record import read_record

MODEL, SIZE, EPOCHS = "deit_tiny_patch16_224", 96, 10
METHODS = ("linear", "norm", "lora", "lora+norm", "align+lora", "ssf", "sct", "ttc", "ttc-random", "full")
RATES = (1e-2, 5e-3, 2e-2, 2.5e-3)
#: Rates of another order: the same four, times this.
SCALES = {"full": 0.02, "linear": 2.0}


def rates_of(method: str) -> tuple[float, ...]:
    """The rates that are tried, the likeliest first."""
    return tuple(float(f"{rate * SCALES.get(method, 1.0):.6g}") for rate in RATES)


def settings_file(path: Path, rates: dict[str, float], trials: int) -> Path:
    """A file for `ttctune bench --settings`."""
    lines = [
        f'["{name}"]\nlearning_rate = {rate:g}\n' + f"trials = {trials}\n" * (trials > 0)
        for name, rate in rates.items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    return path


def means(out: Path, method: str) -> dict[float, float]:
    """Rate -> mean accuracy over the tasks, for the rates whose jobs are all done."""
    found = {}
    for number, rate in enumerate(rates_of(method)):
        records = [read_record(file) for file in sorted((out / str(number)).glob(f"*/{method}/seed0.json"))]
        if records and all(record.failed is None for record in records):
            found[rate] = sum(record.accuracy for record in records) / len(records)
    return found


def table(out: Path, methods: tuple[str, ...]) -> str:
    """Mean accuracy in percent: a row a method, a column a rate; the chosen rate is bold."""
    lines = ["| method |" + " rate: mean % |" * len(RATES), "|---|" + "---|" * len(RATES)]
    for method in methods:
        found = means(out, method)
        best = max(found, key=lambda rate: (found[rate], -rate), default=None)
        cells = []
        for rate in sorted(found):
            cell = f"{rate:g}: {100 * found[rate]:.1f}"
            cells.append(f"**{cell}**" if rate == best else cell)
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--image-size", type=int, default=SIZE)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    methods = tuple(arguments.methods.split(","))
    for number in range(len(RATES)):
        settings = settings_file(
            arguments.out / f"{number}.toml", {method: rates_of(method)[number] for method in methods}, trials=0
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
    found = {method: means(arguments.out, method) for method in methods}
    chosen = {method: max(rates, key=lambda rate: (rates[rate], -rate)) for method, rates in found.items()}
    print(settings_file(arguments.out / "chosen.toml", chosen, trials=len(RATES)).read_text())
