"""disttrain: one recipe, any cluster.

A recipe from Python::

    import disttrain

    result = disttrain.train("recipe.yaml", quiet=True)
    print(result.metrics["accuracy"], result.model("best"))

The runtime in a loop of your own::

    import disttrain

    with disttrain.init() as engine:  # finds torchrun, horovodrun, mpirun, srun, or none
        model = engine.prepare(model)  # pinned device, rank 0's state everywhere
        for batch in disttrain.data.loader(dataset, engine.world, global_batch=512, seed=1):
            ...

Names are loaded when first used, so that ``import disttrain`` costs nothing beyond torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from disttrain.version import __version__

if TYPE_CHECKING:
    from disttrain import data as data
    from disttrain import errors as errors
    from disttrain.api.load import evaluate as evaluate
    from disttrain.api.load import load_model as load_model
    from disttrain.api.train import Result as Result
    from disttrain.api.train import train as train
    from disttrain.config.sections.recipe import Recipe as Recipe
    from disttrain.engine.base import Engine as Engine
    from disttrain.engine.gather import GlobalBatch as GlobalBatch
    from disttrain.engine.select import init as init
    from disttrain.engine.stop import stop_requests as stop_requests
    from disttrain.engine.world import World as World
    from disttrain.hooks.callbacks import Callback as Callback
    from disttrain.hooks.view import RunView as RunView
    from disttrain.inference.totals import totals as totals
    from disttrain.precision import Precision as Precision
    from disttrain.precision import use_precision as use_precision
    from disttrain.state.state import State as State
    from disttrain.tasks.base import Task as Task
    from disttrain.tasks.supervised import Supervised as Supervised

_LAZY = {
    "train": "disttrain.api.train:train",
    "evaluate": "disttrain.api.load:evaluate",
    "load_model": "disttrain.api.load:load_model",
    "Recipe": "disttrain.config:Recipe",
    "Result": "disttrain.api.train:Result",
    "Callback": "disttrain.hooks.callbacks:Callback",
    "RunView": "disttrain.hooks.view:RunView",
    "init": "disttrain.engine.select:init",
    "Engine": "disttrain.engine.base:Engine",
    "World": "disttrain.engine.world:World",
    "GlobalBatch": "disttrain.engine.gather:GlobalBatch",
    "stop_requests": "disttrain.engine.stop:stop_requests",
    "State": "disttrain.state.state:State",
    "Precision": "disttrain.precision:Precision",
    "use_precision": "disttrain.precision:use_precision",
    "totals": "disttrain.inference.totals:totals",
    "Task": "disttrain.tasks.base:Task",
    "Supervised": "disttrain.tasks.supervised:Supervised",
    "data": "disttrain.data",
    "errors": "disttrain.errors",
    "optim": "disttrain.optim",
    "schedules": "disttrain.schedules",
}

__all__ = [
    "Callback",
    "Engine",
    "GlobalBatch",
    "Precision",
    "Recipe",
    "Result",
    "RunView",
    "State",
    "Supervised",
    "Task",
    "World",
    "__version__",
    "data",
    "errors",
    "evaluate",
    "init",
    "load_model",
    "optim",
    "schedules",
    "stop_requests",
    "totals",
    "train",
    "use_precision",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'disttrain' has no attribute {name!r}")
    module, _, attribute = _LAZY[name].partition(":")
    loaded = importlib.import_module(module)
    return getattr(loaded, attribute) if attribute else loaded
