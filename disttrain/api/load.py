"""A trained model in Python: evaluated, or to keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from disttrain.api.ambient import alone, joined
from disttrain.api.passed import AnyModel, AnyTask, Passed
from disttrain.config import saved_recipe
from disttrain.engine.agreement import everyone, on_main
from disttrain.engine.base import Engine
from disttrain.inference.choice import Choice, Which, choose
from disttrain.inference.evaluate import results
from disttrain.inference.trained import load_trained
from disttrain.inference.weights import load_weights, stored_weights
from disttrain.methods.model import make_model
from disttrain.precision import PRECISIONS
from disttrain.tasks.base import Task
from disttrain.tasks.make import make_task


def evaluate(
    run_dir: str | Path,
    *,
    task: AnyTask | None = None,
    model: AnyModel | None = None,
    checkpoint: Which = "newest",
    average: bool | None = None,
    engine: str | Engine = "auto",
    device: str = "auto",
    timeout: float | None = None,
    trust: bool = False,
) -> dict[str, float]:
    """Evaluate a run, as ``disttrain evaluate`` does, on any number of ranks.

    Args:
        run_dir: the run directory.
        task, model: what was passed to :func:`disttrain.train`; a task with other test data is fine.
        checkpoint: ``newest``, ``best``, or the number of an update.
        average: the averaged weights (True), those as trained (False), or None: averages where the run keeps some.
        engine, device, timeout: as for :func:`disttrain.train`.
        trust: whether the recipe in the run directory may have objects outside disttrain made.

    Returns:
        The metrics of the test set by name, and ``validation_NAME`` where there is a validation set; the same on all ranks.

    Raises:
        InputError, CheckpointError, RankError: see :func:`disttrain.train`.
    """
    given, place = Passed(task, model), Path(run_dir)
    with alone(), given.known(), joined(engine, device, timeout) as (mine, _):

        def load() -> Any:
            recipe = on_main(mine, lambda: saved_recipe(place, given.overrides(), trust=trust))
            return load_trained(recipe, place, mine, Choice(checkpoint, average))

        ready, _ = everyone(mine, load)
        mine.phase = "evaluating"
        return results(ready)


def load_model(
    run_dir: str | Path,
    *,
    task: AnyTask | None = None,
    model: AnyModel | None = None,
    checkpoint: Which = "newest",
    average: bool | None = None,
    device: str | torch.device = "cpu",
    trust: bool = False,
) -> nn.Module:
    """A run's trained model, in this process alone: a plain module in evaluation mode.

    Args:
        run_dir: the run directory.
        task: what was passed to :func:`disttrain.train`. Not needed where ``model`` is a module.
        model: likewise. A module is copied, and the copy filled.
        checkpoint, average, trust: as for :func:`evaluate`.
        device: where to.

    Raises:
        NoCheckpointError, CheckpointError: there is none such, or it does not load.
        InputError: an object has to be passed, the model cannot be made, or there are no averages.
    """
    given, place = Passed(task, model), Path(run_dir)
    recipe = saved_recipe(place, given.overrides(), trust=trust)
    found, origin = choose(place, Choice(checkpoint, average))
    with alone(), given.known():
        # A module needs no task, and no data: the class stands for it with its defaults.
        asked: Any = Task if isinstance(model, nn.Module) else make_task(recipe)
        hints = {} if asked is Task else asked.model_hints()
        made, _ = make_model(recipe, asked, hints, lambda tensor: tensor)
    made.to(PRECISIONS[recipe.precision].parameter_dtype)
    load_weights(made, stored_weights(found, averaged=origin.averaged))
    return made.to(device).eval()
