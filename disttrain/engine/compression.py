"""Gradient compression of torch DDP, and what it remembers from one update to the next."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from disttrain.engine.exchange import Exchange, Memory
from disttrain.errors import CheckpointError

log = logging.getLogger("disttrain")
REHEARSALS = 3
"""Passes until DDP's buckets have their final layout and every one of them has been seen in it."""
_STATE = {"rank", "updates", "buckets", "error", "p", "q"}


class PowerSGDMemory(Memory):
    """What PowerSGD (Vogels et al. 2019, arXiv:1905.13727) left out so far (the error, one for each rank) and its factors
    (the same on all ranks), for each of DDP's buckets."""

    def __init__(self, rank: int, device: torch.device) -> None:
        self._device = device
        # Low rank from the first update on: before it are rehearsals, in which DDP still moves its buckets.
        self._state = powerSGD_hook.PowerSGDState(None, matrix_approximation_rank=rank, start_powerSGD_iter=REHEARSALS)
        self._buckets: dict[int, list[list[int]]] = {}
        self._sent: torch.futures.Future[Tensor] | None = None

    def hook(self, bucket):  # type: ignore[no-untyped-def]  # DDP refuses annotations that are strings
        """DDP's communication hook."""
        self._buckets[bucket.index()] = [list(gradient.shape) for gradient in bucket.gradients()]
        if self._sent is not None and self._device.type == "cpu":
            # torch's hook waits for one exchange within the callback of another. Two buckets of it take up both of Gloo's
            # threads and wait for ever, so one bucket is under way at a time.
            self._sent.wait()
        self._sent = powerSGD_hook.powerSGD_hook(self._state, bucket)
        return self._sent

    def state_dict(self) -> dict[str, Any]:
        state = self._state
        rank, tables = state.matrix_approximation_rank, self._tables()
        return {"rank": rank, "updates": state.iter, "buckets": dict(self._buckets), **tables}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what an earlier process remembered; the layout of the buckets must be final.

        Raises:
            CheckpointError: it is not what this class writes.
        """
        if not state:
            return
        if state.keys() != _STATE or type(state["updates"]) is not int:
            raise CheckpointError("PowerSGD's memory is not what disttrain writes")
        if (state["rank"], state["buckets"]) != (self._state.matrix_approximation_rank, self._buckets):
            log.warning(
                "PowerSGD has another rank or buckets than before: what it had left out of the gradients is dropped"
            )
            return
        for name, table in self._tables().items():
            self._check(name, state[name])
            table.clear()
            table.update({bucket: tensor.to(self._device) for bucket, tensor in state[name].items()})
        self._state.iter = state["updates"]

    def _tables(self) -> dict[str, dict[int, Tensor]]:
        state = self._state
        return {"error": state.error_dict, "p": state.p_memory_dict, "q": state.q_memory_dict}

    def _check(self, name: str, table: Any) -> None:
        sizes = {bucket: (self._numel(name, shapes),) for bucket, shapes in self._buckets.items()}
        if not isinstance(table, dict) or table.keys() - sizes.keys():
            raise CheckpointError(f"PowerSGD's memory ({name}) is not of these buckets")
        for bucket, tensor in table.items():
            if not isinstance(tensor, Tensor) or tuple(tensor.shape) != sizes[bucket] or not tensor.isfinite().all():
                raise CheckpointError(f"PowerSGD's memory ({name}) does not fit bucket {bucket}, or is not finite")

    def _numel(self, name: str, shapes: list[list[int]]) -> int:
        """Numbers that torch's hook keeps for a bucket: it compresses those matrices where that saves enough."""
        total = 0
        for shape in shapes:
            rows, columns = shape[0], math.prod(shape[1:])
            rank = min(rows, columns, self._state.matrix_approximation_rank)
            saves = (rows + columns) * rank * self._state.min_compression_rate < rows * columns
            total += {"error": rows * columns, "p": rows * rank * saves, "q": columns * rank * saves}[name]
        return total


def attach_compression(model: DistributedDataParallel, exchange: Exchange) -> Memory:
    """Compress gradients on the wire as ``exchange`` says."""
    match exchange.compression:
        case "none":
            pass
        case "fp16":
            model.register_comm_hook(None, default_hooks.fp16_compress_hook)
        case "bf16":
            model.register_comm_hook(None, _bf16_hook)
        case "powersgd":
            memory = PowerSGDMemory(exchange.powersgd_rank, next(model.parameters()).device)
            model.register_comm_hook(memory, PowerSGDMemory.hook)
            return memory
    return Memory()


def _bf16_hook(_, bucket):  # type: ignore[no-untyped-def]  # DDP refuses annotations that are strings
    """torch's own is refused without NCCL, although Gloo adds bfloat16 too."""
    gradient = bucket.buffer()
    wire = gradient.to(torch.bfloat16).div_(dist.get_world_size())
    exchange = dist.all_reduce(wire, async_op=True)
    assert exchange is not None
    return exchange.get_future().then(lambda sent: gradient.copy_(sent.value()[0]))
