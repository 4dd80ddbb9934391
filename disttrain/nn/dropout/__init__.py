"""Dropout that does not know the cluster: masks are a function of what is trained, never of what trains it."""

from disttrain.nn.dropout.context import dropout_masks
from disttrain.nn.dropout.convert import convert_dropout, draws_masks
from disttrain.nn.dropout.layers import Drawn, Dropout, StochasticDepth

__all__ = ["Drawn", "Dropout", "StochasticDepth", "convert_dropout", "draws_masks", "dropout_masks"]
