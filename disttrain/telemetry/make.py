"""From an entry of ``log.sinks`` to a sink."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from disttrain.config import Recipe
from disttrain.errors import InputError
from disttrain.registry import resolve
from disttrain.telemetry.outside import OutsideSink
from disttrain.telemetry.sinks import Sink
from disttrain.telemetry.tensorboard import tensorboard_sink

SINKS = {
    "tensorboard": "disttrain.telemetry.make:in_run_dir",
    "wandb": "disttrain.telemetry.wandb:WandbSink",
    "mlflow": "disttrain.telemetry.mlflow:MLflowSink",
}


def in_run_dir(run_dir: Path, resumed_at: int | None) -> Sink:
    """TensorBoard files in ``run_dir/tensorboard/``."""
    return tensorboard_sink(run_dir / "tensorboard", resumed_at)


def make_sinks(recipe: Recipe, run_dir: Path, resumed_at: int | None, leave: ExitStack) -> list[Sink]:
    """What ``log.sinks`` asks for; each is closed by ``leave``, also if a later one cannot be made.

    Raises:
        InputError: as :func:`make_sink`.
    """
    said, found = recipe.model_dump(by_alias=True, mode="json"), []
    for entry in recipe.log.sinks:
        sink = make_sink(entry.name, entry.model_extra or {}, run_dir=run_dir, recipe=said, resumed_at=resumed_at)
        leave.callback(sink.close)
        found.append(sink)
    return found


def make_sink(
    name: str, arguments: Mapping[str, Any], *, run_dir: Path, recipe: Mapping[str, Any], resumed_at: int | None
) -> Sink:
    """The sink, in a thread of its own (see `disttrain.telemetry.outside`).

    Args:
        name: a key of ``SINKS``, or ``pkg.mod:Sink`` of anybody's.
        arguments: what the recipe says besides. The class gets ``run_dir``, ``recipe`` (plain data) and ``resumed_at`` (the step
            of the checkpoint that the run resumed from, or None) as well, where its signature names them.

    Raises:
        InputError: it cannot be found, does not take the arguments, needs a package that is not installed, or is not able to
            begin.
    """
    cls: Callable[..., Sink] = resolve(name, SINKS)
    if not callable(cls):
        raise InputError(f"log.sinks: {name} is of type {type(cls).__name__}; expected a class")
    parameters = inspect.signature(cls).parameters
    known = {"run_dir": run_dir, "recipe": recipe, "resumed_at": resumed_at}
    given = {**{key: value for key, value in known.items() if key in parameters}, **arguments}
    try:
        inspect.signature(cls).bind(**given)
    except TypeError as error:
        raise InputError(f"log.sinks: {name}: {error}. Its parameters are {', '.join(parameters) or 'none'}") from None
    missing = [method for method in ("log", "close") if ":" in name and not callable(getattr(cls, method, None))]
    if missing:
        raise InputError(
            f"log.sinks: {name} has no method {' and no method '.join(missing)}; see disttrain.telemetry.Sink"
        )
    try:
        return OutsideSink(name, lambda: cls(**given))
    except InputError as error:
        raise InputError(f"log.sinks: {name} {error}") from None
    except Exception as error:
        if ":" in name:  # somebody's own class: the place of the mistake is what helps
            raise
        raise InputError(f"log.sinks: {name} cannot begin: {type(error).__name__}: {str(error).strip()}") from error
