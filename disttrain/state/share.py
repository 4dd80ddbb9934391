"""A tree of state (nested dicts, lists, tensors and plain values) on its way between rank 0 and all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from disttrain.checkpoint import flatten, unflatten
from disttrain.engine.base import Engine
from disttrain.errors import CheckpointError

_WHERE = Path("the state of the run")
_Specs = dict[str, tuple[tuple[int, ...], torch.dtype]]


def share(engine: Engine, tree: Any) -> Any:
    """Rank 0's tree on all ranks; ``tree`` is looked at on rank 0 only. Scalars stay on the CPU, as torch's optimizers keep
    their step counters; other tensors come to the device."""
    plain, tensors = flatten(tree) if engine.world.is_main else (None, {})
    plain, specs = engine.broadcast_object((plain, _specs(tensors)))
    return unflatten(plain, _travel(engine, tensors, specs, root=0), _WHERE)


def gather(engine: Engine, tree: Any) -> list[Any]:
    """Every rank's tree, in rank order, on the CPU of rank 0. Tensors pass through all ranks, one rank's at a time."""
    plain, tensors = flatten(tree)
    trees = []
    for root, (described, specs) in enumerate(engine.all_gather_object((plain, _specs(tensors)))):
        sent = _travel(engine, tensors, specs, root)
        trees.append(
            unflatten(described, {k: t.cpu() for k, t in sent.items()}, _WHERE) if engine.world.is_main else None
        )
    return trees


def scatter(engine: Engine, trees: Sequence[Any] | None) -> Any:
    """The tree that rank 0 has for this rank; one rank's at a time."""
    mine = None
    for rank in range(engine.world.size):
        sent = share(engine, trees[rank] if trees is not None else None)
        mine = sent if rank == engine.world.rank else mine
    return mine


def mean(trees: Sequence[Any]) -> Any:
    """A tree like the first, each tensor the mean of all trees'.

    Raises:
        CheckpointError: their tensors differ in name, shape or dtype.
    """
    plain, first = flatten(trees[0])
    tensors = [flatten(tree)[1] for tree in trees]
    if any(_specs(t) != _specs(first) for t in tensors):
        raise CheckpointError("the states of the ranks differ in their tensors")
    return unflatten(plain, {name: torch.stack([t[name] for t in tensors]).mean(0) for name in first}, _WHERE)


def _specs(tensors: dict[str, Tensor]) -> _Specs:
    return {name: (tuple(t.shape), t.dtype) for name, t in tensors.items()}


def _travel(engine: Engine, tensors: dict[str, Tensor], specs: _Specs, root: int) -> dict[str, Tensor]:
    """The tensors of rank ``root`` on all ranks."""
    device = engine.world.device
    if engine.world.rank == root:
        moved = {n: t.detach().to(device if t.dim() else "cpu").contiguous() for n, t in tensors.items()}
    else:
        moved = {n: torch.empty(s, dtype=d, device=device if s else "cpu") for n, (s, d) in specs.items()}
    engine.broadcast_tensors(moved.values(), root)
    return moved
