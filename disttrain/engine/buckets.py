"""Flat gradient buckets with a fixed layout, for engines that bring no reducer of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

_T = TypeVar("_T", bound=Tensor)


@dataclass
class Bucket:
    """Neighbouring parameters whose gradients live in, and travel as, one flat tensor.

    Attributes:
        index: position in the launch order.
        params: the parameters, last of the model first.
        flat: shape ``(sum of numels,)``; each ``p.grad`` is a view of it once reduced.
    """

    index: int
    params: list[nn.Parameter]
    flat: Tensor
    views: list[Tensor] = field(default_factory=list)
    ready: set[int] = field(default_factory=set)
    launched: bool = False


class GradientBuckets:
    """Calls ``launch(bucket)`` as soon as a backward has produced all gradients of a bucket.

    The layout depends on the parameters and ``cap_bytes`` alone, never on timing: past two ranks a ring adds in an order
    that depends on the layout, so a resumed run repeats the additions of the undisturbed one bit by bit.

    Args:
        params: parameters in model order; backward produces their gradients roughly from the last to the first.
        cap_bytes: a bucket is closed before it would exceed this size.
        launch: starts the exchange of one bucket's ``flat``.
    """

    def __init__(self, params: Sequence[nn.Parameter], cap_bytes: int, launch: Callable[[Bucket], None]) -> None:
        self.exchanging = True
        self._launch = launch
        trained = [p for p in params if p.requires_grad]
        self.buckets = [_bucket(i, group) for i, group in enumerate(chunks(reversed(trained), cap_bytes))]
        self._hooks = [
            param.register_post_accumulate_grad_hook(self._hook(bucket, position))  # type: ignore[no-untyped-call]
            for bucket in self.buckets
            for position, param in enumerate(bucket.params)
        ]

    def release(self) -> None:
        """Take the hooks off the parameters."""
        for hook in self._hooks:
            hook.remove()

    @property
    def begun(self) -> bool:
        """Whether a backward that exchanges has reached any of the parameters since the last :meth:`finish`."""
        return any(bucket.launched or bucket.ready for bucket in self.buckets)

    def finish(self) -> None:
        """Launch what this rank's backward did not reach (unused parameters count as zero), and make ready for the
        next step."""
        for bucket in self.buckets:
            if not bucket.launched:
                for position in range(len(bucket.params)):
                    if position not in bucket.ready:
                        self._collect(bucket, position)
                self._launch(bucket)
            bucket.ready.clear()
            bucket.launched = False

    def _hook(self, bucket: Bucket, position: int) -> Callable[[Tensor], None]:
        def on_gradient(_: Tensor) -> None:
            if not self.exchanging:
                return
            self._collect(bucket, position)
            bucket.ready.add(position)
            if len(bucket.ready) == len(bucket.params) and not bucket.launched:
                bucket.launched = True
                self._launch(bucket)

        return on_gradient

    def _collect(self, bucket: Bucket, position: int) -> None:
        """Make ``p.grad`` the bucket's view, keeping its value; ``zero_grad`` may have replaced or dropped it."""
        param, view = bucket.params[position], bucket.views[position]
        if param.grad is None:
            view.zero_()
        elif param.grad is not view:
            view.copy_(param.grad)
        param.grad = view


def chunks(tensors: Iterable[_T], cap_bytes: int) -> list[list[_T]]:
    """Neighbours of one dtype and device, together at most ``cap_bytes`` large unless one alone is larger."""
    found: list[list[_T]] = []
    size = 0
    for tensor in tensors:
        same = bool(found) and (found[-1][0].dtype, found[-1][0].device) == (tensor.dtype, tensor.device)
        if not same or size + tensor.nbytes > cap_bytes:
            found.append([])
            size = 0
        found[-1].append(tensor)
        size += tensor.nbytes
    return found


def _bucket(index: int, params: list[nn.Parameter]) -> Bucket:
    flat = torch.zeros(sum(p.numel() for p in params), dtype=params[0].dtype, device=params[0].device)
    views = [_view(v, p) for v, p in zip(torch.split(flat, [p.numel() for p in params]), params, strict=True)]
    return Bucket(index, params, flat, views)


def _view(part: Tensor, param: nn.Parameter) -> Tensor:
    """``part`` in the shape of ``param``, and in its order in memory if that is channels last."""
    if param.is_contiguous() or not param.is_contiguous(memory_format=torch.channels_last):
        return part.view_as(param)
    out, channels, height, width = param.shape
    return part.view(out, height, width, channels).permute(0, 3, 1, 2)
