"""Layers and initialisers for large batches. Needs torch and nothing else of disttrain."""

from disttrain.nn.convert import convert_batch_norm, convert_ghost_batch_norm, convert_sync_batch_norm
from disttrain.nn.dropout import Dropout, StochasticDepth, convert_dropout, dropout_masks
from disttrain.nn.facts import ModelFacts, model_facts
from disttrain.nn.ghost_norm import GhostBatchNorm, GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d, ghost_count
from disttrain.nn.glu import GEGLU, GatedFeedForward, ReGLU, SwiGLU
from disttrain.nn.initialisers import INITIALISERS, initialise, zero_last_gamma
from disttrain.nn.recompute import recompute, recomputed_modules
from disttrain.nn.statistics import (
    defer_statistics,
    divide_statistics,
    exchange_statistics,
    fold_statistics,
    ghost_layers,
)
from disttrain.nn.sync_norm import SyncBatchNorm

__all__ = [
    "GEGLU",
    "INITIALISERS",
    "Dropout",
    "GatedFeedForward",
    "GhostBatchNorm",
    "GhostBatchNorm1d",
    "GhostBatchNorm2d",
    "GhostBatchNorm3d",
    "ModelFacts",
    "ReGLU",
    "StochasticDepth",
    "SwiGLU",
    "SyncBatchNorm",
    "convert_batch_norm",
    "convert_dropout",
    "convert_ghost_batch_norm",
    "convert_sync_batch_norm",
    "defer_statistics",
    "divide_statistics",
    "dropout_masks",
    "exchange_statistics",
    "fold_statistics",
    "ghost_count",
    "ghost_layers",
    "initialise",
    "model_facts",
    "recompute",
    "recomputed_modules",
    "zero_last_gamma",
]
