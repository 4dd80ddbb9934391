"""``disttrain verify``."""

from __future__ import annotations

from typing import Annotated

import typer

from disttrain.cli.options import Words, recipe_and_overrides
from disttrain.errors import InputError, RankError


def verify(
    words: Words = None,
    world_sizes: Annotated[str, typer.Option("--world-sizes", help="Numbers of ranks to compare.")] = "1,2,3,4",
    accumulations: Annotated[str, typer.Option("--accumulations", help="Micro-batches a rank.")] = "1,2",
    engines: Annotated[
        str, typer.Option("--engines", help="ddp, horovod (Gloo), horovod-mpi; comma-separated.")
    ] = "ddp",
    precision: Annotated[str, typer.Option("--precision", help="fp64 (bound 1e-10) or fp32 (1e-4).")] = "fp64",
    updates: Annotated[int, typer.Option("--updates", help="Updates to make in each run.")] = 20,
) -> None:
    """Show that the recipe is the same training run at any world size and accumulation; exit 4 when it is not."""
    from disttrain.config import load_recipe

    recipe = load_recipe(*recipe_and_overrides(words))
    worlds = _numbers("--world-sizes", world_sizes)
    micro = _numbers("--accumulations", accumulations)
    names = [name.strip() for name in engines.split(",")]
    for name in names:
        if name not in ("ddp", "horovod", "horovod-mpi"):
            raise InputError(f"--engines {name!r}: expected ddp, horovod or horovod-mpi")
    if precision not in ("fp64", "fp32"):
        raise InputError(f"--precision {precision!r}: expected fp64 or fp32")
    if updates < 1:
        raise InputError(f"--updates {updates}: expected at least 1")

    import tempfile
    from pathlib import Path

    from rich.console import Console

    from disttrain.verify.verify import BOUNDS, REFERENCE, possible, variants
    from disttrain.verify.verify import verify as compare

    console = Console(soft_wrap=True)
    bound = BOUNDS[precision]
    everything = variants(worlds, micro, names)
    todo = possible(recipe, everything)
    if not todo:
        raise InputError("nothing to compare: give more than one world size or accumulation")
    console.print(f"{recipe.name}: {updates} updates in {precision}, each against {REFERENCE}", highlight=False)
    for variant in everything:
        if variant not in todo:
            why = "a loss over the global batch is never cut into micro-batches"
            console.print(f"  {variant!s:40} left out: {why}", highlight=False)
    broken = []
    with tempfile.TemporaryDirectory(prefix="disttrain-verify-") as work_dir:
        for found in compare(recipe, todo, precision=precision, updates=updates, work_dir=Path(work_dir)):
            holds = found.difference <= bound and found.same_order
            broken += [] if holds else [found]
            order = "same sample order" if found.same_order else "OTHER SAMPLE ORDER"
            verdict = "ok" if holds else f"BROKEN in {found.tensor or 'the sample order'}"
            console.print(f"  {found.variant!s:40} {found.difference:10.2e}  {order}  {verdict}", highlight=False)
    if broken:
        raise RankError(
            f"the recipe is not the same run everywhere: {len(broken)} of {len(todo)} variants differ by more than {bound:g}. "
            "Batch norm over a rank's own samples (model.norm: batch) and dropout: per_rank depend on the number of ranks"
        )
    console.print(f"largest difference within {bound:g}: the same training run", highlight=False)


def _numbers(option: str, text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1 or max(numbers) > 64:
        raise InputError(f"{option} {text!r}: expected integers from 1 to 64, separated by commas")
    return numbers
