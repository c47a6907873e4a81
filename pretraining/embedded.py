"""Train the embedded backbone on the pre-training images: distilled from a teacher's features, or supervised.

    python pretraining/embedded.py distilled  --images DIR --teacher FILE --out DIR
    python pretraining/embedded.py supervised --images DIR --out DIR

DIR of --images holds index.csv (file,split,label,class) and 64 px pictures; FILE holds DeiT-tiny's weights. The state
is kept after every epoch, and the same command goes on from there. At the end `backbone.safetensors` (float16) lies
in --out, and one line an epoch in `history.jsonl`.

Distilled: every token of the student predicts the teacher's token at the same place, and the pooled feature predicts
its class token. The teacher sees the same crop at twice the size, so both have a grid of 8 x 8 patches. Targets are
normalised over their channels without scale or shift and compared by smooth L1 (Wei et al., arXiv 2205.14141).
Supervised: cross-entropy of the labels, with label smoothing. All else is equal.
"""

import argparse
import csv
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from ttctune.backbone.embedded import ttctune_vit_patch8_64
from ttctune.backbone.opening import open_backbone
from ttctune.images.normalisation import normalise

SIZE, TEACHER, TEACHER_SIZE = 64, "deit_tiny_patch16_224", 128
#: Each picture is cropped in this many fixed ways, so that the teacher looks at each crop once.
VIEWS = 2
BATCH, RATE, DECAY, WARMUP_EPOCHS, SMOOTHING = 64, 1e-3, 0.05, 1, 0.1
#: Side of a crop as a share of the picture's; brightness and contrast change by up to JITTER.
SMALLEST_CROP, JITTER = 0.6, 0.3


@dataclass
class Pictures:
    """uint8 N x 3 x 64 x 64 and int64 N."""

    images: Tensor
    labels: Tensor


