"""The state of a loop of one's own: saved and loaded on all ranks, with the guarantees of a run."""

from __future__ import annotations

from disttrain.state.state import State

__all__ = ["State"]
