"""Tables on stdout and hints on stderr, for terminals and pipes; nothing here is slow to import."""

import os
import sys

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

#: Columns where output goes to a file or a pipe: enough for every row to be one line.
PIPED_WIDTH = 1000


def hint(line: str) -> None:
    """One line on stderr."""
    print(line, file=sys.stderr)


def pairs_table() -> Table:
    """A table of names and what they are."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def table_of(*columns: str) -> Table:
    """A table with a head."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def fits(table: Table) -> bool:
    """Whether a table can be shown without folding a cell."""
    console = new_console()
    return Measurement.get(console, console.options.update(width=PIPED_WIDTH), table).maximum <= console.width


def show(table: Table) -> None:
    """Print a table, an empty line before one with a head, and no blanks at the ends of lines."""
    console = new_console()
    with console.capture() as captured:
        console.print(table)
    if table.show_header:
        print()
    for line in captured.get().splitlines():
        print(line.rstrip())


def new_console() -> Console:
    """Where tables are laid out, as wide as what reads them."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_WIDTH
    return console
