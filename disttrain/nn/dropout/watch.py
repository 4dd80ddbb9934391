"""Finding what in a forward pass draws from the generators of the process, which differ from rank to rank."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode, resolve_name


def draws(model: nn.Module, forward: Callable[[], object]) -> list[tuple[str, str]]:
    """Run ``forward`` once and find its random draws.

    Returns:
        (module, function) of each draw in order, without repetitions: the qualified name of the innermost module of ``model``
        (empty: ``model`` itself; ``-``: outside of it), and ``torch.rand`` and the like, ``numpy.random`` or ``random``.
    """
    watch = _Watch()
    with eager(), _module_names(model, watch), watch:
        forward()
    watch.look_around()
    return list(dict.fromkeys(watch.found))


class _Watch(TorchFunctionMode):
    """Compares torch's generators before and after each function, and the others after each module."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = ["-"]
        self.found: list[tuple[str, str]] = []
        self._others = _others()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        before = _generators()
        result = func(*args, **(kwargs or {}))
        if not all(map(torch.equal, before, _generators())):
            self.found.append((self.inside[-1], resolve_name(func) or str(func)))
        return result

    def look_around(self) -> None:
        """Whoever has drawn from NumPy or Python since the last look is the module that is current."""
        now = _others()
        for name, state in now.items():
            if state != self._others[name]:
                self.found.append((self.inside[-1], name))
        self._others = now


@contextmanager
def _module_names(model: nn.Module, watch: _Watch) -> Iterator[None]:
    """Tell ``watch`` which module is running."""
    names = {module: name for name, module in model.named_modules()}

    def enter(module: nn.Module, _inputs: object) -> None:
        watch.look_around()
        watch.inside.append(names.get(module, watch.inside[-1]))

    def leave(_module: nn.Module, _inputs: object, _output: object) -> None:
        watch.look_around()
        watch.inside.pop()

    hooks = [
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave, always_call=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _generators() -> list[torch.Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def _others() -> dict[str, Any]:
    kind, *state = np.random.get_state(legacy=True)
    return {"numpy.random": (kind, *(part.tobytes() if isinstance(part, np.ndarray) else part for part in state))} | {
        "random": random.getstate()
    }


def eager() -> AbstractContextManager[object]:
    """Inside a compiled graph nothing can be seen; where nothing is compiled, the compiler is not imported for this."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
