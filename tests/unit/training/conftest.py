"""A run of one process, built in memory."""

from __future__ import annotations

import pytest
import torch
from training_cases import MakeRun

from disttrain.config import load_recipe
from disttrain.engine.local import LocalEngine
from disttrain.engine.world import World
from disttrain.training.build import build_run
from disttrain.training.state import Run


@pytest.fixture
def make_run() -> MakeRun:
    def make(*overrides: str) -> Run:
        world = World(0, 1, 0, 1, 0, torch.device("cpu"))
        return build_run(load_recipe(None, ["log.tensorboard=false", *overrides]), LocalEngine(world))

    return make
