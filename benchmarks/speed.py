"""Time and memory of one training step against PEFT's LoRA; ratios from one interleaved process.

    python benchmarks/speed.py                   # prints the tables and writes docs/results/speed.md
    python benchmarks/speed.py --rounds 4 --size 96 --out -

DeiT-tiny with random weights (speed does not depend on them), batches of 32, two threads. A step is: normalise uint8
images, forward, cross-entropy, backward, AdamW. Every method runs through the same function; the methods take turns,
step by step, and a row is the fastest of the rounds: what else a machine does only ever adds. For every method alike
freed memory is kept, as ttctune keeps it. Peak memory is the growth over the loaded model, read in fresh processes: the
median of some, and with an allocator that hands freed memory back at once.
"""

import argparse
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import ttctune.torchvision_operators  # noqa: F401  (before timm and peft)

import peft  # isort: skip
import timm  # isort: skip
import torch
from torch import Tensor, nn

from ttctune.backbone.model import Backbone
from ttctune.backbone.opening import open_backbone
from ttctune.images import Augmentation, LabelledImages
from ttctune.images.normalisation import normalise
from ttctune.method.attachment import Attachment, attach
from ttctune.method.importance import score
from ttctune.method.merge import merge
from ttctune.recipe import Recipe
from ttctune.training.kept_memory import freed_memory_kept
from ttctune.training.last_block import read_tokens_only
from ttctune.training.memory import peak_memory
from ttctune.training.precision import Precision, attention, measure
from ttctune.training.trainer import image_loss
from ttctune.two_stage import select

MODEL, BATCH, CLASSES, THREADS = "deit_tiny_patch16_224", 32, 100, 2
FORMATS = {
    "float32": Precision("fp32", fused_attention=True),
    "bfloat16": Precision("bf16", fused_attention=False),
}
#: Fresh processes whose peak is read: what glibc can use again differs from one to the next.
PROCESSES = 5
#: Makes glibc hand freed memory back at once, so that a process's peak is what lives at the same time.
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_TOP_PAD_": "0"}
METHODS = ("forward", "lora", "lora here", "norms", "default", "maps", "rows")
CPU = torch.device("cpu")


def backbone() -> Backbone:
    return open_backbone(timm.create_model(MODEL, num_classes=CLASSES).eval())


def forward(size: int) -> tuple[nn.Module, list[nn.Parameter]]:
    return timm.create_model(MODEL, num_classes=CLASSES, img_size=size).requires_grad_(False).eval(), []


def lora(size: int) -> tuple[nn.Module, list[nn.Parameter]]:
    model = timm.create_model(MODEL, num_classes=CLASSES, img_size=size)
    config = peft.LoraConfig(r=8, lora_alpha=8, target_modules=["qkv"], modules_to_save=["head"])
    model = peft.get_peft_model(model, config).train()
    return model, [p for p in model.parameters() if p.requires_grad]


def lora_here(size: int) -> tuple[nn.Module, list[nn.Parameter]]:
    """The same as the benchmark of methods trains it: PEFT's layers, ttctune's loop."""
    model = timm.create_model(MODEL, num_classes=CLASSES, img_size=size).requires_grad_(False)
    peft.inject_adapter_in_model(peft.LoraConfig(r=8, lora_alpha=8, target_modules=["qkv"]), model)
    model.head.requires_grad_(True)
    return model.train(), [p for p in model.parameters() if p.requires_grad]


def attached(size: int, recipe: Recipe | None) -> Attachment:
    """The model of stage 2, or without a recipe of stage 1."""
    base = backbone()
    result = attach(base, CLASSES, image_size=(size, size))
    if recipe is not None:
        sites = base.sites(recipe.sites)
        importance = {site.name: torch.rand(site.width) for site in sites}
        result.tune(sites, select(importance, sites, recipe), recipe.form, recipe.gates)
    return result


def ours(recipe: Recipe | None) -> Callable[[int], tuple[nn.Module, list[nn.Parameter]]]:
    def make(size: int) -> tuple[nn.Module, list[nn.Parameter]]:
        model = attached(size, recipe).model.train()
        return model, [p for p in model.parameters() if p.requires_grad]

    return make


