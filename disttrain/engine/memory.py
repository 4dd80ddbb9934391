"""Running out of memory: how it shows itself, and how it is said."""

from __future__ import annotations

import gc
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from disttrain.engine.blame import headline
from disttrain.errors import OutOfMemoryError

_SIGNS = ("out of memory", "can't allocate memory", "DefaultCPUAllocator", "ALLOC_FAILED")
"""In the text of a plain RuntimeError: of CUDA itself, of torch's CPU allocator, of cuBLAS and cuDNN."""


def ran_out(error: BaseException) -> bool:
    """Whether an allocation failed, on the device or on the host; False for what has been explained."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OutOfMemoryError):
        return not error.explained
    return isinstance(error, RuntimeError) and any(sign in headline(error) for sign in _SIGNS)


MARGIN = 0.05
"""Share of an accelerator's memory that a search leaves free, for fragments and for batches that take more than the first."""


@contextmanager
def out_of_memory_as(advice: Callable[[], str]) -> Iterator[None]:
    """Say of an allocation that fails in here what it failed in, and what to do.

    Args:
        advice: what follows "out of memory with"; called only then.

    Raises:
        OutOfMemoryError: in place of the allocator's own error, whose text it ends with.
    """
    try:
        yield
    except Exception as error:
        if not ran_out(error):
            raise
        short = OutOfMemoryError(f"out of memory with {advice()} ({brief(error)})")
        short.everywhere = getattr(error, "everywhere", False)
        raise short from error


def brief(error: BaseException) -> str:
    """What the allocator said, in at most a line: torch's own text goes on for ten."""
    return textwrap.shorten(headline(error).split("If reserved but unallocated")[0], 160, placeholder=" ...")


def device_name(device: torch.device) -> str:
    """What a device is, as far as its memory goes: ``cpu``, or ``NVIDIA H200, 140 GiB``."""
    if device.type != "cuda":
        return device.type
    found = torch.cuda.get_device_properties(device)
    return f"{found.name}, {found.total_memory / 2**30:.0f} GiB"


@contextmanager
def set_aside(device: torch.device, copies: Iterable[Tensor]) -> Iterator[None]:
    """Hold memory for one copy of each tensor and, on an accelerator, ``MARGIN`` of it all."""
    held = [torch.empty_like(tensor) for tensor in copies]
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        held.append(torch.empty(int(MARGIN * total), dtype=torch.uint8, device=device))
    yield
    held.clear()


def release(device: torch.device) -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
