"""A rehearsal leaves no trace."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_cases import MakeRun

from disttrain.checkpoint import capture_rng
from disttrain.training.build import make_loader
from disttrain.training.rehearse import rehearse


class Restless(nn.Module):
    """Draws from every generator there is, and puts a new buffer in place of the old one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.seen + 1
        out: Tensor = self.model(x) + float(torch.rand(()) + np.random.rand() + random.random())
        return out


def test_generators_and_buffers_are_as_before(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("batch.global=32")
    run.model = run.wrapped = Restless(run.model)
    monkeypatch.setattr(run.engine, "rehearsals", 2)
    batch, before = next(iter(make_loader(run))), capture_rng("cpu")
    rehearse(run, batch)
    assert capture_rng("cpu") == before
    assert float(run.model.seen) == 0.0
    assert all(p.grad is None for p in run.params)
