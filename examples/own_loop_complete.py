"""A loop of your own with all that a long run needs: mixed precision, evaluation by exact counts, a schedule, checkpoints, and an
end on request. Start it, stop it with SIGTERM (exit code 75), and start it again, on as many ranks or on others: it goes on.

    torchrun --nproc_per_node=4 examples/own_loop_complete.py runs/spirals
    torchrun --nproc_per_node=2 examples/own_loop_complete.py runs/spirals
    horovodrun -np 3 python examples/own_loop_complete.py runs/spirals
"""

from __future__ import annotations

import argparse
import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import disttrain
from disttrain.data import ArrayDataset, held_out
from disttrain.data.order import GlobalShuffle
from disttrain.errors import StopRequested


def make_dataset() -> ArrayDataset:
    """Two interleaved spirals with 1000 points each."""
    generator = torch.Generator().manual_seed(0)
    t = torch.rand(2000, generator=generator).sqrt() * 3 * torch.pi
    label = torch.arange(2000) % 2
    angle = t + torch.pi * label
    points = torch.stack([t * angle.cos(), t * angle.sin()], 1) / 10 + torch.randn(2000, 2, generator=generator) * 0.02
    return ArrayDataset(points, label)


def main(options: argparse.Namespace) -> int:
    with disttrain.init(options.engine) as engine, disttrain.stop_requests(engine) as stop:
        precision = disttrain.use_precision(options.precision, engine.world.device)
        dtype = precision.parameter_dtype
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
        model = engine.prepare(network.to(dtype))
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=options.epochs * 19)

        def measure(module: nn.Module, tensors: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
            points, labels = tensors
            with precision.forward_context():
                logits = module(points.to(dtype))
            return {"correct": (logits.argmax(1) == labels).sum(), "samples": torch.tensor(len(labels))}

        parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "precision": precision}
        state = disttrain.State(engine, options.directory, values={"best": 0.0}, **parts)
        state.load()
        dataset = make_dataset()
        train, validation = held_out(len(dataset), 0.1)
        loader = disttrain.data.loader(
            dataset,
            engine.world,
            global_batch=96,
            epochs=options.epochs,
            per_rank_max=32,
            order=GlobalShuffle(len(train), 1, train),
            position=state.position,
            device=engine.world.device,
        )
        for batch in loader:
            optimizer.zero_grad()
            for i, micro in enumerate(batch):
                with engine.accumulating(last=i == len(batch.micro_batches) - 1):
                    points, labels = micro.tensors
                    with precision.forward_context():
                        losses = F.cross_entropy(model(points.to(dtype)), labels, reduction="none")
                    engine.backward(precision.scale(losses), scale=micro.weight / batch.size, items=len(micro.ids))
            engine.reduce_gradients()
            precision.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            precision.step(optimizer)
            schedule.step()
            state.advance(batch)
            if batch.ends_epoch:
                found = disttrain.totals(engine, model, dataset, measure, chosen=validation)
                state.values["best"] = max(state.values["best"], found["correct"] / found["samples"])
                state.save()
            if stop() or state.position.updates == options.stop_after:
                state.save()
                return StopRequested.exit_code
        norm = torch.cat([p.detach().reshape(-1) for p in network.parameters()]).double().norm()
        if engine.world.is_main:
            print(
                f"{engine.name}, {engine.world.size} ranks: best accuracy {state.values['best']:.4f}, norm {norm:.4f}"
            )
        return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--stop-after", type=int, help="updates, as if a signal had come then")
    sys.exit(main(parser.parse_args()))
