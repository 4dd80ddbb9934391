"""The kinds of files that hold a trained model: how each is written, and read again to see that it is right."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from disttrain.checkpoint.files import write_file
from disttrain.errors import InputError
from disttrain.inference.export.calls import Call, dynamic_dimensions
from disttrain.inference.export.quiet import quiet
from disttrain.inference.export.target import NOTES


class Kind(Protocol):
    """A kind of file."""

    def write(self, model: nn.Module, calls: list[Call], notes: Mapping[str, Any], path: Path) -> None:
        """Write ``model``, which is in evaluation mode on the CPU.

        Raises:
            InputError: this model cannot be written so, or a package is missing; the message says what to do.
        """
        ...

    def read(self, model: nn.Module, path: Path) -> nn.Module:
        """What somebody else finds in the file, as a module to call as ``model`` is called."""
        ...


class Loaded(nn.Module):
    """A program from a file, to be called as the model that it was made from."""

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self._call = call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._call(*args, **kwargs)
        except Exception as error:  # a guard of torch.export, or onnxruntime's own, for sizes that it was not made for
            shapes = ", ".join(str(tuple(t.shape)) for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor))
            said = str(error).strip().partition("\n")[0][:200]
            raise InputError(
                f"the program that was written takes no input of shape {shapes} ({type(error).__name__}: {said}); .safetensors "
                "takes the weights"
            ) from error


class StateDict:
    """``.safetensors``: all parameters and persistent buffers under the model's own names. Tensors that share memory are each
    stored whole, so that ``load_state_dict`` finds every name."""

    def write(self, model: nn.Module, calls: list[Call], notes: Mapping[str, Any], path: Path) -> None:
        from safetensors.torch import save

        tensors = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
        write_file(path, [save(tensors, {"format": "pt", **as_text(notes)})])

    def read(self, model: nn.Module, path: Path) -> nn.Module:
        from safetensors.torch import load_file

        model.load_state_dict(load_file(path), strict=True)
        return model


class Program:
    """``.pt2``: ``torch.export``, with the notes as a file inside. What is a mapping with a class of its own, as transformers'
    outputs are, is given as a dict, so that nobody needs that class to load the program."""

    def write(self, model: nn.Module, calls: list[Call], notes: Mapping[str, Any], path: Path) -> None:
        first = calls[0]
        shapes: Any = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
        for leaf, dimensions in zip(first.leaves(), dynamic_dimensions(calls), strict=True):
            if dimensions:
                shapes[leaf] = dict.fromkeys(dimensions, torch.export.Dim.DYNAMIC)
        with _without_cache(model), _plain_dicts(model):
            program = traced(lambda: torch.export.export(model, first.args, first.kwargs, dynamic_shapes=shapes))
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # which holds this machine's paths
        torch.export.save(program, path, extra_files={NOTES: json.dumps(notes)})

    def read(self, model: nn.Module, path: Path) -> nn.Module:
        program = torch.export.load(path).module()
        kinds: list[type] = []

        def call(*args: Any, **kwargs: Any) -> Any:
            if not kinds:
                kinds.append(type(model(*args, **kwargs)))
            found = program(*args, **kwargs)
            return kinds[0](**found) if isinstance(found, dict) else found

        return Loaded(call)


class Pretrained:
    """A directory: transformers' ``save_pretrained``."""

    def write(self, model: nn.Module, calls: list[Call], notes: Mapping[str, Any], path: Path) -> None:
        save: Any = getattr(model, "save_pretrained", None)
        if not callable(save) or not hasattr(type(model), "from_pretrained"):
            raise InputError(
                f"a directory is for models of transformers, and this one is a {class_of(model)}: name a file that ends in "
                ".safetensors, .pt2 or .onnx"
            )
        save(path)
        write_file(path / NOTES, [json.dumps(notes, indent=1).encode()])

    def read(self, model: nn.Module, path: Path) -> nn.Module:
        cls: Any = type(model)
        dtype = next((p.dtype for p in model.parameters()), torch.float32)
        found: nn.Module = cls.from_pretrained(path, dtype=dtype, local_files_only=True)
        return found.eval()


@contextmanager
def _without_cache(model: nn.Module) -> Iterator[None]:
    """A language model of transformers also gives the keys and values for the next token unless told otherwise, in a class that
    torch.export does not know."""
    config = getattr(model, "config", None)
    if not getattr(config, "use_cache", False):
        yield
        return
    config.use_cache = False  # type: ignore[union-attr]
    try:
        yield
    finally:
        config.use_cache = True  # type: ignore[union-attr]


@contextmanager
def _plain_dicts(model: nn.Module) -> Iterator[None]:
    """While this is entered, mappings that ``model`` gives are dicts without what is None."""
    forward = model.forward

    @wraps(forward)
    def plain(*args: Any, **kwargs: Any) -> Any:
        found = forward(*args, **kwargs)
        return {k: v for k, v in found.items() if v is not None} if isinstance(found, Mapping) else found

    model.forward = plain
    try:
        yield
    finally:
        del model.forward


def class_of(model: nn.Module) -> str:
    """``package.module:Class``."""
    return f"{type(model).__module__}:{type(model).__qualname__}"


def as_text(notes: Mapping[str, Any]) -> dict[str, str]:
    """For formats whose notes are text by text: what is no text, as JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in notes.items()}


def traced(export: Callable[[], Any]) -> Any:
    """What ``export`` makes.

    Raises:
        InputError: the model cannot be traced; with torch's first line about it.
    """
    try:
        with torch.no_grad(), quiet():
            return export()
    # torch raises anything, down to what the model's own code raises for a symbolic size.
    except Exception as error:
        said = str(error).strip().partition("\n")[0][:300]
        raise InputError(
            f"torch.export cannot follow the model's forward ({type(error).__name__}: {said}); .safetensors takes the weights"
        ) from error


def difference(expected: Any, found: Any) -> float:
    """The largest difference between two results of a model, in parts of the largest magnitude of each tensor of
    ``expected``; infinite where they differ in form, or in a tensor of integers."""
    mine, theirs = ([t for t in pytree.tree_leaves(tree) if isinstance(t, Tensor)] for tree in (expected, found))
    if [t.shape for t in mine] != [t.shape for t in theirs]:
        return float("inf")
    largest = 0.0
    for a, b in zip(mine, theirs, strict=True):
        if torch.equal(a, b):
            continue
        if not a.is_floating_point() or not bool(b.isfinite().all()):
            return float("inf")
        scale = max(float(a.abs().max()), torch.finfo(a.dtype).tiny)
        largest = max(largest, float((a - b).abs().max()) / scale)
    return largest