def read(folder: Path, split: str) -> Pictures:
    with (folder / "index.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    images = np.stack([np.asarray(Image.open(folder / row["file"]).convert("RGB")) for row in rows])
    return Pictures(
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.tensor([int(r["label"]) for r in rows])
    )


def crops(n: int, view: int) -> Tensor:
    """How each of `n` pictures is cropped and mirrored in a view: affine matrices, N x 2 x 3."""
    generator = torch.Generator().manual_seed(view)
    side = SMALLEST_CROP + (1 - SMALLEST_CROP) * torch.rand(n, generator=generator)
    shift = (1 - side) * (2 * torch.rand(2, n, generator=generator) - 1)
    mirror = torch.randint(0, 2, (n,), generator=generator) * 2 - 1
    zero = torch.zeros(n)
    return torch.stack([side * mirror, zero, shift[0], zero, side, shift[1]], 1).view(n, 2, 3)


def cropped(images: Tensor, matrices: Tensor, size: int) -> Tensor:
    """Pictures in [0, 255], N x 3 x size x size."""
    grid = F.affine_grid(matrices, [len(images), 3, size, size], align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)


def jittered(images: Tensor) -> Tensor:
    """Brightness and contrast changed, each picture in its own way."""
    gain, shift = (1 + JITTER * (2 * torch.rand(2, len(images), 1, 1, 1) - 1)).unbind()
    mean = images.mean((1, 2, 3), keepdim=True)
    return ((images - mean) * gain + mean * shift).clamp(0, 255)


class Distilled(nn.Module):
    """Student and the two layers that predict the teacher's features from its own."""

    def __init__(self, student: nn.Module, teacher_width: int) -> None:
        super().__init__()
        self.student = student
        width = int(student.num_features)
        self.tokens = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, teacher_width))
        self.pooled = nn.Linear(width, teacher_width)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Mean smooth L1 of the tokens and of the class token; targets N x 65 x width, class token first."""
        tokens = self.student.forward_features(images)
        pooled = self.student.forward_head(tokens, pre_logits=True)
        return F.smooth_l1_loss(self.tokens(tokens), targets[:, 1:]) + F.smooth_l1_loss(
            self.pooled(pooled), targets[:, 0]
        )


class Supervised(nn.Module):
    """Student with a classifier."""

    def __init__(self, student: nn.Module, classes: int) -> None:
        super().__init__()
        self.student = student
        student.reset_classifier(classes)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.student(images), labels, label_smoothing=SMOOTHING)


class Targets:
    """The teacher's features of every picture in every view, computed when first asked for, kept in files."""

    def __init__(self, pictures: Pictures, weights: Path, folder: Path) -> None:
        self.pictures, self.folder = pictures, folder
        self.backbone = open_backbone(TEACHER, weights)
        self.teacher = self.backbone.model.eval()
        self.teacher.set_input_size(img_size=(TEACHER_SIZE, TEACHER_SIZE))
        self.width = int(self.teacher.num_features)

    def __call__(self, view: int) -> np.ndarray:
        """float16, N x 65 x width."""
        file = self.folder / f"targets-{view}.npy"
        if not file.exists():
            partial = file.with_suffix(".partial")
            count = (TEACHER_SIZE // 16) ** 2 + 1
            made = np.lib.format.open_memmap(partial, "w+", np.float16, (len(self.pictures.images), count, self.width))
            matrices = crops(len(self.pictures.images), view)
            with torch.no_grad():
                for start in range(0, len(made), BATCH):
                    part = slice(start, start + BATCH)
                    images = cropped(self.pictures.images[part], matrices[part], TEACHER_SIZE)
                    tokens = self.teacher.forward_features(normalise(images, self.backbone.input, torch.device("cpu")))
                    made[part] = F.layer_norm(tokens, (self.width,)).half().numpy()
            made.flush()
            partial.rename(file)
        return np.load(file, mmap_mode="c")


def train(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    pictures, held_out = read(arguments.images, "train"), read(arguments.images, "val")
    student = ttctune_vit_patch8_64()
    description = open_backbone(student).input
    targets = None
    if arguments.method == "distilled":
        targets = Targets(pictures, arguments.teacher, arguments.out)
        model: nn.Module = Distilled(student, targets.width)
    else:
        model = Supervised(student, int(pictures.labels.max()) + 1)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, fused=True)
    state_file, history = arguments.out / "state.pt", arguments.out / "history.jsonl"
    first = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epoch"]
    compiled = torch.compile(model)
    steps = len(pictures.images) // BATCH
    for epoch in range(first, arguments.epochs):
        start = time.perf_counter()
        torch.manual_seed(1000 * arguments.seed + epoch)
        view = epoch % VIEWS
        known = torch.from_numpy(np.asarray(targets(view))) if targets else pictures.labels
        where = crops(len(pictures.images), view if targets else epoch)
        order = torch.randperm(len(pictures.images))
        total = 0.0
        model.train()
        for step in range(steps):
            done = epoch + step / steps
            warm = min(1.0, (done + 1e-3) / WARMUP_EPOCHS)
            for group in optimizer.param_groups:
                group["lr"] = RATE * warm * 0.5 * (1 + math.cos(math.pi * done / arguments.epochs))
            chosen = order[step * BATCH : (step + 1) * BATCH]
            images = jittered(cropped(pictures.images[chosen], where[chosen], SIZE))
            wanted = known[chosen]
            inputs = normalise(images, description, torch.device("cpu"))
            loss = compiled(inputs, wanted.float() if targets else wanted)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += float(loss.detach())
        row: dict[str, Any] = {"method": arguments.method, "epoch": epoch + 1, "loss": total / steps}
        row |= {"nearest_class": nearest_class(student, description, pictures, held_out)}
        row |= {"seconds": round(time.perf_counter() - start)}
        with history.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}
        torch.save(state, state_file.with_suffix(".new"))
        state_file.with_suffix(".new").replace(state_file)
    tensors = {k: v.half().contiguous() for k, v in student.state_dict().items() if not k.startswith("head.")}
    save_file(tensors, arguments.out / "backbone.safetensors")


@torch.no_grad()
def nearest_class(student: nn.Module, description: Any, pictures: Pictures, held_out: Pictures) -> float:
    """Accuracy on held-out pictures by the nearest class mean of the features: one number to watch."""
    student.eval()

    def features(images: Tensor) -> Tensor:
        parts = [normalise(part.float(), description, torch.device("cpu")) for part in images.split(256)]
        pooled = [student.forward_head(student.forward_features(part), pre_logits=True) for part in parts]
        return F.normalize(torch.cat(pooled), dim=1)

    known = slice(0, None, 4)
    means = torch.zeros(int(pictures.labels.max()) + 1, int(student.num_features))
    means.index_add_(0, pictures.labels[known], features(pictures.images[known]))
    similar = features(held_out.images) @ F.normalize(means, dim=1).T
    return float((similar.argmax(1) == held_out.labels).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=("distilled", "supervised"))
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, help="DeiT-tiny's weights")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
