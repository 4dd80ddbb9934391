"""The watch on the numbers: each layer's gradient as backward made it, and what the precision loses of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from disttrain.data.batch import Batch
from disttrain.data.position import Position
from disttrain.grads.numerics import FORMATS, Numerics, numerics
from disttrain.methods.base import Context, Method

log = logging.getLogger("disttrain")


class NumericsWatch(Method):
    """Reads the mean gradient every so many updates, before anything clips it or adds to it."""

    def __init__(self, context: Context) -> None:
        assert context.recipe.numerics is not None
        self._every = context.recipe.numerics.every_steps
        self._model, self._precision = context.model, context.precision
        self._format = self._precision.name if self._precision.name in FORMATS else "fp16"
        self._number, self._scale = 0, 1.0
        self._found: Numerics | None = None

    def begin_update(self, position: Position) -> None:
        self._number, self._found = position.updates + 1, None
        if self._number % self._every == 0:
            self._scale = self._precision.loss_scale  # fp16 has another one once the update is over

    def see_gradient(self, batch: Batch) -> None:
        if self._number % self._every == 0:
            self._found = numerics(self._model.named_parameters(), self._format, self._scale)

    def events(self) -> Iterator[Mapping[str, Any]]:
        if self._found is None:
            return
        vanishing, exploding = self._found.vanishing(), self._found.exploding()
        for what, names in (("vanishing", vanishing), ("exploding", exploding)):
            if names:
                log.warning("update %d: %s gradient in %s", self._number, what, ", ".join(names))
        yield {
            "event": "numerics",
            "step": self._number,
            "format": self._format,
            "layers": {name: asdict(numbers) for name, numbers in self._found.layers().items()},
            "zero": self._found.zero(),
            "vanishing": vanishing,
            "exploding": exploding,
        }
