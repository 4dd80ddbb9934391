"""``disttrain data``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Get data.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Get data."""


@app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="fashion_mnist or mnist.")],
    to: Annotated[Path, typer.Option("--to", help="Directory to put the files in.")],
) -> None:
    """Download a data set and verify its checksums; files that are already there and right are kept."""
    from disttrain.data.fetch import SOURCES
    from disttrain.data.fetch import fetch as download
    from disttrain.errors import InputError

    if name not in SOURCES:
        raise InputError(f"no data set is called {name!r}: expected one of {', '.join(SOURCES)}")

    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn()) as bar:
        tasks = {file.name: bar.add_task(file.name, total=file.num_bytes) for file in SOURCES[name].files}

        def show(file: str, done: int, _total: int) -> None:
            bar.update(tasks[file], completed=done)

        paths = download(name, to, progress=show)
    for path in paths:
        print(path)
