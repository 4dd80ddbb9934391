"""Stored weights: found, checked, and given to a model on all ranks."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from disttrain.checkpoint import Checkpoint, load_latest
from disttrain.engine.agreement import on_main
from disttrain.engine.base import Engine
from disttrain.errors import CheckpointError
from disttrain.inference.prepared import Prepared


def read(engine: Engine, run_dir: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest valid checkpoint, on rank 0 (None elsewhere), and what was wrong with newer ones.

    Raises:
        NoCheckpointError: on all ranks, when there is none.
    """
    found: list[Checkpoint] = []

    def load() -> list[str]:
        checkpoint, _, refused = load_latest(run_dir)
        found.append(checkpoint)
        return [reason for _, reason in refused]

    refused: list[str] = on_main(engine, load)
    return (found[0] if found else None), refused


def load_weights(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Give ``model`` stored weights.

    Raises:
        CheckpointError: they are not the model's in names and shapes, or not finite.
    """
    mine = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    odd = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
    if odd:
        name = odd[0]
        raise CheckpointError(
            f"{len(odd)} tensors are not those of this recipe's model: {name} is {theirs.get(name, 'missing')} there and "
            f"{mine.get(name, 'missing')} here"
        )
    broken = sorted(name for name, tensor in weights.items() if not bool(tensor.isfinite().all()))
    if broken:
        raise CheckpointError(f"{len(broken)} tensors of the model are not finite, {broken[0]} for one")
    model.load_state_dict(weights)


def restore_weights(ready: Prepared, checkpoint: Checkpoint | None, *, averaged: bool) -> None:
    """Give all ranks the weights of ``checkpoint`` (given on rank 0).

    Args:
        averaged: take the averages of those parameters that have one, as evaluation does.

    Raises:
        CheckpointError: on all ranks: they are not those of the recipe's model, or not finite.
    """

    def load() -> None:
        assert checkpoint is not None
        load_weights(ready.model, stored_weights(checkpoint, averaged=averaged))

    on_main(ready.engine, load)
    ready.engine.broadcast_tensors(ready.model.state_dict().values())


def stored_weights(checkpoint: Checkpoint, *, averaged: bool) -> dict[str, Tensor]:
    """The tensors of a checkpoint's model by name.

    Args:
        averaged: take the averages of those parameters that have one, as evaluation does.

    Raises:
        CheckpointError: the averages are not what disttrain writes.
    """
    weights = dict(checkpoint.model)
    for name, tensor in (averages(checkpoint) if averaged else {}).items():
        weights[name] = tensor.to(weights[name].dtype) if name in weights else tensor
    return weights


def averages(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The averaged parameters by name; none where the run keeps none.

    Raises:
        CheckpointError: they are not what disttrain writes.
    """
    try:
        weights = checkpoint.state["methods"].get("average", {"weights": {}})["weights"]
    except (AttributeError, KeyError, TypeError):
        weights = None
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise CheckpointError("the checkpoint's average is not what disttrain writes")
    return weights
