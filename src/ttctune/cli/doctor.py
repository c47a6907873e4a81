"""`ttctune doctor`: whether this machine and its installation are fit."""

import dataclasses
import json
from contextlib import suppress

import typer

from ttctune.cli.options import Json, Quiet, Threads, threads_of
from ttctune.cli.tables import show, table_of

EXAMPLE = "ttctune doctor"


def command(threads: Threads = None, quiet: Quiet = False, as_json: Json = False) -> None:
    """Check versions, cores, memory, disk, devices, compiler, hub and arithmetic; a line for each, with a cure.

    Exit code 1 where something that ttctune needs is broken, else 0. With --quiet only what is not well is shown.
    """
    from ttctune.doctor import examine

    if (number := threads_of(threads)) is not None:
        with suppress(ImportError, OSError):  # a torch that cannot be imported is a finding
            import torch

            torch.set_num_threads(number)
    findings = examine()
    shown = [finding for finding in findings if not quiet or finding.state != "ok"]
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in shown]))
    elif shown:
        table = table_of("check", "state", "found")
        for finding in shown:
            table.add_row(finding.name, finding.state, finding.text + (f"; {finding.cure}" if finding.cure else ""))
        show(table)
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)
