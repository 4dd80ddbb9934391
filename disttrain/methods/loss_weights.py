"""One loss out of several, by weights; the sums over the global batch that training lines and learned weights need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from disttrain.data.position import Position
from disttrain.engine.agreement import require_agreement
from disttrain.engine.base import Engine
from disttrain.errors import InputError
from disttrain.methods.base import Method, Report
from disttrain.tasks.terms import Losses, stacked, sums, weighted


class LossWeights(Method, ABC):
    """What an update asks of the weights of a task's losses.

    Attributes:
        names: of the losses, sorted; known from the first losses on.
        section: of the recipe that asks for several losses; empty: none does, and a single one is taken as it is.
    """

    section = ""

    def __init__(self, engine: Engine) -> None:
        self.names: tuple[str, ...] = ()
        self._engine = engine
        self._sums: Tensor | None = None

    def begin_update(self, position: Position) -> None:
        self._sums = None

    def combine(self, losses: Losses, share: float) -> Tensor:
        """One loss for each item of a micro-batch.

        Args:
            share: what makes the sum over its items a part of the mean over the global batch.

        Raises:
            InputError: weights for a task of a single loss, or for other losses than it has; or they have changed.
            RankError: on all ranks: the losses are not the same everywhere.
        """
        if isinstance(losses, Tensor):
            if self.section:
                raise InputError(f"{self.section}: this task has a single loss; leave it out").on_all_ranks()
            return losses
        names = tuple(sorted(losses))
        if names != self.names:
            self._meet(names)
        terms = stacked(losses, names)
        parts = sums(terms) * share
        self._sums = parts if self._sums is None else self._sums + parts
        self._see(terms, share)
        return weighted(terms, self.weights())

    @abstractmethod
    def weights(self) -> Tensor:
        """(k,) in the order of ``names``."""

    def report(self) -> Report:
        if self._sums is None:
            return dict
        numbers = self._engine.sum_later(self._sums.clone())
        return lambda: {"losses": dict(zip(self.names, numbers(), strict=True))}

    def _meet(self, names: tuple[str, ...]) -> None:
        if self.names:
            raise InputError(
                f"the task's losses were {', '.join(self.names)} and are now {', '.join(names)}; expected the same in every "
                "batch (zeros, where one does not apply)"
            )
        require_agreement(self._engine, {"losses": {"names": ", ".join(names)}})
        self.names = names
        self._begin()

    @abstractmethod
    def _begin(self) -> None:
        """The names are known."""

    def _see(self, terms: Tensor, share: float) -> None:
        """The losses of a micro-batch, ``(k, ...)``, before their backward pass."""
        return  # only weights learned from gradients look


class FixedWeights(LossWeights):
    """The recipe's ``loss.weights`` (1 where it has none), or a single loss as it is. Nothing is learned."""

    def __init__(self, engine: Engine, weights: Mapping[str, float] | None) -> None:
        super().__init__(engine)
        self._given = weights
        self.section = "loss.weights" if weights is not None else ""

    def weights(self) -> Tensor:
        return self._vector

    def _begin(self) -> None:
        given = dict.fromkeys(self.names, 1.0) if self._given is None else self._given
        if given.keys() != set(self.names):
            raise InputError(
                f"loss.weights has {', '.join(sorted(given)) or 'nothing'}; this task's losses are {', '.join(self.names)}"
            ).on_all_ranks()
        vector = [given[name] for name in self.names]
        self._vector = torch.tensor(vector, dtype=torch.float64, device=self._engine.world.device)
