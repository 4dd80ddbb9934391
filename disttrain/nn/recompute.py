"""Activation checkpointing: memory for time."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from disttrain.names import matching
from disttrain.nn.ghost_norm import GhostBatchNorm, GhostStatistics


def recomputed_modules(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Names of the modules of ``model`` that match a pattern (``*`` stands for dots too), but for those inside of others.

    Raises:
        ValueError: a pattern matches nothing, or a module changes itself in forward, and would do so twice.
    """
    names = [name for name, _ in model.named_modules() if name]
    chosen: list[str] = []
    for name in matching(names, patterns, "module"):
        if not any(name.startswith(f"{outer}.") for outer in chosen):
            chosen.append(name)
    for name in chosen:
        odd = {type(m).__name__ for m in model.get_submodule(name).modules()} & {"_SpectralNorm"}
        if odd:
            raise ValueError(
                f"{name} has spectral norm, which changes its vectors in every forward, and they would change twice"
            )
    return chosen


def recompute(model: nn.Module, patterns: Sequence[str]) -> None:
    """From now on the modules that match (:func:`recomputed_modules`) keep no activations for backward but compute them again
    there (Chen et al. 2016, arXiv:1604.06174; torch's ``checkpoint``, not reentrant).

    Names in ``state_dict`` stay, gradients are the same to the bit where the modules are deterministic, dropout draws the same
    masks again, and running statistics of normalisation layers change once.

    Raises:
        ValueError: as :func:`recomputed_modules`. In backward, RuntimeError: a module changed its buffers a second time.
    """
    for name in recomputed_modules(model, patterns):
        module: Any = model.get_submodule(name)
        module.forward_once = module.forward
        module.forward = types.MethodType(partial(_forward, name), module)


def _forward(name: str, module: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return module.forward_once(*args, **kwargs)
    if torch.compiler.is_compiling():  # the compiler recomputes by itself, and no change of a buffer twice
        return checkpoint(module.forward_once, *args, use_reentrant=False, **kwargs)
    contexts = partial(_contexts, name, module)
    return checkpoint(module.forward_once, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def _contexts(name: str, module: nn.Module) -> tuple[Any, Any]:
    return contextlib.nullcontext(), _second_time(name, module)


@contextlib.contextmanager
def _second_time(name: str, module: nn.Module) -> Iterator[None]:
    """Around the forward inside of backward: nothing is to be left of it."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.training]
    kept = [(norm, dict(norm._buffers)) for norm in norms]
    deferred = [(m, m.deferred) for m in norms if isinstance(m, GhostBatchNorm) and m.deferred is not None]
    mine = {id(buffer) for norm in norms for buffer in norm._buffers.values()}
    others = {n: (b, b._version) for n, b in module.named_buffers() if id(b) not in mine}
    for norm, buffers in kept:  # they are saved for backward, so they must be there
        norm._buffers.update({key: None if buffer is None else buffer.clone() for key, buffer in buffers.items()})
    for ghosts, found in deferred:
        ghosts.deferred = GhostStatistics.none(found.values, ghosts.num_features)
    try:
        yield
    finally:
        for norm, buffers in kept:
            norm._buffers.update(buffers)
        for ghosts, found in deferred:
            ghosts.deferred = found
        changed = [key for key, (buffer, version) in others.items() if buffer._version != version]
        if changed:
            raise RuntimeError(
                f"{name} changes its buffer {changed[0]} in forward, which activation checkpointing runs twice: leave it out"
            )
