"""The runtime in a loop of your own: the same script on one process, torchrun, horovodrun and mpirun.

    python examples/own_loop.py
    torchrun --nproc_per_node=2 examples/own_loop.py
    horovodrun -np 2 python examples/own_loop.py
    mpirun -np 2 python examples/own_loop.py              # torch DDP, the ranks find each other over MPI
    mpirun -np 2 python examples/own_loop.py horovod      # Horovod over MPI

Every one of them ends with the same weights, up to rounding: compare the printed norm.
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from torch import nn

import disttrain
from disttrain.data import ArrayDataset


def make_dataset() -> ArrayDataset:
    """Two interleaved spirals with 1000 points each."""
    generator = torch.Generator().manual_seed(0)
    t = torch.rand(2000, generator=generator).sqrt() * 3 * torch.pi
    label = torch.arange(2000) % 2
    angle = t + torch.pi * label
    points = torch.stack([t * angle.cos(), t * angle.sin()], 1) / 10 + torch.randn(2000, 2, generator=generator) * 0.02
    return ArrayDataset(points, label)


def main(engine_name: str = "auto") -> None:
    with disttrain.init(engine_name) as engine:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
        model = engine.prepare(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
        dataset = make_dataset()
        loader = disttrain.data.loader(dataset, engine.world, global_batch=96, seed=1, epochs=25, per_rank_max=32)
        for batch in loader:
            optimizer.zero_grad()
            for i, micro in enumerate(batch.micro_batches):
                with engine.accumulating(last=i == len(batch.micro_batches) - 1):
                    points, labels = micro.tensors
                    losses = F.cross_entropy(model(points), labels, reduction="none")
                    # This rank's part of the mean over the global batch, however uneven the ranks are.
                    engine.backward(losses, scale=micro.weight / batch.size, items=len(micro.ids))
            engine.reduce_gradients()
            optimizer.step()

        points, labels = dataset.tensors
        accuracy = (model(points).argmax(1) == labels).double().mean()
        norm = torch.cat([p.detach().reshape(-1) for p in model.parameters()]).double().norm()
        if engine.world.is_main:
            print(f"{engine.name}, {engine.world.size} ranks: accuracy {accuracy:.4f}, weight norm {norm:.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
