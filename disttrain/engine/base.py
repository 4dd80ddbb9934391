"""The engine: how gradients, metrics and small objects travel between ranks. One interface, three implementations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from disttrain.engine.agreement import require_agreement
from disttrain.engine.buckets import chunks
from disttrain.engine.exchange import Exchange, Memory, check_exchange
from disttrain.engine.gather import gather, positions
from disttrain.engine.later import Numbers, later
from disttrain.engine.world import World
from disttrain.errors import InputError, PeerLostError

DEFAULT_EXCHANGE = Exchange()
Reduction = Literal["sum", "max", "min"]


class Engine(ABC):
    """Collectives and the gradient exchange of one job.

    The contract of a step, the same on every engine::

        optimizer.zero_grad()
        for i, micro_batch in enumerate(micro_batches):
            with engine.accumulating(last=i == len(micro_batches) - 1):
                engine.backward(per_sample_losses(model, micro_batch), scale=1 / global_count)
        engine.reduce_gradients()      # p.grad is now the gradient of the mean over the global batch, on all ranks
        optimizer.step()

    Used as a context manager it closes itself, and on an exception lets the other ranks notice within seconds.
    """

    name: str
    world: World
    phase = "starting up"
    """What this rank is doing, in words for an error message; set by whoever drives the engine."""
    multiplier = 1.0
    """What :meth:`backward` multiplies gradients with besides its ``scale``, and :meth:`reduce_gradients` takes off again."""
    rehearsals = 0
    """Backward passes after which the exchange has settled its buffer layout (see ``training/rehearse.py``)."""
    memory: Memory = Memory()
    """What the gradient exchange of this rank remembers; to be loaded when the rehearsal is over."""

    @abstractmethod
    def wrap(self, model: nn.Module, *, static_graph: bool, exchange: Exchange) -> nn.Module:
        """Attach the gradient exchange to a model that already sits on the device with rank 0's state. It is that of the
        parameters that require a gradient now; before others do, :meth:`detach` it and wrap the model again."""

    def detach(self, model: nn.Module) -> None:
        """Take the exchange off what :meth:`wrap` returned; its parameters keep no hook of it."""
        return  # one rank attaches none

    @abstractmethod
    def accumulating(self, last: bool) -> AbstractContextManager[object]:
        """Around forward and backward of one micro-batch: gradients travel in the last one only."""

    def alone(self, wrapped: nn.Module) -> AbstractContextManager[object]:
        """Forward and backward of the module in ``wrapped`` exchange nothing here; compilers see what they do in training."""
        return self.accumulating(last=False)

    def backward(self, losses: Tensor, scale: float = 1.0, *, items: int | None = None) -> None:
        """Backward of ``scale * losses.sum()``, this rank's part of the loss whose gradient all ranks are to have.

        For the mean over the global batch, ``losses`` are those of this rank's items, of any shape, and ``scale`` is
        one over the count of the whole global batch. Neither the sum nor the product is computed: they are the
        gradient that backward starts with.

        Args:
            items: how many losses there must be, where the caller knows.

        Raises:
            InputError: ``losses`` is a single number, such as a mean, or not as many as ``items``.
        """
        if losses.dim() == 0 or (items is not None and losses.numel() != items):
            wanted = "one number for each item" if items is None else f"{items:,} numbers, one for each item"
            raise InputError(
                f"the losses are of shape {tuple(losses.shape)}; expected {wanted}, not their mean or sum: "
                'a torch loss function with reduction="none" gives them'
            )
        losses.backward(torch.full_like(losses, scale * self.multiplier))  # type: ignore[no-untyped-call]

    @abstractmethod
    def reduce_gradients(self) -> None:
        """Finish the exchange begun in the last backward. Afterwards each ``p.grad`` is the sum of the ranks' parts.

        Of several prepared models, those take part that the last backward went through; the others keep their gradients.
        """

    @abstractmethod
    def all_reduce(self, tensor: Tensor, op: Reduction = "sum") -> Tensor:
        """Reduce ``tensor`` over all ranks, in place, and return it. CPU tensors do not touch the accelerator."""

    def gather(self, tensor: Tensor) -> Tensor:
        """``(rows of all ranks, ...)``: the rows of ``tensor`` ``(n, ...)`` of every rank, in rank order, on all ranks.

        Differentiable, and exact: backward adds up the gradients of all ranks and returns each its rows. ``n`` may differ from
        rank to rank and be 0. Every rank has to call it, and backward through it, the same times in the same order.
        :class:`disttrain.GlobalBatch` does the same for a batch of a loader without asking for the ranks' ``n``.

        Raises:
            RankError: on all ranks: their rows differ in shape or dtype.
        """
        first, total = positions(self, tensor)
        return gather(self, tensor, first, total)

    def sum_later(self, values: Tensor) -> Numbers:
        """Begin to add up ``values`` (1-D) over all ranks; calling what is returned gives the sums.

        Work that is given to the device or to other collectives in between is not held up, neither by the exchange nor
        by the copy to the host. ``values`` belongs to the engine from then on.
        """
        return later(self.all_reduce(values))

    @abstractmethod
    def broadcast(self, tensor: Tensor, root: int = 0) -> Tensor:
        """Copy the ``tensor`` of rank ``root`` into everybody's, in place, and return it."""

    @abstractmethod
    def all_gather_object(self, value: Any) -> list[Any]:
        """Every rank's ``value`` (picklable, small), in rank order."""

    @abstractmethod
    def broadcast_object(self, value: Any) -> Any:
        """Rank 0's ``value`` (picklable, small)."""

    @abstractmethod
    def close(self) -> None:
        """Leave the job in good order. Safe to call twice."""

    @abstractmethod
    def abort(self) -> None:
        """Leave the job because of an error: never wait for other ranks, and let them notice."""

    @abstractmethod
    def lost_peer(self, error: BaseException) -> bool:
        """Whether ``error`` is only the consequence of another rank going away."""

    def prepare(
        self, model: nn.Module, *, static_graph: bool = False, exchange: Exchange = DEFAULT_EXCHANGE
    ) -> nn.Module:
        """Move ``model`` to this rank's device, give it rank 0's parameters and buffers, and attach the exchange.

        Args:
            model: the same module on every rank.
            static_graph: promise that every step uses the same parameters in the same way (DDP can then overlap better).
            exchange: how gradients travel.

        Raises:
            InputError: this engine cannot exchange gradients that way.
            RankError: the ranks' models differ in names, shapes or dtypes; the message says where.
        """
        check_exchange(exchange, self.name, self.world.size)
        return self.wrap(self.place(model), static_graph=static_graph, exchange=exchange)

    def place(self, model: nn.Module) -> nn.Module:
        """Move ``model`` to this rank's device and give it rank 0's parameters and buffers: what inference needs.

        Raises:
            RankError: the ranks' models differ in names, shapes or dtypes; the message says where.
        """
        model = model.to(self.world.device)
        require_agreement(self, {"model": describe_tensors(model.state_dict())})
        self.broadcast_tensors(model.state_dict().values())
        return model

    def unwrap(self, model: nn.Module) -> nn.Module:
        """The user's own module inside what :meth:`prepare` returned."""
        return model

    def broadcast_tensors(self, tensors: Iterable[Tensor], root: int = 0) -> None:
        """Give all ranks the values of rank ``root``, in place; tensors of one dtype and device travel together."""
        if self.world.size == 1:
            return
        by_kind = sorted((t.detach() for t in tensors), key=lambda t: (str(t.dtype), str(t.device)))
        for chunk in chunks(by_kind, 256 * 2**20):
            flat = torch.cat([t.reshape(-1) for t in chunk])
            self.broadcast(flat, root)
            _copy_flat(flat, chunk)

    def average_batch_norm(self, model: nn.Module) -> None:
        """Make batch norm's running statistics the mean over ranks, in place: one flat all-reduce, and none when the
        model keeps no such statistics. Call it before an evaluation and before a checkpoint."""
        if self.world.size == 1:
            return
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
        buffers = [b for m in norms for b in (m.running_mean, m.running_var) if b is not None]
        if buffers:
            flat = torch.cat([b.reshape(-1) for b in buffers])
            self.all_reduce(flat)
            _copy_flat(flat.div_(self.world.size), buffers)

    def barrier(self, name: str) -> None:
        """Wait until every rank has reached the barrier called ``name``; ranks waiting at different ones are an error."""
        require_agreement(self, {"barrier": {"name": name}})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        self.abort()
        if self.lost_peer(error):
            raise PeerLostError(f"rank {self.world.rank} stopped: another rank went away first") from None


def describe_tensors(tensors: dict[str, Tensor]) -> dict[str, str]:
    """``name -> "float32[64, 3, 7, 7]"``: what must be the same on every rank before any of them is sent."""
    return {name: f"{str(t.dtype).removeprefix('torch.')}{list(t.shape)}" for name, t in tensors.items()}


def _copy_flat(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for part, tensor in zip(torch.split(flat, [t.numel() for t in tensors]), tensors, strict=True):
            tensor.copy_(part.view_as(tensor))
