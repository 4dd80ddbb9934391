"""What a model gives while a task calls it in its own way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from disttrain.data.tree import named_leaves


def outputs_during(model: nn.Module, action: Callable[[], object]) -> dict[str, Tensor]:
    """The tensors that ``model`` gives in the first call of it within ``action``, by name; a single one is ``output``."""
    seen: list[Any] = []
    handle = model.register_forward_hook(lambda _module, _inputs, outputs: seen.append(outputs))
    try:
        action()
    finally:
        handle.remove()
    found = [(name, leaf) for name, leaf in named_leaves(seen[0]) if isinstance(leaf, Tensor)] if seen else []
    return {name or "output": leaf for name, leaf in found}
