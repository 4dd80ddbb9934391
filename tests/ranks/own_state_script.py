"""Every rank: what differs between ranks comes back to each of them; on other ranks the mean does; disagreement is named."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

import disttrain
from disttrain.checkpoint import list_checkpoints, load_latest
from disttrain.data import Position
from disttrain.errors import DisttrainError, InputError, RankError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def message(kind: type[DisttrainError], action) -> str:  # type: ignore[no-untyped-def]
    try:
        action()
    except kind as error:
        return str(error)
    return "no error"


def main(directory: str, name: str) -> None:
    with disttrain.init(name, device="cpu") as engine:
        rank, size = engine.world.rank, engine.world.size
        model = engine.prepare(network())
        norm = engine.unwrap(model)[1]
        with disttrain.State(engine, directory, keep=2, model=model) as state:
            if state.load():  # on other ranks than before
                assert norm.running_mean.tolist() == [1.5] * 4  # of 1 and 2
                assert norm.num_batches_tracked.item() == 7
                assert state.values == {"seen": [1, 2.5, "x"], "none": None}
                state.values = {}
            torch.manual_seed(100 + rank)
            norm.running_mean.fill_(rank + 1.0)
            norm.num_batches_tracked.fill_(rank + 7)
            state.position = Position(epoch=1, offset=5, samples=25, updates=5 + size)
            state.values.update(seen=[1, 2.5, "x"], none=None)
            state.save()
            assert norm.running_mean.tolist() == [rank + 1.0] * 4  # looking changes nothing
            drawn = torch.rand(3)
            if rank == 0:
                stored = load_latest(Path(directory)).checkpoint.model["1.running_mean"].tolist()
                assert stored == [(size + 1) / 2] * 4, stored
            other = message(InputError, lambda: disttrain.State(engine, directory, model=model))
            assert "is using this run directory" in other, other

        torch.manual_seed(0)
        again = engine.prepare(network())
        with disttrain.State(engine, directory, model=again, values={"mine": rank}) as state:
            assert state.load()
            assert engine.unwrap(again)[1].running_mean.tolist() == [rank + 1.0] * 4
            assert engine.unwrap(again)[1].num_batches_tracked.item() == rank + 7
            assert torch.equal(torch.rand(3), drawn)
            assert state.position == Position(epoch=1, offset=5, samples=25, updates=5 + size)
            state.values["mine"] = rank
            said = message(RankError, state.save)
            assert "state values" in said, said
            state.values["mine"] = object() if rank else 1
            said = message(DisttrainError, state.save)
            assert "cannot be saved" in said, said
            assert max(list_checkpoints(Path(directory))) == 5 + size
        print(f"as it was on {size} ranks", flush=True)


main(*sys.argv[1:])
