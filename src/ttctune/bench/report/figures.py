"""The drawings of the page, each as SVG."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from ttctune.bench.record import unpacked
from ttctune.bench.report.drawing import ACCENT, TEXT, new_figure, page_style, series, to_svg
from ttctune.bench.report.grid import Cell
from ttctune.bench.report.runs import Run
from ttctune.channel_map import panels


def cost(
    points: Mapping[str, tuple[float, Cell]], titles: Mapping[str, str], colours: Mapping[str, int], axis_name: str
) -> str:
    """Average accuracy against a cost.

    Args:
        points: Method -> cost and average.
        titles: Method -> what people call it.
        colours: Method -> number of its series.
        axis_name: What the cost is.
    """
    with page_style():
        figure = new_figure(5.6, max(3.8, 0.6 + 0.22 * len(points)))
        axis = figure.add_subplot()
        for method, (x, cell) in points.items():
            style = series(colours[method]) | {"linestyle": "none"}
            error = None if cell.bounds is None else _error([cell])
            axis.errorbar([x], [100 * cell.value], yerr=error, capsize=3, markersize=7, **style)
        _cost_axis(axis, [x for x, _ in points.values()])
        axis.set(xlabel=axis_name, ylabel="mean accuracy, %")
        _names_beside(axis, points, titles, colours)
        told = "; ".join(f"{titles[m]} {100 * c.value:.1f} % at {short(x)}" for m, (x, c) in points.items())
        return to_svg(figure, f"cost-{axis_name.split()[0]}", f"Mean accuracy against {axis_name}: {told}")


def _cost_axis(axis: Axes, costs: Sequence[float]) -> None:
    """Linear, or logarithmic from the smallest cost on, with a place for zero left of it."""
    above = [cost for cost in costs if cost > 0]
    if above and max(above) > 20 * min(above):
        axis.set_xscale("symlog", linthresh=min(above), linscale=0.5)
        decades = [10.0**power for power in range(13)]
        ticks = [tick for tick in decades if 1.5 * min(above) < tick < 1.5 * max(above)]
        axis.set_xticks([0.0, *ticks] if min(costs) <= 0 else [min(above), *ticks])
        axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def _names_beside(
    axis: Axes,
    points: Mapping[str, tuple[float, Cell]],
    titles: Mapping[str, str],
    colours: Mapping[str, int],
) -> None:
    """The names in a column right of the axes, as high as their points where there is room, joined to them by lines."""
    low, high = axis.get_ylim()
    order = sorted(points, key=lambda method: points[method][1].value)
    step = min(0.07, 1 / len(order))
    places = [(100 * points[method][1].value - low) / (high - low) for method in order]
    for upper in range(1, len(places)):
        places[upper] = max(places[upper], places[upper - 1] + step)
    highest = 1.0
    for lower in reversed(range(len(places))):
        places[lower] = highest = min(places[lower], highest)
        highest -= step
    for method, place in zip(order, places, strict=True):
        axis.annotate(
            titles[method],
            xy=(points[method][0], 100 * points[method][1].value),
            xytext=(1.03, place),
            textcoords="axes fraction",
            va="center",
            arrowprops={"arrowstyle": "-", "color": series(colours[method])["color"], "linewidth": 0.6, "alpha": 0.7},
        )


def bars(task: str, number: int, cells: Mapping[str, Cell], titles: Mapping[str, str], chance: float) -> str:
    """Accuracy of every method on one task, with intervals; a line where guessing would be."""
    with page_style():
        figure = new_figure(4.4, 0.75 + 0.27 * len(cells))
        axis = figure.add_subplot()
        places = range(len(cells))[::-1]
        drawn = list(cells.values())
        axis.barh(places, [100 * cell.value for cell in drawn], color=ACCENT, alpha=0.45, height=0.7)
        known = [(place, cell) for place, cell in zip(places, drawn, strict=True) if cell.bounds is not None]
        if known:
            axis.errorbar(
                [100 * cell.value for _, cell in known],
                [place for place, _ in known],
                xerr=_error([cell for _, cell in known]),
                fmt="none",
                ecolor=TEXT,
                capsize=3,
                linewidth=1.2,
            )
        axis.axvline(100 * chance, color=TEXT, linewidth=1, linestyle=(0, (2, 2)))
        axis.set_yticks(places, [titles[method] for method in cells])
        axis.grid(visible=False, axis="y")
        axis.set(xlabel="accuracy, %", xlim=(0, 100))
        told = "; ".join(f"{titles[method]} {said(cell)}" for method, cell in cells.items())
        return to_svg(figure, f"bars-{number}", f"Accuracy on {task}: {told}; guessing {100 * chance:.1f} %")


def curves(task: str, number: int, runs: Mapping[str, Sequence[Run]], colours: Mapping[str, int]) -> str | None:
    """Loss of every method in every epoch of one task, mean over seeds and folds; None where nothing was written."""
    with page_style():
        figure = new_figure(4.4, 2.7)
        axis = figure.add_subplot()
        for method, own in runs.items():
            losses = _losses(own)
            if losses is not None:
                style = series(colours[method])
                every = max(1, len(losses) // 8)
                epochs = np.arange(1, len(losses) + 1)
                axis.plot(epochs, losses, markersize=3.5, linewidth=1.4, markevery=every, **style)
        if not axis.lines:
            return None
        axis.set(xlabel="epoch", ylabel="loss in training", yscale="log")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_minor_locator(NullLocator())
        told = f"Loss in training on {task}, epoch by epoch, {len(axis.lines)} methods"
        return to_svg(figure, f"curves-{number}", told)


def _losses(runs: Sequence[Run]) -> NDArray[np.float64] | None:
    rows = [[row.get("loss") for row in record.history] for run in runs for record in run.records]
    whole = [row for row in rows if row and all(isinstance(loss, (int, float)) and loss > 0 for loss in row)]
    longest = max(map(len, whole), default=0)
    same = [row for row in whole if len(row) == longest]
    return np.mean(np.array(same, np.float64), axis=0) if same else None


def legend(titles: Mapping[str, str], colours: Mapping[str, int]) -> str:
    """Which line is which method."""
    with page_style():
        columns = 3
        figure = new_figure(6.4, 0.2 + 0.24 * -(-len(titles) // columns))
        axis = figure.add_subplot()
        for method, title in titles.items():
            axis.plot([], [], label=title, **series(colours[method]))
        axis.axis("off")
        axis.legend(loc="center", ncols=columns)
        return to_svg(figure, "legend", f"Lines of {', '.join(titles.values())}")


def confusion(task: str, number: int, counts: NDArray[np.int64], names: Sequence[str]) -> str:
    """True classes (rows) against answers (columns), each row as shares of its images."""
    size = len(names)
    with page_style():
        figure = new_figure(1.6 + 0.2 * max(size, 6), 1.2 + 0.2 * max(size, 6))
        axis = figure.add_subplot()
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        for row, column in np.argwhere(shares[:, :size] > 0):
            share = float(shares[row, column])
            axis.add_patch(_square(row, column, share))
        axis.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), xlabel="answer", ylabel="true class", aspect="equal")
        short_names = [shortened(name, 18) for name in names]
        axis.set_xticks(range(size), short_names, rotation=90, fontsize=8)
        axis.set_yticks(range(size), short_names, fontsize=8)
        axis.grid(visible=False)
        right = float(np.diag(counts[:, :size]).sum() / max(counts.sum(), 1))
        told = (
            f"Confusion matrix of {task} for {size} classes, of whose images {100 * right:.1f} % are answered rightly"
        )
        return to_svg(figure, f"confusion-{number}", told)


def _square(row: int, column: int, share: float) -> Rectangle:
    colour = ACCENT if row == column else "#000201"
    return Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, alpha=0.08 + 0.92 * share, edgecolor="none")


def channels(task: str, number: int, run: Run) -> str:
    """Importance and choice of channels of one run, blocks x channels."""
    record = run.records[0]
    selection = {site: torch.tensor(chosen, dtype=torch.int64) for site, chosen in (record.selection or {}).items()}
    importance = {
        site: torch.from_numpy(unpacked(text, "<f2").astype(np.float32))
        for site, text in (record.importance or {}).items()
    }
    kinds = {site.partition(".")[2] for site in selection or importance}
    with page_style():
        figure = new_figure(6.4, 0.4 + 2.1 * len(kinds))
        panels(figure, selection, importance)
        count = sum(len(chosen) for chosen in selection.values())
        told = f"Map of {task}: {count} channels chosen at {len(selection)} sites ({', '.join(sorted(kinds))})"
        return to_svg(figure, f"channels-{number}", told)


def said(cell: Cell) -> str:
    """A number with its interval, in words."""
    text = f"{100 * cell.value:.1f} %"
    return text if cell.bounds is None else f"{text} ({100 * cell.bounds.low:.1f} to {100 * cell.bounds.high:.1f})"


def shortened(name: str, length: int = 26) -> str:
    """A name that leaves room for the drawing."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def short(value: float) -> str:
    """A count or a time in few characters: 0, 12, 9.6 k, 5.5 M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.3g}"


def _error(cells: Sequence[Cell]) -> NDArray[np.float64]:
    """Lengths of error bars below and above, in %."""
    pairs = [(cell.value - cell.bounds.low, cell.bounds.high - cell.value) for cell in cells if cell.bounds]
    return np.asarray(100 * np.maximum(np.array(pairs).T, 0), np.float64)
