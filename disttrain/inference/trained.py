"""A run's model with the weights that were asked for, on all ranks."""

from __future__ import annotations

from pathlib import Path

from disttrain.config import Recipe
from disttrain.engine.base import Engine
from disttrain.inference.choice import Choice, Origin, fetch
from disttrain.inference.prepared import Prepared, build_model
from disttrain.inference.weights import restore_weights


def load_trained(recipe: Recipe, run_dir: Path, engine: Engine, choice: Choice) -> tuple[Prepared, Origin]:
    """The model of a run's ``recipe``, on each rank's device, with stored weights; and which they are.

    Raises:
        CheckpointError, InputError, RankError: on all ranks; see :func:`~disttrain.inference.choice.fetch` and
            :func:`~disttrain.inference.prepared.build_model`.
    """
    checkpoint, origin = fetch(engine, run_dir, choice)
    ready = build_model(recipe, engine)
    restore_weights(ready, checkpoint, averaged=origin.averaged)
    return ready, origin
