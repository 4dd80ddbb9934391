"""The console of commands that print tables."""

from __future__ import annotations

import sys

from rich.console import Console


def console() -> Console:
    """As wide as the terminal; a pipe has no width of its own, and a table that is cut off explains nothing."""
    return Console(width=None if sys.stdout.isatty() else 140, highlight=False)
