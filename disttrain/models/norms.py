"""Normalisation layers by name."""

from __future__ import annotations

import math

from torch import nn


def norm2d(name: str, channels: int) -> nn.Module:
    """A normalisation of ``(batch, channels, height, width)``: ``batch``, ``group`` (up to 8 groups of equal size, Wu and
    He 2018, arXiv:1803.08494) or ``none``."""
    match name:
        case "batch":
            return nn.BatchNorm2d(channels)
        case "group":
            return nn.GroupNorm(math.gcd(8, channels), channels)
        case "none":
            return nn.Identity()
    raise ValueError(f"norm {name!r}: expected batch, group or none")


def norm1d(name: str, features: int) -> nn.Module:
    """A normalisation of ``(batch, features)``: ``batch``, ``layer`` or ``none``."""
    match name:
        case "batch":
            return nn.BatchNorm1d(features)
        case "layer":
            return nn.LayerNorm(features)
        case "none":
            return nn.Identity()
    raise ValueError(f"norm {name!r}: expected batch, layer or none")
