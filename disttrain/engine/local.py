"""The one-process engine: a real engine, so that no loop needs to ask whether it is distributed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from disttrain.engine.base import Engine, Reduction
from disttrain.engine.exchange import Exchange
from disttrain.engine.world import World


class LocalEngine(Engine):
    """One rank: every collective is the identity."""

    name = "local"

    def __init__(self, world: World) -> None:
        self.world = world

    def wrap(self, model: nn.Module, *, static_graph: bool, exchange: Exchange) -> nn.Module:
        return model

    def accumulating(self, last: bool) -> AbstractContextManager[object]:
        return nullcontext()

    def reduce_gradients(self) -> None:
        return

    def all_reduce(self, tensor: Tensor, op: Reduction = "sum") -> Tensor:
        return tensor

    def broadcast(self, tensor: Tensor, root: int = 0) -> Tensor:
        return tensor

    def all_gather_object(self, value: Any) -> list[Any]:
        return [value]

    def broadcast_object(self, value: Any) -> Any:
        return value

    def close(self) -> None:
        return

    def abort(self) -> None:
        return

    def lost_peer(self, error: BaseException) -> bool:
        return False