MAKE: dict[str, Callable[[int], tuple[nn.Module, list[nn.Parameter]]]] = {
    "forward": forward,
    "lora": lora,
    "lora here": lora_here,
    "norms": ours(None),
    "default": ours(Recipe()),
    "maps": ours(Recipe(gates=(), channels=48)),
    "rows": ours(Recipe(gates=(), channels=5, form="rows")),
}
TITLES = {
    "forward": "forward alone",
    "lora": "PEFT LoRA r=8 on qkv",
    "lora here": "the same, last block as below",
    "norms": "stage 1 (norms, head)",
    "default": "stage 2, default recipe (maps K = 24 at attn and mlp, gates at qkv and fc1, norms, head)",
    "maps": "stage 2, maps K = 48 at attn and mlp, norms, head",
    "rows": "stage 2, rows K = 5 at attn and mlp, norms, head",
}


class Step:
    """One training step of one method on one batch."""

    def __init__(self, method: str, size: int) -> None:
        self.model, parameters = MAKE[method](size)
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True) if parameters else None
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randint(0, 256, (BATCH, 3, size, size), dtype=torch.uint8, generator=generator)
        self.labels = torch.randint(0, CLASSES, (BATCH,), generator=generator)
        self.standing = ExitStack()  # for good: a compiled step is compiled anew whenever the block changes
        if method not in ("forward", "lora"):  # as their users run them
            self.standing.enter_context(read_tokens_only(self.model, backbone()))
        self.description = backbone().input

    def __call__(self, precision: Precision, model: nn.Module | None = None) -> None:
        model = self.model if model is None else model
        with attention(self.model, precision.fused_attention):
            inputs = normalise(self.images, self.description, CPU)
            with torch.set_grad_enabled(self.optimizer is not None), precision.forward_context(CPU):
                logits = model(inputs)
            if self.optimizer is not None:
                image_loss(logits, self.labels, None, 0.1).mean().backward()
                self.optimizer.step()
                self.optimizer.zero_grad()


