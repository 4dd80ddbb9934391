"""Normalisation layers by name."""

from __future__ import annotations

import math
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
        match self.name:
            case "batch":
                return nn.BatchNorm2d(channels)
            case "ghost_batch":
                return GhostBatchNorm2d(channels, self.ghost_size, stats_update=self.stats_update)
            case "group":
                return nn.GroupNorm(math.gcd(self.groups, channels), channels)
            case "layer":
                return nn.GroupNorm(1, channels)
            case "instance":
                return nn.GroupNorm(channels, channels)
            case "none":
                return nn.Identity()
        raise InputError(f"norm is {self.name!r}; it must be batch, ghost_batch, group, layer, instance or none")

    def over_features(self, features: int) -> nn.Module:
        """Of ``(batch, features)``.

        Raises:
            InputError: another name.
        """
        match self.name:
            case "batch":
                return nn.BatchNorm1d(features)
            case "ghost_batch":
                return GhostBatchNorm1d(features, self.ghost_size, stats_update=self.stats_update)
            case "layer":
                return nn.LayerNorm(features)
            case "none":
                return nn.Identity()
        raise InputError(f"norm is {self.name!r}; it must be batch, ghost_batch, layer or none")
