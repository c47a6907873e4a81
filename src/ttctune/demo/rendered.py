"""Three tasks that are drawn: how many, which way, and where. Each picture is a function of its own seed.

They ask for what a linear probe on a classifier's features tends to lose: number, angle and place. Shapes, colours,
sizes and backgrounds are drawn at random and say nothing about the label.
"""

import colorsys
import math
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 64
#: Shapes are drawn at this many times the size and reduced, for smooth edges.
FINE = 4

Random = np.random.Generator
Drawing = Callable[[Random, int], Image.Image]


def count(random: Random, label: int) -> Image.Image:
    """`label` + 1 blobs that do not touch, of one kind and one colour."""
    picture, colour = _background(random)
    draw = ImageDraw.Draw(picture)
    placed: list[tuple[float, float, float]] = []
    while len(placed) <= label:
        radius = random.uniform(4, 7)
        x, y = random.uniform(radius + 1, SIDE - radius - 1, 2)
        if all(math.hypot(x - a, y - b) > radius + r + 2 for a, b, r in placed):
            placed.append((x, y, radius))
    corners = int(random.choice([3, 4, 30]))
    for x, y, radius in placed:
        _polygon(draw, x, y, radius, radius, random.uniform(0, math.tau), corners, colour)
    return _finished(picture, random)


def orientation(random: Random, label: int) -> Image.Image:
    """A long shape whose axis points in one of eight directions, 22.5 degrees apart, give or take 5 degrees."""
    picture, colour = _background(random)
    angle = math.radians(22.5 * label + random.uniform(-5, 5))
    length, width = random.uniform(16, 24), random.uniform(4, 7)
    x, y = random.uniform(length, SIDE - length, 2)
    _polygon(ImageDraw.Draw(picture), x, y, length, width, angle, int(random.choice([4, 30])), colour)
    return _finished(picture, random)


def position(random: Random, label: int) -> Image.Image:
    """One disc in a cell of a 3 x 3 grid, among three squares that may lie anywhere."""
    picture, colour = _background(random)
    draw = ImageDraw.Draw(picture)
    for x, y in random.uniform(6, SIDE - 6, (3, 2)):
        _polygon(draw, x, y, 6, 6, random.uniform(0, math.tau), 4, colour)
    cell = SIDE / 3
    x, y = (cell * (np.array([label % 3, label // 3]) + 0.5)) + random.uniform(-3, 3, 2)
    radius = random.uniform(5, 7)
    _polygon(draw, x, y, radius + 2, radius + 2, 0, 30, (0, 0, 0))
    _polygon(draw, x, y, radius, radius, 0, 30, colour)
    return _finished(picture, random)


#: Task -> how a picture of a label is drawn, and the names of the labels.
DRAWINGS: Mapping[str, tuple[Drawing, tuple[str, ...]]] = {
    "count": (count, tuple(str(n) for n in range(1, 7))),
    "orientation": (orientation, tuple(f"{22.5 * n:05.1f} degrees" for n in range(8))),
    "position": (position, tuple(f"row {r} column {c}" for r in range(1, 4) for c in range(1, 4))),
}


def render(task: str, images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a balanced set of pictures.

    Args:
        task: A key of `DRAWINGS`.
        images: How many.
        seed: Sets with different seeds share no picture.

    Returns:
        uint8 pictures, N x 64 x 64 x 3, and int64 labels, N.
    """
    draw, classes = DRAWINGS[task]
    labels = np.arange(images, dtype=np.int64) % len(classes)
    name = int.from_bytes(task.encode(), "big")
    pictures = [draw(np.random.default_rng([name, seed, n]), int(label)) for n, label in enumerate(labels)]
    return np.stack([np.asarray(picture) for picture in pictures]), labels


def _background(random: Random) -> tuple[Image.Image, tuple[int, int, int]]:
    """A smooth two-colour background at FINE times the size, and a colour that stands out from it."""
    hue, level = random.uniform(), random.uniform(0.15, 0.75)
    ends = [_colour(hue + random.uniform(-0.1, 0.1), level + random.uniform(-0.1, 0.1)) for _ in range(2)]
    share = np.linspace(0, 1, SIDE)[:, None, None]
    share = share if random.uniform() < 0.5 else share.swapaxes(0, 1)
    mixed = (1 - share) * np.array(ends[0]) + share * np.array(ends[1])
    picture = Image.fromarray(np.broadcast_to(mixed, (SIDE, SIDE, 3)).astype(np.uint8))
    shape = _colour(hue + random.uniform(0.3, 0.7), level + 0.4 if level < 0.45 else level - 0.4)
    return picture.resize((SIDE * FINE, SIDE * FINE), Image.Resampling.NEAREST), shape


def _colour(hue: float, level: float) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(hue % 1, min(max(level, 0), 1), 0.6))
    return red, green, blue


def _polygon(
    draw: ImageDraw.ImageDraw,
    x: float,
    y: float,
    length: float,
    width: float,
    angle: float,
    corners: int,
    colour: tuple[int, int, int],
) -> None:
    """A regular polygon around (x, y), stretched to two half-axes, then turned."""
    points = []
    for corner in range(corners):
        turn = math.tau * (corner + 0.5) / corners
        along, across = length * math.cos(turn), width * math.sin(turn)
        dx = along * math.cos(angle) - across * math.sin(angle)
        dy = along * math.sin(angle) + across * math.cos(angle)
        points.append((FINE * (x + dx), FINE * (y + dy)))
    draw.polygon(points, fill=colour)


def _finished(picture: Image.Image, random: Random) -> Image.Image:
    """Reduced to SIDE, a little blurred, with noise."""
    small = picture.reduce(FINE).filter(ImageFilter.GaussianBlur(random.uniform(0, 0.7)))
    noise = random.normal(0, random.uniform(2, 12), (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(np.asarray(small) + noise, 0, 255).astype(np.uint8))
