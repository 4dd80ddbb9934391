"""What a task calls its model with: recorded, because a task of somebody's own may call it with anything."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from disttrain.data.evaluation import evaluation_batches
from disttrain.errors import InputError
from disttrain.inference.prepared import Prepared
from disttrain.tasks.make import collate_of

_BATCHES = 3
"""Recorded for each number of samples: enough to see lengths that differ from batch to batch."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a model.

    Attributes:
        samples: of the batch that was evaluated.
        args, kwargs: what it was called with.
        names: of the leaves of both, in the order of ``torch.utils._pytree``: the parameter, and the keys within it.
    """

    samples: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    names: list[str]

    @staticmethod
    def seen(model: nn.Module, samples: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """The call of ``model`` with copies of all tensors."""
        parameters = list(inspect.signature(model.forward).parameters.values())
        named = {_parameter(parameters, i): value for i, value in enumerate(args)} | kwargs
        names = [name for name, _ in named_leaves(named)]
        args, kwargs = pytree.tree_map_only(Tensor, lambda t: t.detach().clone(), (args, kwargs))
        return Call(samples, args, kwargs, names)

    def of(self, model: nn.Module) -> Any:
        """What ``model`` gives for it."""
        with torch.no_grad():
            return model(*self.args, **self.kwargs)

    def leaves(self) -> list[Any]:
        """Tensors, numbers and all else that is no container."""
        return pytree.tree_leaves((self.args, self.kwargs))


def record(run: Prepared) -> list[Call]:
    """The calls of ``run.model`` while its task evaluates a few samples of the test set; two different numbers of samples.

    Raises:
        InputError: the task does not call the model, or calls it in several ways.
    """
    dataset = run.task.test_dataset()
    most = min(5, len(dataset))
    if most < 3:
        raise InputError(
            f"task {run.recipe.task.name}: its test set has {most} samples; 3 are needed to try the export on"
        )
    calls: list[Call] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(Call.seen(module, samples, args, kwargs))

    handle = run.model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        for samples in (most, most - 1 if most < 5 else 3):
            stream = evaluation_batches(
                dataset,
                rank=0,
                size=1,
                batch=samples,
                device=run.engine.world.device,
                collate=collate_of(run.task),
            )
            with torch.no_grad():
                for micro in islice(stream, _BATCHES):
                    if len(micro.ids) == samples:
                        run.call(run.task.evaluate, run.model, micro)
    finally:
        handle.remove()
    return _alike(calls, run.recipe.task.name)


def dynamic_dimensions(calls: list[Call]) -> list[dict[int, str]]:
    """For each leaf, its dimensions that differ between the calls, by name: ``batch`` where it is the number of samples."""
    found = []
    for name, *leaves in zip(calls[0].names, *(call.leaves() for call in calls), strict=True):
        shapes = [tuple(leaf.shape) if isinstance(leaf, Tensor) else () for leaf in leaves]
        found.append(
            {
                d: "batch" if list(sizes) == [call.samples for call in calls] else f"{name}_{d}"
                for d, sizes in enumerate(zip(*shapes, strict=True))
                if len(set(sizes)) > 1
            }
        )
    return found


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """The leaves of a tree of containers that torch knows, each under the keys that lead to it."""
    return [("_".join(map(_key, path)), leaf) for path, leaf in pytree.tree_flatten_with_path(tree)[0]]


def _alike(calls: list[Call], task: str) -> list[Call]:
    if not calls:
        raise InputError(
            f"task {task}: its evaluate() does not call the model itself, so there is no computation to export; .safetensors "
            "takes the weights"
        )
    forms = {str([(name, _form(leaf)) for name, leaf in zip(call.names, call.leaves(), strict=True)]) for call in calls}
    if len(forms) > 1:
        raise InputError(
            f"task {task}: its evaluate() calls the model in {len(forms)} ways, and one program computes one of them; "
            ".safetensors takes the weights"
        )
    return calls


def _form(leaf: Any) -> object:
    """What has to be the same in all calls: kind and number of dimensions of a tensor, anything else as it is."""
    return (leaf.dtype, leaf.dim()) if isinstance(leaf, Tensor) else leaf


def _parameter(parameters: list[inspect.Parameter], place: int) -> str:
    """The name of the positional argument at ``place``."""
    for i, parameter in enumerate(parameters):
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            return f"{parameter.name}_{place - i}"
        if i == place:
            return parameter.name
    return f"input_{place}"


def _key(entry: Any) -> str:
    return str(next(getattr(entry, name) for name in ("key", "idx", "name") if hasattr(entry, name)))
