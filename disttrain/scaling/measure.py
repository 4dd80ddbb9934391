"""What one launch measures, on every rank: turns of steps, all-reduces, and forward and backward passes of smaller shares."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch

from disttrain.config import Recipe
from disttrain.engine.base import Engine
from disttrain.engine.buckets import chunks
from disttrain.methods.shapes import by_itself, resized
from disttrain.scaling.settings import Asked
from disttrain.scaling.stand_ins import PARTS
from disttrain.scaling.turns import Turns
from disttrain.training.build import build_run
from disttrain.training.loop import batches
from disttrain.training.rehearse import try_out, without_trace
from disttrain.training.state import Run

LEAST_STEPS = 3
"""In a turn."""
LARGE, SMALL_TRIES = 2**20, 5
"""Bytes from which on an all-reduce is made once in a window, and how often a smaller one is."""
PASSES = 7
"""Of a share."""
SIZES = tuple(4**k for k in range(5, 15))
"""Bytes of all-reduces, from 1 KiB on, as far as a bucket of the gradient is near."""


def measure(recipe: Recipe, engine: Engine, asked: Asked) -> dict[str, Any]:
    """Measure; the result, plain data, is the same on all ranks.

    Raises:
        DisttrainError: the recipe cannot be trained.
    """
    run = build_run(recipe, engine)
    world, parameters = engine.world, [p for p in run.params if p.requires_grad]
    cap = int(recipe.communication.bucket_mb * 2**20)
    buckets = [sum(p.nbytes for p in chunk) for chunk in chunks(reversed(parameters), cap)]
    with closing(batches(run)) as stream:
        turns = Turns(run, stream)
        number = _number(turns, asked.seconds)
        windows, exchanged = [], []
        for _ in range(asked.windows):
            windows.append(_window(turns, number))
            exchanged.append(_exchanges(engine, max(buckets)))
        passes = {share: _passes(run, turns, share) for share in asked.shares}
    return {
        "ranks": world.size,
        "hosts": -(-world.size // world.local_size),
        "cores": sum(_by_host(engine, len(os.sched_getaffinity(0)))),
        "device": world.device.type,
        "global_batch": run.plan.global_batch,
        "parameters_bytes": sum(buckets),
        "buckets": buckets,
        "steps": number,
        "windows": windows,
        "exchange": exchanged,
        "passes": passes,
    }


def _number(turns: Turns, seconds: float) -> int:
    """Steps in a turn; what is made to find out warms everything up. Rank 0's clock decides for all."""
    engine, began, going = turns.run.engine, time.monotonic(), True
    while going:
        each = turns.steps(LEAST_STEPS)
        going = engine.broadcast_object(time.monotonic() - began < seconds)
    number: int = engine.broadcast_object(max(LEAST_STEPS, math.ceil(seconds / each)))
    return number


def _window(turns: Turns, number: int) -> dict[str, float]:
    """Every kind of turn once, and the step before and after them, so that a machine that grows slower or faster does so alike
    for all. Seconds of a step, means over its ranks."""
    before = turns.steps(number)
    turn = [
        turns.watched(number),
        turns.alone(number),
        np.array(turns.empty()),
        np.array([before, turns.steps(number)]),
    ]
    everyone = turns.run.engine.all_gather_object(turn)
    watched, alone, empty, steps = (np.stack([ranks[i] for ranks in everyone]) for i in range(4))
    parts = dict(zip(PARTS, np.moveaxis(watched, 2, 0), strict=True))
    mean = {name: float(values.mean()) for name, values in parts.items()}
    computing = float(alone[:, :, [PARTS.index("compute"), PARTS.index("wait")]].sum(2).mean())
    slowed = mean["compute"] - computing if turns.run.engine.world.size > 1 else 0.0
    # Who comes last waits for the exchange alone; the others wait for that one too.
    waited = float(parts["wait"].min(0).mean())
    return {
        "step": float(steps.mean()),
        "before": float(steps[:, 0].mean()),
        "after": float(steps[:, 1].mean()),
        "compute": mean["compute"] - slowed,
        "data": mean["data"],
        "exchange": waited + slowed,
        "stragglers": mean["wait"] - waited,
        "optimizer": mean["optimizer"],
        "interpreter": float(empty.mean()),
        "watched": sum(mean.values()),
        "between": mean["between"],
        "slowed": slowed,
    }


def _exchanges(engine: Engine, largest: int) -> dict[int, float]:
    """Seconds of an all-reduce of so many bytes, means over ranks; none on one rank."""
    if engine.world.size == 1:
        return {}
    buffers = [
        torch.zeros(size // 4, device=engine.world.device) for size in sorted({*SIZES, largest}) if size <= 4 * largest
    ]
    everyone = engine.all_gather_object([_one(engine, numbers) for numbers in buffers])
    return {b.nbytes: statistics.fmean(times) for b, times in zip(buffers, zip(*everyone, strict=True), strict=True)}


def _one(engine: Engine, numbers: torch.Tensor) -> float:
    """Seconds, the median of several where they are few."""
    times = []
    for _ in range(1 if numbers.nbytes >= LARGE else SMALL_TRIES):
        engine.all_reduce(torch.zeros(1))
        _settle(engine)
        begin = time.perf_counter()
        engine.all_reduce(numbers)
        _settle(engine)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def _passes(run: Run, turns: Turns, share: int) -> float:
    """Seconds of forward and backward passes of a smaller share, through the model at once."""
    batch = resized(turns.batch, share)
    run.task.global_batch = by_itself(batch, run.engine.world.device)
    times = []
    with without_trace(run):
        for _ in range(PASSES + 1):
            begin = time.perf_counter()
            with run.methods.dropout.masks(0, batch, 0):
                try_out(run, batch.micro_batches[0])
            _settle(run.engine)
            times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def _settle(engine: Engine) -> None:
    if engine.world.device.type == "cuda":
        torch.cuda.synchronize(engine.world.device)


def _by_host(engine: Engine, value: int) -> Sequence[int]:
    """The value of each host's first rank."""
    world = engine.world
    found: list[int] = engine.all_gather_object(value if world.local_rank == 0 else 0)
    return found
