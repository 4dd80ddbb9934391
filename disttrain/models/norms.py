"""Normalisation layers by name."""

from __future__ import annotations

import math

from torch import nn

from disttrain.errors import InputError


def norm2d(name: str, channels: int, groups: int = 32) -> nn.Module:
    """A normalisation of ``(batch, channels, height, width)``: ``batch``, ``group`` or ``none``.

    Group norm (Wu and He 2018, arXiv:1803.08494) gets ``groups`` groups, or as many as divide both that and the channels;
    32 is the paper's choice.

    Raises:
        InputError: another name.
    """
    match name:
        case "batch":
            return nn.BatchNorm2d(channels)
        case "group":
            return nn.GroupNorm(math.gcd(groups, channels), channels)
        case "none":
            return nn.Identity()
    raise InputError(f"norm is {name!r}; it must be batch, group or none")


def norm1d(name: str, features: int) -> nn.Module:
    """A normalisation of ``(batch, features)``: ``batch``, ``layer`` or ``none``.

    Raises:
        InputError: another name.
    """
    match name:
        case "batch":
            return nn.BatchNorm1d(features)
        case "layer":
            return nn.LayerNorm(features)
        case "none":
            return nn.Identity()
    raise InputError(f"norm is {name!r}; it must be batch, layer or none")
