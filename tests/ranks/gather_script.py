"""Every rank: gathered rows and their gradients, and two prepared models, against one process in float64."""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import disttrain
from disttrain.data import ArrayDataset
from disttrain.errors import DisttrainError, InputError

ROWS = [3, 0, 2, 4]  # of each rank


def network(seed: int, out: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, out)).double()


def contrast(a: Tensor, b: Tensor, all_a: Tensor, all_b: Tensor, pair: Tensor) -> Tensor:
    return F.cross_entropy(a @ all_b.T, pair, reduction="none") + F.cross_entropy(b @ all_a.T, pair, reduction="none")


def assert_close(mine: nn.Module, reference: nn.Module, name: str) -> None:
    for a, b in zip(mine.parameters(), reference.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        gap = float((a.grad - b.grad).abs().max() / b.grad.abs().max())
        assert gap <= 1e-12, f"{name}: {gap:.2e}"


def gathered(engine: disttrain.Engine) -> None:
    """Uneven rows, none on one rank; several updates, so that DDP moves its buckets in between."""
    rank, size = engine.world.rank, engine.world.size
    rows = ROWS[:size]
    first = sum(rows[:rank])
    plain = engine.gather(torch.arange(first, first + rows[rank]))
    assert plain.tolist() == list(range(sum(rows)))
    for static in (False, True):
        model, reference = engine.prepare(network(1, 6), static_graph=static), network(1, 6)
        for step in range(3):
            x = torch.randn(sum(rows), 5, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
            model.zero_grad()
            reference.zero_grad()
            mine = x[first : first + rows[rank]] if rows[rank] else x[:1]  # without any, one is borrowed, of weight 0
            a, b = model(mine).chunk(2, dim=1)
            own = slice(0, rows[rank])
            all_a, all_b = engine.gather(a[own]), engine.gather(b[own])
            pair = torch.arange(len(mine)) + (first if rows[rank] else 0)
            engine.backward(contrast(a, b, all_a, all_b, pair), scale=(rows[rank] > 0) / sum(rows))
            engine.reduce_gradients()
            a, b = reference(x).chunk(2, dim=1)
            contrast(a, b, a, b, torch.arange(sum(rows))).mean().backward()
            assert torch.equal(all_a.detach()[first : first + rows[rank]], model(mine).chunk(2, dim=1)[0].detach()[own])
            assert_close(engine.unwrap(model), reference, f"gather, static graph {static}, update {step}")


def of_every_kind(engine: disttrain.Engine) -> None:
    """Rows of each dtype; rows that differ between ranks are refused on all of them."""
    rank, size = engine.world.rank, engine.world.size
    for dtype in (torch.bfloat16, torch.float16, torch.bool, torch.int32):
        rows = torch.full((2, 3), rank % 2 + 1).to(dtype).requires_grad_(dtype.is_floating_point)
        found = engine.gather(rows)
        assert found.dtype == dtype
        assert torch.equal(found.detach()[2 * rank : 2 * rank + 2], rows.detach())
        if rows.requires_grad:
            found.float().sum().backward()
            assert rows.grad is not None
            assert torch.equal(rows.grad, torch.full_like(rows, size))
    wrong = (
        [torch.zeros(())]
        if size == 1
        else [torch.zeros(()), torch.zeros(2, 3 + rank), torch.zeros(2, 3).to(torch.float64 if rank else torch.float32)]
    )
    for tensor in wrong:
        try:
            engine.gather(tensor)
        except DisttrainError as error:
            message = str(error) if error.everywhere else "one rank alone"
        else:
            message = "not refused"
        assert "gather()" in message, message


def by_the_loader(engine: disttrain.Engine) -> None:
    """The rows of a loader's batch, the last of which is smaller than the ranks are many."""
    x = torch.randn(9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    model, reference = engine.prepare(network(2, 6)), network(2, 6)
    for batch in disttrain.data.loader(ArrayDataset(x), engine.world, global_batch=8, seed=3):
        model.zero_grad()
        reference.zero_grad()
        everywhere, (micro,) = disttrain.GlobalBatch(engine, batch), batch.micro_batches
        a, b = model(micro.tensors[0]).chunk(2, dim=1)
        losses = contrast(a, b, everywhere.gather(a), everywhere.gather(b), everywhere.own())
        engine.backward(losses, scale=micro.weight / batch.size, items=len(micro.ids))
        engine.reduce_gradients()
        a, b = reference(x[torch.from_numpy(batch.global_ids)]).chunk(2, dim=1)
        contrast(a, b, a, b, torch.arange(batch.size)).mean().backward()
        if batch.size > 1:
            assert_close(engine.unwrap(model), reference, "loader")
        else:  # one pair cannot be told apart from others: no gradient
            assert all(not p.grad.any() for p in engine.unwrap(model).parameters())
        assert "one for each sample" in said(everywhere, a[1:])
        assert "one for each sample" in said(everywhere, torch.cat([a, a[:1]]))
        cut = disttrain.GlobalBatch(engine, replace(batch, micro_batches=[micro, micro]))
        assert "cut into 2 micro-batches" in said(cut, a)
        with torch.inference_mode():
            assert "in training" in said(everywhere, a)


def said(everywhere: disttrain.GlobalBatch, tensor: Tensor) -> str:
    """How it is refused; no rank exchanges anything."""
    try:
        everywhere.gather(tensor)
    except InputError as error:
        return str(error)
    return "not refused"


def two_models(engine: disttrain.Engine) -> None:
    """Each is reduced after a backward through it, and left alone otherwise: its gradients are not added up once more."""
    rank, size = engine.world.rank, engine.world.size
    models = [engine.prepare(network(seed)) for seed in (3, 4)]
    references = [network(seed) for seed in (3, 4)]
    x = torch.randn(size, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    for step in range(3):
        for model in [*models, *references]:
            model.zero_grad()
        for model, reference in zip(models, references, strict=True):
            for i, half in enumerate(x[rank].split(2)):
                with engine.accumulating(last=i == 1):
                    engine.backward(model(half).square().sum(1), scale=1 / (4 * size))
            engine.reduce_gradients()
            reference(x.flatten(0, 1)).square().sum(1).mean().backward()
        for name, model, reference in zip("AB", models, references, strict=True):
            assert_close(engine.unwrap(model), reference, f"model {name}, update {step}")
    # Through both at once, one of them frozen: as a generator is trained through a discriminator.
    through = engine.prepare(nn.Sequential(network(5, 5)))
    plain = network(5, 5)
    for model in (models[0], references[0]):
        model.requires_grad_(False)
        model.zero_grad()
    for _ in range(2):
        through.zero_grad()
        plain.zero_grad()
        engine.backward(models[0](through(x[rank])).square().sum(1), scale=1 / (4 * size))
        engine.reduce_gradients()
        references[0](plain(x.flatten(0, 1))).square().sum(1).mean().backward()
        assert_close(engine.unwrap(through), plain, "through a frozen model")
    assert all(p.grad is None for p in engine.unwrap(models[0]).parameters())
    models[0].requires_grad_(True)
    references[0].requires_grad_(True)
    engine.backward(models[0](x[rank]).square().sum(1), scale=1 / (4 * size))
    engine.reduce_gradients()
    references[0](x.flatten(0, 1)).square().sum(1).mean().backward()
    assert_close(engine.unwrap(models[0]), references[0], "thawed")


def main() -> None:
    with disttrain.init(sys.argv[1], device="cpu") as engine:
        gathered(engine)
        of_every_kind(engine)
        by_the_loader(engine)
        two_models(engine)
        print("as one process", flush=True)


main()
