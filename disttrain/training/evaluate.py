"""Evaluation: every sample of the test set once, over all ranks, and exact totals."""

from __future__ import annotations

import torch
from torch import Tensor

from disttrain.data.evaluation import evaluation_batches
from disttrain.training.state import Prepared


def evaluate(run: Prepared) -> dict[str, float]:
    """The task's metrics over the whole test set, the same on all ranks.

    Ranks sum over their own contiguous shares; sums and counts are added up, then divided, so the result does not depend
    on the number of ranks but for the order of float64 additions.
    """
    engine, task, settings, model = run.engine, run.task, run.recipe.evaluate, run.model
    was_training = model.training
    model.eval()
    totals: dict[str, Tensor] = {}
    try:
        with torch.inference_mode():
            for micro in evaluation_batches(
                task.test_dataset(),
                rank=engine.world.rank,
                size=engine.world.size,
                batch=settings.batch if settings is not None else 1000,
                workers=run.recipe.data.workers,
                device=engine.world.device,
            ):
                inputs = task.prepare(micro.tensors, run.precision.parameter_dtype)
                with run.precision.forward_context():
                    found = task.evaluate(model, inputs)
                for name, total in found.items():
                    totals[name] = totals[name] + total.double() if name in totals else total.double()
    finally:
        model.train(was_training)
    names = sorted(set().union(*engine.all_gather_object(sorted(totals))))
    zero = torch.zeros((), dtype=torch.float64)
    sums = engine.all_reduce(torch.stack([totals.get(name, zero).cpu() for name in names]))
    return task.summarise(dict(zip(names, sums.tolist(), strict=True)))
