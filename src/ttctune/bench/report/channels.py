"""How much the channels chosen for one task are those chosen for another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from statistics import fmean

from ttctune.bench.record import unpacked
from ttctune.bench.report.runs import Run

Selection = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Overlap:
    """Jaccard overlaps: channels that both chose, over channels that either chose, mean over sites.

    Attributes:
        tasks: In the order of rows and columns.
        shares: Rows of shares; on the diagonal between seeds of one task, None for a single seed.
        chance: What two random choices of as many channels share; None where no widths are known.
    """

    tasks: tuple[str, ...]
    shares: tuple[tuple[float | None, ...], ...]
    chance: float | None


def overlap_of(runs: Mapping[str, Sequence[Run]]) -> Overlap | None:
    """Overlaps between tasks, over all pairs of seeds; None unless two choices can be compared.

    Args:
        runs: Task -> runs of one method. Of several folds the first counts.
    """
    chosen = {task: [run.records[0].selection for run in own if run.records[0].selection] for task, own in runs.items()}
    chosen = {task: own for task, own in chosen.items() if own}
    rows = tuple(tuple(_mean(chosen[a], chosen[b], a == b) for b in chosen) for a in chosen)
    if all(share is None for row in rows for share in row):
        return None
    return Overlap(tuple(chosen), rows, _chance(runs))


def _mean(first: Sequence[Selection], second: Sequence[Selection], same: bool) -> float | None:
    pairs = combinations(first, 2) if same else product(first, second)
    shares = [share for a, b in pairs if (share := _jaccard(a, b)) is not None]
    return fmean(shares) if shares else None


def _jaccard(first: Selection, second: Selection) -> float | None:
    sites = [site for site in first if site in second and (first[site] or second[site])]
    shares = [len({*first[s]} & {*second[s]}) / len({*first[s]} | {*second[s]}) for s in sites]
    return fmean(shares) if shares else None


def _chance(runs: Mapping[str, Sequence[Run]]) -> float | None:
    """Two random K of D share K^2 / D of them, so of all that either has about K / (2 D - K)."""
    shares = []
    for own in runs.values():
        for record in (run.records[0] for run in own):
            widths = {site: len(unpacked(text, "<f2")) for site, text in (record.importance or {}).items()}
            kept = {site: len(chosen) for site, chosen in (record.selection or {}).items() if site in widths}
            shares += [k / (2 * widths[site] - k) for site, k in kept.items()]
    return fmean(shares) if shares else None
