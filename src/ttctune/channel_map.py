"""The picture of an adapter: blocks x channels, importance as shade, the chosen ones marked."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ttctune.errors import FolderError
from ttctune.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")


def draw(file: Path, selection: Mapping[str, Tensor], importance: Mapping[str, Tensor], title: str) -> None:
    """Write one panel a kind of site: a row a block, a column a channel.

    Args:
        file: Ends in .png or .svg.
        selection: Site name -> chosen channels.
        importance: Site name -> score; sites without one are drawn by the choice alone.
        title: Of the figure.

    Raises:
        FolderError: Another ending, or the file cannot be written.
    """
    if file.suffix.lower() not in FORMATS:
        raise FolderError(f"picture {file}", "a name ending in .png or .svg", "change --picture")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1 + 3 * max(len(_kinds(selection, importance)), 1)), layout="constrained")
    FigureCanvasAgg(figure)
    panels(figure, selection, importance)
    figure.suptitle(f"{title}: chosen channels (orange); darker grey is more important, per block")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=file.suffix.lower()[1:], dpi=150)
    write_atomically(file, buffer.getvalue())


def panels(figure: "Figure", selection: Mapping[str, Tensor], importance: Mapping[str, Tensor]) -> None:
    """Draw one panel a kind of site into a figure of matplotlib."""
    from matplotlib.colors import ListedColormap

    kinds = _kinds(selection, importance)
    axes = figure.subplots(max(len(kinds), 1), 1, squeeze=False)[:, 0]
    for axis, kind in zip(axes, kinds, strict=False):
        blocks = sorted(int(n.partition(".")[0]) for n in {*selection, *importance} if n.partition(".")[2] == kind)
        shade, marks = _rows(kind, blocks, selection, importance)
        extent = (-0.5, shade.shape[1] - 0.5, len(blocks) - 0.5, -0.5)
        axis.set_facecolor("#dbe7f3")  # seen where a block has fewer channels than the widest
        axis.grid(visible=False)
        axis.imshow(
            shade.numpy(),
            aspect="auto",
            cmap="Greys",
            vmin=0,
            vmax=1.6,
            extent=extent,
            interpolation="nearest",
        )
        overlay = torch.where(marks, 1.0, float("nan"))
        axis.imshow(
            overlay.numpy(),
            aspect="auto",
            cmap=ListedColormap(["#d95f02"]),
            extent=extent,
            interpolation="nearest",
        )
        axis.set(title=f"{kind}: {int(marks.sum())} channels chosen", xlabel="channel", ylabel="block")
        axis.set_yticks(range(len(blocks)), [str(b) for b in blocks])


def _kinds(selection: Mapping[str, Tensor], importance: Mapping[str, Tensor]) -> list[str]:
    return list(dict.fromkeys(name.partition(".")[2] for name in selection or importance))


def _rows(
    kind: str, blocks: list[int], selection: Mapping[str, Tensor], importance: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Shade (blocks x channels, rank of the score in 0..1) and marks (blocks x channels, bool).

    Beyond the width of a block's site the shade is NaN.
    """
    names = [f"{block}.{kind}" for block in blocks]
    scored = [importance[name] for name in names if name in importance]
    chosen = [selection[name] for name in names if name in selection]
    width = max([1, *(len(s) for s in scored), *(int(c.max()) + 1 for c in chosen if len(c))])
    shade, marks = torch.zeros(len(names), width), torch.zeros(len(names), width, dtype=torch.bool)
    for row, name in enumerate(names):
        if name in importance:
            ranks = importance[name].argsort().argsort()
            shade[row, : len(ranks)] = ranks / max(len(ranks) - 1, 1)
            shade[row, len(ranks) :] = float("nan")
        if name in selection:
            marks[row, selection[name]] = True
    return shade, marks
