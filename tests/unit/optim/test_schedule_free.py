"""The benchmark's schedule-free AdamW against its three sequences, written out in float64."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from benchmarks.schedule_free import ScheduleFreeAdamW
from tests.unit.optim.golden import agree
from tests.unit.optim.test_golden import gradient, starts

RATES = [0.0, 0.02, 0.04, *[0.05] * 6]
BETAS, EPS, DECAY = (0.9, 0.98), 1e-8, 0.3


def expected(rates: list[float]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The weights that gradients are taken at, and their average."""
    ys, xs = [], []
    for i, start in enumerate(starts()):
        y, z, past, v = start.copy(), start.copy(), [], np.zeros_like(start)
        for t, lr in enumerate(rates):
            g = gradient(t, i, y)
            v = BETAS[1] * v + (1 - BETAS[1]) * g**2
            z = z - lr * (g / (np.sqrt(v / (1 - BETAS[1] ** (t + 1))) + EPS) + DECAY * y)
            past.append(z)
            x = np.average(past, axis=0, weights=np.square(rates[: t + 1])) if t else start
            y = BETAS[0] * x + (1 - BETAS[0]) * z
        ys.append(y)
        xs.append(x)
    return ys, xs


def test_gradients_are_taken_beside_the_average_which_is_what_remains() -> None:
    for last, at in ((len(RATES) + 1, 0), (len(RATES), 1)):
        params = [nn.Parameter(torch.from_numpy(w.copy())) for w in starts()]
        optimizer = ScheduleFreeAdamW(params, betas=BETAS, eps=EPS, weight_decay=DECAY, last=last)
        for t, lr in enumerate(RATES):
            optimizer.param_groups[0]["lr"] = lr
            for i, p in enumerate(params):
                p.grad = torch.from_numpy(gradient(t, i, p.detach().numpy()))
            optimizer.step()
        agree([p.detach() for p in params], expected(RATES)[at], 1e-11)
