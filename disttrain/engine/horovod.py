"""Horovod, with its Gloo, MPI or NCCL operations. The only module that imports horovod.

Design: hooks of our own over fixed flat buckets, each exchanged by one ``allreduce_async_``; the user's optimizer is never
touched. The alternative, ``hvd.DistributedOptimizer`` around a carrier optimizer, was set aside because it lets Horovod
fuse tensors by their time of arrival: the layout of the exchanged buffers, and past two ranks with it the order of the
additions, would then differ from run to run, and a resumed run could not be bit-identical. For the same reason Horovod's
own fusion is switched off (``HOROVOD_FUSION_THRESHOLD=0``) unless the user sets it: the buckets already do its work.
``tests/ranks`` compares this engine with one process and with DDP.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from disttrain.engine.base import Engine, Reduction
from disttrain.engine.buckets import Bucket, GradientBuckets
from disttrain.engine.exchange import Exchange
from disttrain.engine.later import Numbers
from disttrain.engine.leave import leave_without_waiting
from disttrain.engine.world import World
from disttrain.errors import InputError, RankError


def limits(seconds: int) -> dict[str, str]:
    """Horovod's variables for a limit: Gloo's connections, and a tensor that not all ranks have submitted. Its warning of the
    latter has to come earlier, or the limit would be ignored."""
    return {
        "HOROVOD_GLOO_TIMEOUT_SECONDS": str(seconds),
        "HOROVOD_STALL_CHECK_TIME_SECONDS": str(min(60, max(seconds // 2, 1))),
        "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": str(max(seconds, 2)),
    }


class HorovodEngine(Engine):
    """Joins Horovod's job.

    Args:
        world: who this rank is; must agree with what Horovod finds.
        timeout_seconds: how long ranks may wait for each other; None: as Horovod's own variables say.

    Raises:
        InputError: Horovod is not installed, or this launcher cannot start it.
        RankError: Horovod sees another world than the launcher's variables say.
    """

    name = "horovod"

    def __init__(self, world: World, *, timeout_seconds: float | None = None) -> None:
        if world.launcher == "torchrun" and world.size > 1:
            raise InputError(
                "engine horovod under torchrun: Horovod's ranks are started by horovodrun or mpirun "
                "(see launch/horovodrun.sh), or use --engine ddp"
            )
        os.environ.setdefault("HOROVOD_FUSION_THRESHOLD", "0")
        if timeout_seconds is not None:
            os.environ.update(limits(math.ceil(timeout_seconds)))
        try:
            import horovod.torch as hvd
        except ImportError as error:
            raise InputError(
                f"engine horovod: Horovod cannot be imported ({error}). Build it with launch/install-horovod.sh, "
                "or use --engine ddp"
            ) from None
        self._hvd = hvd
        self.world = world
        self._models: weakref.WeakSet[GradientBuckets] = weakref.WeakSet()
        self._prepared = 0
        self._handles: list[tuple[int, Bucket, Tensor]] = []
        self._sums = 0
        self._open = True
        hvd.init()
        if (hvd.rank(), hvd.size()) != (world.rank, world.size):
            raise RankError(
                f"Horovod sees rank {hvd.rank()} of {hvd.size()}, the launcher says {world.rank} of {world.size}: "
                "it was built for another controller than the one that started this job (horovodrun --check-build)"
            )

    def wrap(self, model: nn.Module, *, static_graph: bool, exchange: Exchange) -> nn.Module:
        adasum = exchange.reduction == "adasum" and self.world.size > 1
        if adasum and not self._hvd.mpi_enabled():
            raise InputError(
                "communication.reduction adasum needs Horovod's MPI controller: start with horovodrun --mpi or mpirun"
            )
        # Adasum compares gradients parameter by parameter, so each gets a bucket of its own.
        size = 0 if adasum else int(exchange.bucket_mb * 2**20)
        self._prepared += 1
        launch = partial(self._launch, f"disttrain.bucket.{self._prepared}", exchange)
        self._models.add(GradientBuckets(list(model.parameters()), size, launch))  # the model's hooks keep it
        return model

    def detach(self, model: nn.Module) -> None:
        mine = {id(p) for p in model.parameters()}
        for buckets in [m for m in self._models if any(id(p) in mine for b in m.buckets for p in b.params)]:
            buckets.release()
            self._models.discard(buckets)

    def _launch(self, name: str, exchange: Exchange, bucket: Bucket) -> None:
        wire = bucket.flat
        if exchange.compression == "fp16":
            wire = bucket.flat.to(torch.float16)
        op = self._hvd.Sum
        if exchange.reduction == "adasum" and self.world.size > 1:
            # Parts of the global mean become the means of the ranks, which is what Adasum is defined on.
            wire.mul_(self.world.size)
            op = self._hvd.Adasum
        handle = self._hvd.allreduce_async_(wire, op=op, name=f"{name}.{bucket.index}")
        self._handles.append((handle, bucket, wire))

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        models = list(self._models)
        for model in models:
            model.exchanging = last
        try:
            yield
        finally:
            for model in models:
                model.exchanging = True

    def reduce_gradients(self) -> None:
        for model in [m for m in self._models if m.begun]:
            model.finish()
        for handle, bucket, wire in self._handles:
            self._hvd.synchronize(handle)
            if wire is not bucket.flat:
                bucket.flat.copy_(wire)
        self._handles.clear()

    def all_reduce(self, tensor: Tensor, op: Reduction = "sum") -> Tensor:
        if tensor.dtype in (torch.bfloat16, torch.bool):  # Horovod on CPU has neither
            wide = torch.float32 if tensor.is_floating_point() else torch.int32
            return tensor.copy_(self.all_reduce(tensor.to(wide), op))
        kinds = {"sum": self._hvd.Sum, "max": self._hvd.Max, "min": self._hvd.Min}
        result: Tensor = self._hvd.allreduce_(tensor, op=kinds[op], name=f"disttrain.{op}")
        return result

    def sum_later(self, values: Tensor) -> Numbers:
        # Horovod refuses two exchanges of one name at the same time.
        self._sums += 1
        handle = self._hvd.allreduce_async_(values, op=self._hvd.Sum, name=f"disttrain.later.{self._sums % 64}")

        def numbers() -> list[float]:
            found: list[float] = self._hvd.synchronize(handle).tolist()
            return found

        return numbers

    def broadcast(self, tensor: Tensor, root: int = 0) -> Tensor:
        result: Tensor = self._hvd.broadcast_(tensor, root, name="disttrain.broadcast")
        return result

    def all_gather_object(self, value: Any) -> list[Any]:
        result: list[Any] = self._hvd.allgather_object(value, name="disttrain.gather")
        return result

    def broadcast_object(self, value: Any) -> Any:
        return self._hvd.broadcast_object(value, 0, name="disttrain.object")

    def close(self) -> None:
        if self._open:
            self._open = False
            self.barrier("close")
            self._hvd.shutdown()

    def abort(self) -> None:
        """Announce the shutdown, so that the others' pending exchanges fail at once, but do not wait for them."""
        self._open = False
        farewell = threading.Thread(target=self._hvd.shutdown, daemon=True)
        farewell.start()
        farewell.join(timeout=2.0)
        leave_without_waiting()

    def lost_peer(self, error: BaseException) -> bool:
        from horovod.common.exceptions import HorovodInternalError

        return isinstance(error, HorovodInternalError)