def interleaved(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each at its fastest, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if round_:
                times[name].append(time.perf_counter() - start)
    return {name: min(values) for name, values in times.items()}


def peak_of(method: str, size: int, allocator: dict[str, str]) -> float:
    """Growth in MB over the loaded model, in a fresh process."""
    command = [sys.executable, __file__, "--peak-of", method, "--size", str(size)]
    environment = os.environ | allocator
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def peaks(size: int) -> dict[str, tuple[float, float]]:
    """Method -> MB as a process grows, the median of several, and MB that live at the same time."""
    grown: dict[str, list[float]] = {method: [] for method in METHODS[1:]}
    for _ in range(PROCESSES):
        for method, values in grown.items():
            values.append(peak_of(method, size, {}))
    return {method: (statistics.median(values), peak_of(method, size, GIVE_BACK)) for method, values in grown.items()}


def print_peak(method: str, size: int) -> None:
    step = Step(method, size)
    before = resident()
    for _ in range(3):
        step(FORMATS["float32"])
    print((peak_memory(CPU) - before) / 1e6)


def resident() -> int:
    """Bytes that this process holds now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def scoring_seconds(size: int, rounds: int) -> dict[str, float]:
    """A scoring pass and a training epoch over the same images, per format."""
    base, work = backbone(), attached(size, None)
    tuned = Step("default", size)
    sites = base.sites(Recipe().sites)
    steps: dict[str, Callable[[], object]] = {}
    for name, precision in FORMATS.items():

        def scored(precision: Precision = precision) -> None:
            with attention(work.model, precision.fused_attention):
                score(
                    work.model,
                    sites,
                    [(normalise(tuned.images, base.input, CPU), tuned.labels)],
                    lambda logits, labels: image_loss(logits, labels, None, 0.1),
                    classes=CLASSES,
                    forward_context=lambda: precision.forward_context(CPU),
                )

        steps[f"score {name}"] = scored
        steps[f"epoch {name}"] = lambda precision=precision: tuned(precision)
    return interleaved(steps, rounds)


def merged_seconds(size: int, rounds: int) -> dict[str, float]:
    plain, _ = forward(size)
    merged = merge(attached(size, Recipe())).requires_grad_(False)
    images = torch.randn(BATCH, 3, size, size)

    def run(model: nn.Module) -> Tensor:
        with torch.inference_mode():
            return model(images)

    return interleaved({"merged": lambda: run(merged), "plain": lambda: run(plain)}, rounds)


def augmentation_seconds(size: int, rounds: int) -> float:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (320, 3, size, size), dtype=torch.uint8, generator=generator)
    data = LabelledImages(images, torch.zeros(320, dtype=torch.int64))
    augment = Augmentation(flip=True, crop=True)

    def epoch() -> None:
        for pictures, _ in data.batches(BATCH, order=torch.randperm(320)):
            augment(pictures)

    return interleaved({"epoch": epoch}, rounds)["epoch"] / 10


def compiled_seconds(size: int, rounds: int) -> dict[str, float]:
    step, rival = Step("default", size), Step("lora", size)
    compiled = torch.compile(step.model)
    precision = FORMATS["bfloat16"]
    step(precision, compiled)  # compiles here, outside the measured rounds
    return interleaved(
        {"compiled": lambda: step(precision, compiled), "lora": lambda: rival(FORMATS["float32"])}, rounds
    )


def report(size: int, rounds: int) -> str:
    steps = {method: Step(method, size) for method in METHODS}
    turns = {
        f"{method} {name}": (lambda m=method, p=precision: steps[m](p))
        for method in METHODS
        for name, precision in FORMATS.items()
    }
    seconds = interleaved(turns, rounds)
    scoring, merged = scoring_seconds(size, rounds), merged_seconds(size, rounds)
    augmented = augmentation_seconds(size, rounds)
    compiled = compiled_seconds(size, rounds)
    chosen = measure(CPU, lambda precision: steps["default"](precision) or 1.0)
    memory = peaks(size)
    lora32 = seconds["lora float32"]
    lines = [
        "# Speed and memory",
        "",
        f"`{shlex.join(['python', 'benchmarks/speed.py', *sys.argv[1:]])}`",
        "",
        f"DeiT-tiny, {size} px, batch {BATCH}, {THREADS} threads; {cpu_name()}; torch {torch.__version__}, "
        f"timm {timm.__version__}, peft {peft.__version__}. The fastest of {rounds} interleaved rounds. In bfloat16 "
        "the attention of every method, LoRA too, is not fused, and the memory that any of them frees is "
        "[kept](kept-memory.md). Peak memory is what a process grows by over the loaded model, in float32, the median "
        f"of {PROCESSES} fresh processes; live memory is the same with an allocator that hands freed memory back at "
        "once.",
        "",
        "| one training step | float32 ms | x forward | x LoRA | bfloat16 ms | x forward | x LoRA | x LoRA float32 "
        "| peak memory MB | x LoRA | live memory MB | x LoRA |",
        "|" + "---|" * 12,
    ]
    for method in METHODS:
        a, b = seconds[f"{method} float32"], seconds[f"{method} bfloat16"]
        pairs = zip(memory.get(method, ()), memory["lora"], strict=False)
        peak = " | ".join(f"{mine:.0f} | {mine / rival:.2f}" for mine, rival in pairs) or " | | | "
        lines.append(
            f"| {TITLES[method]} | {1000 * a:.0f} | {a / seconds['forward float32']:.2f} | {a / lora32:.2f} "
            f"| {1000 * b:.0f} | {b / seconds['forward bfloat16']:.2f} | {b / seconds['lora bfloat16']:.2f} "
            f"| {b / lora32:.2f} | {peak} |"
        )
    step = seconds["default bfloat16"]
    lines += [
        "",
        "| what | figure |",
        "|---|---|",
        f"| fastest way to compute a stage-2 step (`--precision auto` also looks at the loss) | {chosen.title} |",
        f"| stage 2 in bfloat16 with torch.compile, x LoRA float32 | {compiled['compiled'] / compiled['lora']:.2f} |",
        f"| scoring pass, float32, x a training epoch in float32 "
        f"| {scoring['score float32'] / scoring['epoch float32']:.2f} |",
        f"| scoring pass, bfloat16, x a training epoch in bfloat16 "
        f"| {scoring['score bfloat16'] / scoring['epoch bfloat16']:.2f} |",
        f"| batching, flip and crop, share of a stage-2 epoch in bfloat16 | {augmented / step:.1%} |",
        f"| merged model, x the plain one, inference | {merged['merged'] / merged['plain']:.2f} |",
        "",
    ]
    return "\n".join(lines)


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    flags = next((line for line in lines if line.startswith("flags")), "")
    units = [unit for unit in ("avx512_bf16", "amx_bf16") if unit in flags]
    return f"{name} ({', '.join(units) or 'no bfloat16 instructions'})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--out", default="docs/results/speed.md")
    parser.add_argument("--peak-of", choices=METHODS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    with freed_memory_kept(CPU):
        if arguments.peak_of:
            print_peak(arguments.peak_of, arguments.size)
            return
        text = report(arguments.size, arguments.rounds)
    print(text)
    if arguments.out != "-":
        Path(arguments.out).write_text(text)


if __name__ == "__main__":
    main()
