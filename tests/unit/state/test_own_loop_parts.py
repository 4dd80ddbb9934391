"""Small parts of a loop of one's own: sums over a set, a place to begin, noise, precision, and a request to stop."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import disttrain
from disttrain.data import ArrayDataset, Batch, Selection, loader, noise
from disttrain.data.randomness import normal
from disttrain.engine.stop import StopVote
from disttrain.errors import InputError

ENGINE = disttrain.init("local", device="cpu")


def measure(model: nn.Module, tensors: tuple[Tensor, ...]) -> dict[str, Tensor]:
    assert not model.training
    return {"sum": tensors[0].sum(), "samples": torch.tensor(len(tensors[0]))}


def test_totals_count_every_sample_once_and_leave_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    data = ArrayDataset(torch.arange(10))
    assert disttrain.totals(ENGINE, model, data, measure, batch=3) == {"sum": 45.0, "samples": 10.0}
    part = disttrain.totals(ENGINE, model, data, measure, chosen=Selection(10, 0, 10).first(4))
    assert part["samples"] == 4.0
    assert [m.training for m in model] == [True, False]
    with pytest.raises(InputError, match=r"measure\(\) gave a tensor of shape \(10,\) as x; expected a scalar"):
        disttrain.totals(ENGINE, model, data, lambda m, tensors: {"x": tensors[0]})


def batches(size: int, rank: int, **words: object) -> list[Batch]:
    world = SimpleNamespace(rank=rank, size=size)
    return list(loader(ArrayDataset(torch.arange(23)), world, global_batch=8, seed=1, **words))  # type: ignore[arg-type]


def test_a_loader_begins_where_a_position_says() -> None:
    everything = batches(1, 0, epochs=2)
    position = disttrain.data.Position()
    for batch in everything[:4]:
        position = position.advanced(batch)
    rest = batches(1, 0, epochs=2, position=position)
    assert [b.ids.tolist() for b in rest] == [b.ids.tolist() for b in everything[4:]]
    assert len(rest) == 2


@pytest.mark.parametrize(("size", "per_rank_max"), [(1, None), (1, 3), (3, 2), (8, None)])
def test_noise_knows_the_place_in_the_global_batch_and_no_rank(size: int, per_rank_max: int | None) -> None:
    for number in range(3):
        rows: dict[int, Tensor] = {}
        for rank in range(size):
            batch = batches(size, rank, per_rank_max=per_rank_max)[number]
            for i, micro in enumerate(batch):
                drawn = noise(5, number, batch.indices(i), (2, 2), stream="z", dtype=torch.float64)
                assert drawn.shape == (len(micro.ids), 2, 2)
                assert [batch.global_ids[k] for k in batch.indices(i)] == micro.ids.tolist()
                rows |= dict(zip(batch.indices(i).tolist(), drawn, strict=True))
        expected = normal(5, number, np.arange(batch.size), stream="z", draws=4).reshape(-1, 2, 2)
        assert torch.equal(torch.stack([rows[k] for k in range(batch.size)]), torch.from_numpy(expected))
    assert noise(5, 0, [0, 1]).dtype == torch.float32


def test_a_precision_by_name() -> None:
    assert disttrain.use_precision("bf16", ENGINE.world.device).forward_context() is not None
    with pytest.raises(InputError, match="'half': expected one of fp32, fp64, tf32, bf16, fp16"):
        disttrain.use_precision("half", ENGINE.world.device)
    disttrain.use_precision("fp32", ENGINE.world.device)  # as it was


def test_a_signal_asks_to_stop_and_handlers_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StopVote.__init__, "__defaults__", (0.0,))  # a vote after every update
    before = signal.getsignal(signal.SIGUSR1)
    with disttrain.stop_requests(ENGINE) as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop()
    assert signal.getsignal(signal.SIGUSR1) is before
