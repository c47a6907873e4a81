"""Small image trees, drawn on the fly."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ttctune.backbone.description import InputDescription

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)


def describe(height: int = 16, width: int = 16, channels: int = 3, **settings: object) -> InputDescription:
    """An input description of a small model."""
    mean = (0.5,) * channels if channels != 3 else MEAN
    std = (0.2,) * channels if channels != 3 else STD
    return InputDescription(height, width, mean, std, **settings)  # type: ignore[arg-type]


def draw(label: int, size: tuple[int, int] = (40, 32), seed: int = 0) -> Image.Image:
    """A noisy RGB picture (width, height) with a shape whose kind and colour tell the label."""
    random = np.random.default_rng([label, seed])
    noise = random.integers(0, 60, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    left, top = (int(random.integers(0, max(1, side // 3))) for side in size)
    box = (left, top, left + size[0] // 2, top + size[1] // 2)
    colour = tuple(int(value) for value in np.roll([250, 160, 40], label))
    pen = ImageDraw.Draw(image)
    (pen.ellipse, pen.rectangle)[label % 2](box, fill=colour)
    return image


def write_image_tree(
    folder: Path,
    classes: int | tuple[str, ...] = 3,
    per_class: int = 6,
    size: tuple[int, int] = (40, 32),
    parts: tuple[str, ...] | Mapping[str, int] | None = None,
    seed: int = 0,
) -> Path:
    """Write a folder per class, below a folder per part where parts are given.

    Args:
        folder: Where to write; made if needed.
        classes: Class names, or how many ("class0", "class1", ...).
        per_class: Images per class (and part, unless `parts` says how many).
        size: Width and height in pixels.
        parts: Names of part folders, or a mapping of names to images per class; None writes the classes
            directly.
        seed: Changes the pictures.

    Returns:
        The folder.
    """
    names = tuple(f"class{i}" for i in range(classes)) if isinstance(classes, int) else classes
    counts = dict(parts) if isinstance(parts, Mapping) else dict.fromkeys(parts or ("",), per_class)
    for p, (part, count) in enumerate(counts.items()):
        for label, name in enumerate(names):
            (folder / part / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                draw(label, size, seed * 1000 + p * 100 + i).save(folder / part / name / f"{i:03d}.png")
    return folder
