"""What a trained model says of samples: each once, in order, from any number of ranks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from disttrain.data.batch import MicroBatch
from disttrain.data.evaluation import batches_of
from disttrain.data.tree import a_kind
from disttrain.engine.agreement import everyone
from disttrain.errors import InputError
from disttrain.inference.inputs import Inputs
from disttrain.inference.prepared import Prepared
from disttrain.tasks.make import collate_of
from disttrain.tasks.terms import wide


@dataclass(frozen=True, slots=True)
class Rows:
    """Predictions for some samples.

    Attributes:
        ids: (n,) the samples' numbers in their set or file.
        columns: what was predicted, by name: (n, ...) each.
    """

    ids: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]


def predict(run: Prepared, inputs: Inputs, batch: int) -> Iterator[Rows]:
    """Predictions for all samples of ``inputs`` in order, the same on every rank. Consecutive pieces of ``batch`` samples go to
    the ranks in turn, and are gathered once every rank has had one, so that no more than a round of them is in memory.

    Raises:
        InputError: the task's ``predict`` gives something else than tensors with the samples first.
    """
    engine, total = run.engine, len(inputs)
    starts = range(0, total, batch)
    mine = (np.arange(start, min(start + batch, total)) for start in starts[engine.world.rank :: engine.world.size])
    stream = batches_of(
        inputs.dataset,
        mine if inputs.chosen is None else map(inputs.chosen.ids, mine),
        workers=run.recipe.data.workers,
        device=engine.world.device,
        collate=collate_of(run.task),
    )
    run.model.eval()

    def one() -> Rows | None:
        micro = next(stream, None)
        return None if micro is None else _rows(run, micro)

    for _ in range(0, len(starts), engine.world.size):
        for rows in engine.all_gather_object(everyone(engine, one)):
            if rows is not None:
                yield rows


def _rows(run: Prepared, micro: MicroBatch) -> Rows:
    with torch.inference_mode():
        found: object = run.call(run.task.predict, run.model, micro)
    name = type(run.task).__name__
    if not isinstance(found, Mapping) or not found:
        raise InputError(f"task {name}: predict() gave {a_kind(found)}; expected tensors by name, the samples first")
    columns = {}
    for key, value in found.items():
        if not isinstance(value, Tensor) or value.dim() == 0 or len(value) != len(micro.ids):
            raise InputError(
                f"task {name}: predict() gave {a_kind(value)} as {key}; expected a tensor of {len(micro.ids)} rows, one for each "
                "sample"
            )
        columns[str(key)] = wide(value).cpu().numpy()
    return Rows(micro.ids, columns)
