"""The micro-batches that a compiled model will meet, made before it does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from disttrain.data.batch import Batch, MicroBatch
from disttrain.data.shares import pieces
from disttrain.data.tree import map_leaves
from disttrain.engine.gather import GlobalBatch
from disttrain.engine.local import LocalEngine
from disttrain.engine.world import World
from disttrain.plan.plan import StepPlan


def micro_batch_sizes(plan: StepPlan, rank: int) -> set[int]:
    """Of a rank's micro-batches in full batches and in an epoch's last one; none of a batch that grows, which has too many."""
    found: set[int] = set()
    fixed = {plan.global_batch, plan.epoch.samples % plan.global_batch} if plan.epoch.batch_at is None else set()
    for count in fixed:
        for size in {0, plan.slices.size}:
            cuts = pieces(count, rank, plan.world_size, plan.micro_batch, plan.ghost_size, size)
            found |= {end - begin for begin, end in cuts}
    return found


def resized(batch: Batch, count: int) -> Batch:
    """A global batch without other ranks: the samples of the first micro-batch over and over again, until there are ``count``."""
    micro = batch.micro_batches[0]
    chosen = np.arange(count) % len(micro.ids)
    made = MicroBatch(
        map_leaves(lambda t: t[torch.from_numpy(chosen).to(t.device)], micro.tensors), micro.ids[chosen], 1.0
    )
    return replace(batch, size=count, global_ids=made.ids, before=0, share=count, micro_batches=[made])


def turned(micro: MicroBatch) -> MicroBatch:
    """The same samples, each one place further on, and the last one first."""
    return replace(micro, tensors=map_leaves(lambda t: t.roll(1, 0), micro.tensors), ids=np.roll(micro.ids, 1))


def by_itself(batch: Batch, device: torch.device) -> GlobalBatch:
    """What a loss over the global batch sees of one that no other rank has a part of."""
    return GlobalBatch(LocalEngine(World.alone(device)), batch)
