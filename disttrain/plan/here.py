"""What holds of a plan from some point of the run on."""

from __future__ import annotations

from typing import Any

from disttrain.data.position import Position
from disttrain.data.shares import shares
from disttrain.plan.lengths import EpochLength
from disttrain.plan.plan import StepPlan


def from_here(plan: StepPlan, position: Position, batch: int, rate: float) -> dict[str, Any]:
    """For the line with which a run starts or goes on: a batch that grows or adapts is another one by then.

    Args:
        batch: of the next update.
        rate: what the learning rate is times because the batch was adapted.

    Returns:
        The global batch, its micro-batches, the peak of the learning rate at it, and the updates of the whole run; where the
        batch adapts, these are the ones that were made and those that are left at this batch.
    """
    updates = plan.total_updates
    if plan.adaptive is not None:
        epoch = EpochLength(plan.epoch.samples, batch)
        updates = position.updates + epoch.updates_after(plan.total_samples) - epoch.updates_after(position.samples)
    _, largest = shares(batch, plan.world_size, plan.ghost_size)
    ghosts = max(largest // plan.ghost_size, 1)
    return {
        "global_batch": batch,
        "accumulation": -(-ghosts // (plan.micro_batch // plan.ghost_size)),
        "micro_batch": plan.micro_batch,
        "peak_lr": plan.peak_lr * rate,
        "updates": updates,
    }
