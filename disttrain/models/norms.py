"""Normalisation layers by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from disttrain.errors import InputError
from disttrain.nn import GhostBatchNorm1d, GhostBatchNorm2d
from disttrain.nn.ghost_norm import StatsUpdate


@dataclass(frozen=True, slots=True)
class Norm:
    """A kind of normalisation, for networks to make their layers with.

    Attributes:
        name: ``batch``, ``ghost_batch``, ``group``, ``layer``, ``instance`` or ``none``.
        ghost_size, stats_update: of ghost batch norm. Not ``sequential``, as the layer alone has it: with ``mean`` the running
            statistics average over as many updates whatever the number of ghosts, and the order of samples does not matter.
        groups: of group norm (Wu and He 2018, arXiv:1803.08494): so many, or as many as divide both that
            and the channels; 32 is the paper's choice.
    """

    name: str
    ghost_size: int = 32
    stats_update: StatsUpdate = "mean"
    groups: int = 32

    def over_images(self, channels: int) -> nn.Module:
        """Of ``(batch, channels, height, width)``. Layer norm is over channels and positions together, as one group.

        Raises:
            InputError: another name.
        """
        return self._choose(
            batch=lambda: nn.BatchNorm2d(channels),
            ghost_batch=lambda: GhostBatchNorm2d(channels, self.ghost_size, stats_update=self.stats_update),
            group=lambda: nn.GroupNorm(math.gcd(self.groups, channels), channels),
            layer=lambda: nn.GroupNorm(1, channels),
            instance=lambda: nn.GroupNorm(channels, channels),
            none=nn.Identity,
        )

    def over_features(self, features: int) -> nn.Module:
        """Of ``(batch, features)``.

        Raises:
            InputError: another name.
        """
        return self._choose(
            batch=lambda: nn.BatchNorm1d(features),
            ghost_batch=lambda: GhostBatchNorm1d(features, self.ghost_size, stats_update=self.stats_update),
            layer=lambda: nn.LayerNorm(features),
            none=nn.Identity,
        )

    def _choose(self, **makers: Callable[[], nn.Module]) -> nn.Module:
        if self.name not in makers:
            *most, last = makers
            raise InputError(f"norm is {self.name!r}; it must be {', '.join(most)} or {last}")
        return makers[self.name]()
