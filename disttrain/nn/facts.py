"""What a model says of itself, by what it is made of: facts that a recipe's text can get wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import nn

from disttrain.nn.dropout import Drawn
from disttrain.nn.ghost_norm import GhostBatchNorm
from disttrain.nn.sync_norm import SyncBatchNorm


class ModelFacts(NamedTuple):
    """What a trainer has to know of a model.

    Attributes:
        ghost_size: samples that share batch norm's statistics, so that a batch is cut between them only; 1 without ghosts.
        sync_norm: whether a forward exchanges statistics, so that every rank must take part in it.
        over_global_batch: whether the loss that it is trained by sees the global batch at once: a task says so.
        rank_dependent: in words, what makes its training depend on the number of ranks.
    """

    ghost_size: int = 1
    sync_norm: bool = False
    rank_dependent: tuple[str, ...] = ()
    over_global_batch: bool = False


def model_facts(model: nn.Module) -> ModelFacts:
    """Read the modules of ``model``. Functional dropout is no module and is not seen.

    Raises:
        ValueError: ghost batch norm layers of several ghost sizes.
    """
    sizes = {m.ghost_size for m in model.modules() if isinstance(m, GhostBatchNorm)}
    if len(sizes) > 1:
        named = ", ".join(str(size) for size in sorted(sizes))
        raise ValueError(
            f"the model has ghost batch norm with ghosts of {named} samples; expected one size in all layers"
        )
    sync = any(isinstance(m, SyncBatchNorm) for m in model.modules())
    return ModelFacts(max(sizes, default=1), sync, tuple(_rank_dependent(model)))


def _rank_dependent(model: nn.Module) -> Iterator[str]:
    exact = (GhostBatchNorm, SyncBatchNorm, nn.SyncBatchNorm)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and not isinstance(m, exact)]
    if norms:
        yield f"batch norm over a rank's own samples ({len(norms)} layers)"
    drops = [m for m in model.modules() if _drops(m) and not isinstance(m, Drawn)]
    if drops:
        yield f"dropout from each rank's own generator ({len(drops)} layers)"


def _drops(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0.0
    return isinstance(module, (nn.MultiheadAttention, nn.RNNBase)) and module.dropout > 0.0
