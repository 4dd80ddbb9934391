"""Normal noise that knows no rank: a pure function of the seed, the update and the place in the global batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from disttrain.data.randomness import normal


def noise(
    seed: int,
    update: int,
    indices: ArrayLike,
    shape: Sequence[int] = (),
    *,
    stream: str = "noise",
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """``(n, *shape)`` standard normal numbers, the same on any number of ranks and after any resume.

    Args:
        seed: of the run.
        update: number of the update, such as ``state.position.updates``; one update's noise has nothing to do with another's.
        indices: ``(n,)`` places in the global batch: :meth:`Batch.indices`.
        shape: of what each of them gets.
        stream: name of the use; noise of different streams is independent.
        dtype: None: torch's default. The numbers are computed in float64.
    """
    numbers = normal(seed, update, indices, stream=stream, draws=math.prod(shape))
    wanted = dtype or torch.get_default_dtype()
    return torch.from_numpy(numbers).to(device=device, dtype=wanted).reshape(len(numbers), *shape)
