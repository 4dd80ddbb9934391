"""Two models with two optimizers in a loop of your own: a GAN (Goodfellow et al. 2014, arXiv:1406.2661, with the generator's
non-saturating loss) learns eight blobs on a circle. An actor and a critic are trained in the same way.

    torchrun --nproc_per_node=2 examples/gan.py runs/gan
    torchrun --nproc_per_node=3 examples/gan.py runs/gan       # after SIGTERM (exit code 75): goes on, the same run

The generator's input is a function of (seed, update, place in the global batch), so that it does not depend on the ranks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import disttrain
from disttrain.data import ArrayDataset, Batch, noise
from disttrain.data.randomness import normal, uniform
from disttrain.errors import StopRequested

LATENT, SEED = 8, 1


def make_dataset(samples: int = 4000) -> ArrayDataset:
    """Points (samples, 2) of eight narrow blobs."""
    ids = np.arange(samples)
    angle = np.floor(8 * uniform(SEED, 0, ids, stream="blob")) * np.pi / 4
    points = np.concatenate([np.cos(angle), np.sin(angle)], 1) + 0.05 * normal(SEED, 0, ids, stream="point", draws=2)
    return ArrayDataset(torch.from_numpy(points))


def perceptron(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, outputs)
    )


def is_real(logits: Tensor, real: bool) -> Tensor:
    """(n,) losses of a discriminator's (n, 1) logits."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)), reduction="none").squeeze(1)


def step(
    engine: disttrain.Engine,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    losses: Callable[[int, Tensor], Iterator[Tensor]],
) -> None:
    """One update of one of the two: ``losses`` gives, for a micro-batch, one or several losses for each of its samples."""
    optimizer.zero_grad()
    for i, micro in enumerate(batch):
        with engine.accumulating(last=i == len(batch.micro_batches) - 1):
            total = torch.stack(list(losses(i, micro.tensors[0]))).sum(0)
            engine.backward(total, scale=micro.weight / batch.size, items=len(micro.ids))
    engine.reduce_gradients()
    optimizer.step()


def main(options: argparse.Namespace) -> int:
    with disttrain.init(options.engine) as engine, disttrain.stop_requests(engine) as stop:
        precision = disttrain.use_precision(options.precision, engine.world.device)
        dtype = precision.parameter_dtype
        torch.manual_seed(SEED)
        generator = engine.prepare(perceptron(LATENT, 2).to(dtype))
        discriminator = engine.prepare(perceptron(2, 1).to(dtype))
        average = AveragedModel(engine.unwrap(generator), multi_avg_fn=get_ema_multi_avg_fn(0.99))
        adam = {"lr": 1e-3, "betas": (0.5, 0.99)}
        first, second = (torch.optim.Adam(m.parameters(), **adam) for m in (discriminator, generator))
        parts = {
            "generator": generator,
            "discriminator": discriminator,
            "average": average,
            "first": first,
            "second": second,
        }
        state = disttrain.State(engine, options.directory, **parts)
        state.load()
        loader = disttrain.data.loader(
            make_dataset(),
            engine.world,
            global_batch=options.batch,
            per_rank_max=options.per_rank_max,
            seed=SEED,
            epochs=options.epochs,
            position=state.position,
            device=engine.world.device,
        )
        for batch in loader:

            def latent(i: int, stream: str, batch: Batch = batch) -> Tensor:
                where = {"dtype": dtype, "device": engine.world.device}
                return noise(SEED, state.position.updates, batch.indices(i), (LATENT,), stream=stream, **where)

            def tell_apart(i: int, points: Tensor) -> Iterator[Tensor]:
                with torch.no_grad():
                    made = generator(latent(i, "first"))
                real, false = discriminator(torch.cat([points.to(dtype), made])).chunk(2)
                yield from (is_real(real, True), is_real(false, False))

            def deceive(i: int, points: Tensor) -> Iterator[Tensor]:
                yield is_real(discriminator(generator(latent(i, "second"))), True)

            step(engine, first, batch, tell_apart)
            discriminator.requires_grad_(False)  # the generator's losses go through it and leave it as it is
            step(engine, second, batch, deceive)
            discriminator.requires_grad_(True)
            average.update_parameters(engine.unwrap(generator))
            state.advance(batch)
            if batch.ends_epoch:
                state.save()
            if stop() or state.position.updates == options.stop_after:
                state.save()
                return StopRequested.exit_code
        if engine.world.is_main:
            report(average, dtype, engine.world.device)
        return 0


def report(average: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """How many of 1000 points, made by the averaged generator, lie near a blob, and near how many different ones."""
    with torch.no_grad():
        points = average(noise(SEED, 0, np.arange(1000), (LATENT,), stream="report", dtype=dtype, device=device)).cpu()
    angles = torch.arange(8) * torch.pi / 4
    distance = torch.cdist(points, torch.stack([angles.cos(), angles.sin()], 1).to(dtype))
    near = distance.min(1).values < 0.2
    print(f"{near.double().mean():.1%} of the points are near one of {len(distance.argmin(1)[near].unique())} blobs")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", choices=("fp32", "fp64"), default="fp32")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--per-rank-max", type=int)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--stop-after", type=int, help="updates, as if a signal had come then")
    sys.exit(main(parser.parse_args()))
