"""The console of commands that print tables."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table on standard output: as wide as the terminal, or 140 columns in a pipe, which has no width of its own.

    Cells are text as it is: in rich's markup, ``disttrain[mpi]`` would lose its brackets.
    """
    table = Table(title=Text(title), title_justify="left")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(width=None if sys.stdout.isatty() else 140, highlight=False).print(table)
