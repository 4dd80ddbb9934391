"""What a task calls its model with: recorded, because a task of somebody's own may call it with anything."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
"""Recorded for each number of samples."""
_NUMBERS = (5, 3, 4)
"""Of samples: odd and even, because a program may be made for one of them."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a model.

    Attributes:
        samples: of the batch that was evaluated; None: not known.
        args, kwargs: what it was called with.
        names: of the leaves of both, in the order of ``torch.utils._pytree``: the parameter, and the keys within it.
    """

    samples: int | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    names: list[str]

    @staticmethod
    def seen(model: nn.Module, samples: int | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
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


@contextmanager
def watching(model: nn.Module) -> Iterator[list[Call]]:
    """The first call of ``model`` meanwhile, and each that shows a dimension to vary that did not before: of texts, only
    later ones may be longer."""
    kept: list[Call] = []
    varying: set[tuple[int, int]] = set()

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        leaves = pytree.tree_leaves((args, kwargs))
        first = kept[0].leaves() if kept else leaves
        found = {
            (i, d)
            for i, pair in enumerate(zip(first, leaves, strict=False))
            if all(isinstance(leaf, Tensor) for leaf in pair)
            for d, sizes in enumerate(zip(*(leaf.shape for leaf in pair), strict=False))
            if len(set(sizes)) > 1
        }
        if not kept or not found <= varying:
            varying.update(found)
            kept.append(Call.seen(module, None, args, kwargs))

    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield kept
    finally:
        handle.remove()


def record(run: Prepared, others: list[Call]) -> list[Call]:
    """The calls of ``run.model`` while its task evaluates a few samples of the test set, different numbers of them; and
    ``others``, which show what else varies.

    Raises:
        InputError: the task does not call the model, or calls it in several ways.
    """
    dataset = run.task.test_dataset()
    most = min(max(_NUMBERS), len(dataset))
    if most < 3:
        raise InputError(
            f"task {run.recipe.task.name}: its test set has {most} samples; 3 are needed to try the export on"
        )
    calls: list[Call] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(Call.seen(module, samples, args, kwargs))

    handle = run.model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        for samples in _NUMBERS if most == max(_NUMBERS) else (most, most - 1):
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
    return _alike([*calls, *others], run.recipe.task.name)


def dynamic_dimensions(calls: list[Call]) -> list[dict[int, str]]:
    """For each leaf, its dimensions that differ between the calls, by name: ``batch`` where it is the number of samples."""
    found = []
    for name, *leaves in zip(calls[0].names, *(call.leaves() for call in calls), strict=True):
        shapes = [tuple(leaf.shape) if isinstance(leaf, Tensor) else () for leaf in leaves]
        found.append(
            {
                d: "batch" if _are_samples(sizes, calls) else f"{name}_{d}"
                for d, sizes in enumerate(zip(*shapes, strict=True))
                if len(set(sizes)) > 1
            }
        )
    return found


def _are_samples(sizes: Sequence[int], calls: list[Call]) -> bool:
    return all(call.samples in (None, size) for size, call in zip(sizes, calls, strict=True))


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
