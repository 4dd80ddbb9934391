"""Weights of several losses that a run learns from the whole global batch.

What is learned is learned from means and gradients over the global batch, summed over ranks and micro-batches, so the
weights are the same on every rank and do not depend on how many there are. They are no parameters of the model: their
optimizer is their own, so that trust ratios, weight decay and warmup leave them alone, and the model's checkpoint is the model's.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from disttrain.data.batch import Batch
from disttrain.data.position import Position
from disttrain.engine.base import Engine
from disttrain.engine.later import later
from disttrain.errors import InputError
from disttrain.grads import GradNormWeights, UncertaintyWeights, select
from disttrain.methods.base import Context, Report
from disttrain.methods.loss_weights import FixedWeights, LossWeights
from disttrain.precision import Precision


class LearnedWeights(LossWeights):
    """What both ways of learning share."""

    section = "loss.balance"
    always = True

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._means: Tensor | None = None
        self._parts: dict[str, Any] = {}  # what learns, with its state; known once the names are

    def end_update(self, batch: Batch) -> None:
        if self._sums is not None:
            self._means = self._engine.all_reduce(self._sums)
            self._learn(self._means)

    def report(self) -> Report:
        if self._means is None:
            return dict
        numbers = later(torch.cat([self._means, self.weights().to(self._means)]))

        def found() -> dict[str, Any]:
            values, k = numbers(), len(self.names)
            return {
                "losses": dict(zip(self.names, values[:k], strict=True)),
                "loss_weights": dict(zip(self.names, values[k:], strict=True)),
            }

        return found

    def state_dict(self) -> dict[str, Any]:
        parts = {name: dict(part.state_dict()) for name, part in self._parts.items()}
        return {"names": list(self.names), **parts} if self.names else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        names = state["names"]
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError("the names of the losses are not a list of texts")
        self.names = tuple(names)
        self._begin()
        for name, part in self._parts.items():
            part.load_state_dict(state[name])

    @abstractmethod
    def _learn(self, means: Tensor) -> None:
        """From the means of the losses over the global batch, (k,) float64."""


class LearnedUncertainty(LearnedWeights):
    """:class:`disttrain.grads.UncertaintyWeights`, its log variances learned by Adam. The paper learns them with the network's
    optimizer."""

    def __init__(self, engine: Engine, lr: float) -> None:
        super().__init__(engine)
        self._lr = lr

    def _begin(self) -> None:
        self._module = UncertaintyWeights(self.names).to(self._engine.world.device, torch.float64)
        self._adam = torch.optim.Adam(self._module.parameters(), lr=self._lr)
        self._parts = {"module": self._module, "adam": self._adam}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        moments = state["adam"]["state"][0]
        like = torch.zeros(len(state["names"]))
        for name, mine in (("step", torch.zeros(())), ("exp_avg", like), ("exp_avg_sq", like)):
            kept = moments[name]
            if not isinstance(kept, Tensor) or kept.shape != mine.shape or not kept.is_floating_point():
                raise ValueError(f"{name} of the loss weights' Adam does not fit {len(like)} losses")
        # What Adam is set to is the recipe's word; only its moments are the checkpoint's.
        groups = torch.optim.Adam([torch.zeros(1)], lr=self._lr).state_dict()["param_groups"]
        super().load_state_dict({**state, "adam": {"state": {0: dict(moments)}, "param_groups": groups}})

    def weights(self) -> Tensor:
        return torch.exp(-self._module.log_variances.detach())

    def _learn(self, means: Tensor) -> None:
        self._adam.zero_grad()
        self._module(dict(zip(self.names, means, strict=True))).backward()
        self._adam.step()


class BalancedGradients(LearnedWeights):
    """:class:`disttrain.grads.GradNormWeights` on the gradients of the global batch: one more backward pass for each
    loss, through what lies between it and the shared layer.

    Args:
        shared: the parameters of the shared layer.
    """

    def __init__(
        self, engine: Engine, precision: Precision, shared: Sequence[nn.Parameter], *, alpha: float, lr: float
    ) -> None:
        super().__init__(engine)
        self._precision = precision
        self._shared = list(shared)
        self._alpha, self._lr = alpha, lr
        self._gradients: Tensor | None = None
        self._loss_scale = 1.0

    def begin_update(self, position: Position) -> None:
        super().begin_update(position)
        self._gradients = None
        self._loss_scale = self._precision.loss_scale  # fp16 has another one once the update is over

    def _begin(self) -> None:
        self._gradnorm = GradNormWeights(self.names, alpha=self._alpha, lr=self._lr)
        self._parts = {"gradnorm": self._gradnorm}

    def weights(self) -> Tensor:
        return self._gradnorm.values

    def _see(self, terms: Tensor, share: float) -> None:
        rows = []
        for term in terms:
            part = self._precision.scale(term.sum() * share)
            gradient = torch.autograd.grad(part, self._shared, retain_graph=True, materialize_grads=True)
            rows.append(torch.cat([tensor.double().flatten() for tensor in gradient]))
        rows_now = torch.stack(rows)
        self._gradients = rows_now if self._gradients is None else self._gradients + rows_now

    def _learn(self, means: Tensor) -> None:
        assert self._gradients is not None
        gradients = self._engine.all_reduce(self._gradients)
        norms = gradients.norm(dim=1) / self._loss_scale
        self._gradnorm.update(dict(zip(self.names, means, strict=True)), dict(zip(self.names, norms, strict=True)))


def make_loss_weights(context: Context) -> LossWeights:
    """From the recipe's ``loss.weights`` and ``loss.balance``.

    Raises:
        InputError: a pattern selects nothing.
    """
    engine, balance = context.engine, context.recipe.loss.balance
    if balance is None:
        return FixedWeights(engine, context.recipe.loss.weights)
    if balance.kind == "uncertainty":
        return LearnedUncertainty(engine, balance.lr)
    try:
        shared = select(context.model, balance.parameters)
    except ValueError as error:
        raise InputError(f"loss.balance: {error}") from None
    return BalancedGradients(engine, context.precision, shared, alpha=balance.alpha, lr=balance.lr)
