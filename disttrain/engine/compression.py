"""Gradient compression of torch DDP, and what it remembers from one update to the next."""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from disttrain.engine.exchange import Exchange

log = logging.getLogger("disttrain")


class Memory:
    """Remembers nothing: every compression but PowerSGD."""

    def state_dict(self) -> dict[str, Any]:
        """This rank's memory."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what an earlier process remembered."""
        return  # remembers nothing


class PowerSGDMemory(Memory):
    """What PowerSGD (Vogels et al. 2019, arXiv:1905.13727) left out so far (the error, one for each rank) and its factors
    (the same on all ranks), for each of DDP's buckets."""

    def __init__(self, state: powerSGD_hook.PowerSGDState, exchange: Exchange, device: torch.device) -> None:
        self._state, self._device = state, device
        self._layout = {"rank": exchange.powersgd_rank, "bucket_mb": exchange.bucket_mb}

    def _tables(self) -> dict[str, dict[int, Tensor]]:
        state = self._state
        return {"error": state.error_dict, "p": state.p_memory_dict, "q": state.q_memory_dict}

    def state_dict(self) -> dict[str, Any]:
        return {**self._layout, "updates": self._state.iter, **self._tables()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if not state:
            return
        if any(state[name] != value for name, value in self._layout.items()):
            log.warning(
                "PowerSGD has another rank or buckets than before: what it had left out of the gradients is dropped"
            )
            return
        for name, table in self._tables().items():
            table.clear()
            table.update({bucket: tensor.to(self._device) for bucket, tensor in state[name].items()})
        self._state.iter = state["updates"]


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
            # Low-rank from the third iteration on: the first two are rehearsals, in which DDP still moves its buckets.
            state = powerSGD_hook.PowerSGDState(
                None, matrix_approximation_rank=exchange.powersgd_rank, start_powerSGD_iter=3
            )
            model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
            return PowerSGDMemory(state, exchange, next(model.parameters()).device)
    return Memory()


def _bf16_hook(_, bucket):  # type: ignore[no-untyped-def]  # DDP refuses annotations that are strings
    """torch's own is refused without NCCL, although Gloo adds bfloat16 too."""
    gradient = bucket.buffer()
    wire = gradient.to(torch.bfloat16).div_(dist.get_world_size())
    exchange = dist.all_reduce(wire, async_op=True)
    assert exchange is not None
    return exchange.get_future().then(lambda sent: gradient.copy_(sent.value()[0]))
