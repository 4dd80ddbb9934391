"""Numbers that are asked for later, so that the host does not wait for them now."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Numbers = Callable[[], list[float]]
"""Waits until the numbers have arrived, and gives them."""


def later(values: Tensor) -> Numbers:
    """The numbers of ``values`` (1-D) as they are now: a copy begins, and the device goes on with what it is given next.

    Asking a CUDA tensor itself would wait for everything queued until then.
    """
    if values.device.type != "cuda":
        return values.clone().tolist
    copy = values.to("cpu", non_blocking=True)  # torch makes it a copy to pinned memory
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record(torch.cuda.current_stream(values.device))

    def numbers() -> list[float]:
        copied.synchronize()
        found: list[float] = copy.tolist()
        return found

    return numbers
