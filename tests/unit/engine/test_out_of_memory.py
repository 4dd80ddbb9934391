"""What counts as out of memory: the real errors of each allocator, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from disttrain.engine.agreement import everyone
from disttrain.engine.local import LocalEngine
from disttrain.engine.memory import device_name, out_of_memory_as, ran_out
from disttrain.engine.world import World
from disttrain.errors import OutOfMemoryError


def planted(error: Exception) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


@pytest.mark.parametrize(
    "allocate",
    [
        lambda: torch.empty(2**55),
        lambda: np.empty(2**55),
        lambda: bytearray(2**60),
        planted(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")),
        planted(RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later")),
        planted(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")),
    ],
)
def test_a_failed_allocation_is_known(allocate: Callable[[], object]) -> None:
    with (
        pytest.raises(OutOfMemoryError, match=r"^out of memory with 8 samples \(.*\)$") as found,
        out_of_memory_as(lambda: "8 samples"),
    ):
        allocate()
    assert len(str(found.value)) < 220
    assert ran_out(found.value.__cause__ or ValueError())
    assert not ran_out(found.value), "what was said is not said again"


@pytest.mark.parametrize("error", [ValueError("out of memory"), RuntimeError("shapes differ"), OSError("no space")])
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as found, out_of_memory_as(lambda: "8 samples"):
        raise error
    assert found.value is error


def test_in_set_up_it_is_no_mistake_of_the_input() -> None:
    engine = LocalEngine(World(0, 1, 0, 1, 0, torch.device("cpu")))
    with pytest.raises(OutOfMemoryError, match=r"out of memory before the first update: .*alloc") as found:
        everyone(engine, lambda: torch.empty(2**55))
    assert found.value.exit_code == 4
    assert device_name(torch.device("cpu")) == "cpu"
