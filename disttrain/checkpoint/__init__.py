"""Checkpoints without pickle: safetensors and JSON, verified by sha256, safe against a kill at any moment."""

from __future__ import annotations

from disttrain.checkpoint.format import Checkpoint, list_checkpoints
from disttrain.checkpoint.load import (
    Loaded,
    load_checkpoint,
    load_latest,
    verify_checkpoint,
)
from disttrain.checkpoint.lock import run_lock
from disttrain.checkpoint.retention import prune
from disttrain.checkpoint.rng import capture_rng, restore_rng
from disttrain.checkpoint.save import save_checkpoint
from disttrain.checkpoint.tree import flatten, unflatten

__all__ = [
    "Checkpoint",
    "Loaded",
    "capture_rng",
    "flatten",
    "list_checkpoints",
    "load_checkpoint",
    "load_latest",
    "prune",
    "restore_rng",
    "run_lock",
    "save_checkpoint",
    "unflatten",
    "verify_checkpoint",
]
