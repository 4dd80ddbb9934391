"""How a model is computed: its memory format, what is computed twice to save memory, and its compilation.

All of it is done to the model in place and changes no name, so a checkpoint does not know of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from disttrain.config import Recipe
from disttrain.errors import InputError
from disttrain.nn import SyncBatchNorm, recompute, recomputed_modules

MOST_SHAPES = 64
"""So many graphs are compiled at most; torch's own limit is 8, after which it no longer compiles and does not fail."""


def check_execution(recipe: Recipe, model: nn.Module) -> None:
    """Refuse what cannot be done to this model.

    Raises:
        InputError: a pattern matches nothing, a module cannot be computed twice, or the model cannot be compiled.
    """
    try:
        recomputed_modules(model, recipe.activation_checkpointing)
    except ValueError as error:
        raise InputError(f"activation_checkpointing: {error}") from None
    if recipe.compile is not None and any(isinstance(m, (SyncBatchNorm, nn.SyncBatchNorm)) for m in model.modules()):
        raise InputError(
            "compile: the model has synchronised batch norm, whose forward waits for the other ranks, and a compiled one cannot: "
            "use batch_norm.kind ghost"
        )


def prepare_execution(recipe: Recipe, model: nn.Module) -> None:
    """Make ``model``, before any gradient exchange is attached to it, compute as the recipe says.

    Raises:
        InputError: torch does not know the backend.
    """
    if recipe.memory_format == "channels_last":
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.register_forward_pre_hook(_inputs_last, with_kwargs=True)
    recompute(model, recipe.activation_checkpointing)
    if recipe.compile is not None:
        _compile(recipe, model)


def lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give the optimizer's state the memory format of the parameters that it belongs to, as it had it before it was saved: sums
    over it would add up in another order."""
    for param, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == param.shape and value.stride() != param.stride():
                state[name] = torch.empty_like(param, dtype=value.dtype).copy_(value)


@contextmanager
def compiling() -> Iterator[None]:
    """What the compiler finds wrong inside is one message.

    Raises:
        InputError: it failed, or has met too many shapes.
    """
    try:
        yield
    except Exception as error:
        kinds = [
            kind for kind in type(error).__mro__ if kind.__module__.startswith(("torch._dynamo.", "torch._inductor."))
        ]
        if not kinds:
            raise
        if kinds[0].__name__ == "FailOnRecompileLimitHit":
            raise InputError(
                f"compile: the model was compiled for {MOST_SHAPES} shapes and meets another one; set compile.dynamic: true"
            ) from None
        said = " ".join(str(error).strip().split("\n\n")[0].split())
        raise InputError(f"compile: {kinds[0].__name__}: {said[:400]}") from None


def _compile(recipe: Recipe, model: nn.Module) -> None:
    settings = recipe.compile
    assert settings is not None
    import torch._dynamo as dynamo

    if settings.backend not in dynamo.list_backends(None):
        raise InputError(f"compile.backend is {settings.backend!r}; torch knows {', '.join(dynamo.list_backends())}")
    # Its traceback of a model that it cannot trace; what it is about is in our message.
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)
    # What an earlier run of this process compiled counts towards the limit, and would decide what becomes dynamic.
    dynamo.reset()
    dynamo.config.recompile_limit = MOST_SHAPES
    dynamo.config.fail_on_recompile_limit_hit = True
    # Cutting the graph at DDP's buckets lets gradients travel during backward. torch can cut neither around recomputation nor
    # into buckets smaller than its first, of 1 MiB.
    dynamo.config.optimize_ddp = not recipe.activation_checkpointing and recipe.communication.bucket_mb >= 1.0
    # torch's default compiles for each shape until it has seen two, and for all from then on: what an update computes would
    # depend on how long the process has been running, and a resumed run would have other bits.
    dynamic = recipe.batch.varies if settings.dynamic is None else settings.dynamic
    model.compile(backend=settings.backend, mode=settings.mode, dynamic=dynamic)


def _inputs_last(module: nn.Module, args: Any, kwargs: Any) -> Any:
    return tree_map_only(Tensor, _last, (args, kwargs))


def _last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor
