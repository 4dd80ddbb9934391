"""torch DistributedDataParallel: NCCL for CUDA tensors, Gloo for CPU tensors. The only user of torch.distributed's
process group.

Two decisions are worth knowing:

- A CUDA job also has a Gloo backend. Flags, objects and barriers travel as CPU tensors, so that none of them makes the
  host wait for the GPU.
- DDP divides the summed gradient by the number of ranks. Our loss is already divided by the count of the whole global
  batch, so ``multiplier``, which backward multiplies with, is the number of ranks, which DDP's division undoes.
"""

from __future__ import annotations

import datetime
import inspect
import time
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from disttrain.engine.base import Engine, Reduction
from disttrain.engine.compression import REHEARSALS, attach_compression
from disttrain.engine.exchange import Exchange
from disttrain.engine.later import Numbers
from disttrain.engine.leave import leave_without_waiting
from disttrain.engine.rendezvous import rendezvous
from disttrain.engine.world import World
from disttrain.errors import InputError

# torch 2.13 renamed the flag and warns about the old name.
_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
_NO_BUFFER_SYNC: dict[str, Any] = {"forward_sync_buffers" if _RENAMED else "broadcast_buffers": False}
_OPS = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX, "min": dist.ReduceOp.MIN}


class DDPEngine(Engine):
    """Joins (and owns) the default process group of this job.

    Args:
        world: who this rank is; ``world.device`` chooses NCCL with Gloo, or Gloo alone.
        timeout_seconds: how long a collective may wait for a peer before it fails.
    """

    name = "ddp"
    rehearsals = 2  # buckets are laid out anew after the first backward; with static_graph, after the second

    def __init__(self, world: World, *, timeout_seconds: float = 600.0) -> None:
        self.world = world
        self.multiplier = float(world.size)
        self._models: weakref.WeakSet[DistributedDataParallel] = weakref.WeakSet()
        if dist.is_initialized():
            raise InputError(
                "torch.distributed is initialised already in this process: leave that to disttrain (engine = disttrain.init(), "
                "then disttrain.train(..., engine=engine)), or call torch.distributed.destroy_process_group() before"
            )
        cuda = world.device.type == "cuda"
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=rendezvous(world, timeout_seconds),
            rank=world.rank,
            world_size=world.size,
            timeout=datetime.timedelta(seconds=timeout_seconds),
            device_id=world.device if cuda else None,
        )

    def wrap(self, model: nn.Module, *, static_graph: bool, exchange: Exchange) -> nn.Module:
        if not any(p.requires_grad for p in model.parameters()):
            return model
        wrapped = DistributedDataParallel(
            model,
            device_ids=[self.world.device] if self.world.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            static_graph=static_graph,
            bucket_cap_mb=exchange.bucket_mb,
            init_sync=False,  # prepare() has compared shapes and dtypes and sent rank 0's state
            # Running statistics are averaged before they are used, not overwritten by rank 0's in every forward.
            **_NO_BUFFER_SYNC,
        )
        self._models.add(wrapped)
        self.memory = attach_compression(wrapped, exchange)
        if exchange.compression == "powersgd":
            self.rehearsals = REHEARSALS
        return wrapped

    def detach(self, model: nn.Module) -> None:
        if isinstance(model, DistributedDataParallel):
            model._remove_autograd_hooks()  # type: ignore[no-untyped-call]
            self._models.discard(model)

    def unwrap(self, model: nn.Module) -> nn.Module:
        return model.module if isinstance(model, DistributedDataParallel) else model

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        with ExitStack() as leave:
            for model in () if last else self._models:
                leave.enter_context(model.no_sync())
            yield

    def alone(self, wrapped: nn.Module) -> AbstractContextManager[object]:
        # Inside of DDP's forward torch.compile cuts the graph at DDP's buckets; without a forward of DDP's, its hooks do nothing.
        return wrapped._inside_ddp_forward() if isinstance(wrapped, DistributedDataParallel) else nullcontext()

    def reduce_gradients(self) -> None:
        return  # DDP's last backward has waited for its buckets

    def all_reduce(self, tensor: Tensor, op: Reduction = "sum") -> Tensor:
        dist.all_reduce(tensor, _OPS[op])
        return tensor

    def sum_later(self, values: Tensor) -> Numbers:
        if values.device.type == "cuda":
            return super().sum_later(values)  # NCCL's all-reduce is only queued
        exchange = dist.all_reduce(values, async_op=True)
        assert exchange is not None

        def numbers() -> list[float]:
            exchange.wait()
            return values.tolist()

        return numbers

    def broadcast(self, tensor: Tensor, root: int = 0) -> Tensor:
        dist.broadcast(tensor, root)
        return tensor

    def all_gather_object(self, value: Any) -> list[Any]:
        everyone: list[Any] = [None] * self.world.size
        dist.all_gather_object(everyone, value)
        return everyone

    def broadcast_object(self, value: Any) -> Any:
        box = [value]
        dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
        return box[0]

    def close(self) -> None:
        if not dist.is_initialized():
            return
        dist.barrier()  # nobody leaves, and takes the store along, while others still need it
        # Gloo's threads free the tensors of a finished collective, and need the interpreter for that. One that has to
        # wait for it while the interpreter shuts down aborts the process (seen in one exit of four), so let them in now.
        time.sleep(0.02)
        dist.destroy_process_group()

    def abort(self) -> None:
        leave_without_waiting()

    def lost_peer(self, error: BaseException) -> bool:
        if isinstance(error, dist.DistError):
            return True
        # Gloo reports a lost connection as a plain RuntimeError that starts with its own source file.
        return isinstance(error, RuntimeError) and any(s in str(error) for s in ("gloo/", "Gloo ", "NCCL error"))
