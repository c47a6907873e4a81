"""The runs of a results folder as rows for programs."""

from typing import Any

from ttctune.bench.report.runs import Results


def rows_of(results: Results) -> list[dict[str, Any]]:
    """One row a run, for programs; accuracy, parameters and seconds of one without a result are None."""
    done: list[dict[str, Any]] = [
        {
            "task": run.task,
            "method": run.method,
            "seed": run.seed,
            "accuracy": run.accuracy,
            "parameters": run.parameters,
            "seconds": run.seconds,
            "protocol": run.key,
        }
        for run in results.runs
    ]
    lost = dict.fromkeys((m.task, m.method, m.seed) for m in results.missing)
    empty = dict.fromkeys(("accuracy", "parameters", "seconds", "protocol"))
    return done + [{"task": t, "method": m, "seed": s} | empty for t, m, s in lost]
