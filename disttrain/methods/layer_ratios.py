"""Each layer's trust ratio and update-to-weight ratio on the training lines."""

from __future__ import annotations

from disttrain.engine.later import later
from disttrain.methods.base import Context, Method, Report
from disttrain.optim import layer_ratios


class LayerRatios(Method):
    """What LARS and LAMB recorded in their last step."""

    def __init__(self, context: Context) -> None:
        self._optimizer = context.optimizer
        names = {id(p): name for name, p in context.model.named_parameters()}
        self._names = [names[id(p)] for p in context.params]

    def report(self) -> Report:
        found = {kind: later(ratios) for kind, ratios in layer_ratios(self._optimizer).items()}
        return lambda: {kind: dict(zip(self._names, ratios(), strict=True)) for kind, ratios in found.items()}
