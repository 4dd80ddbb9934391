"""Every rank: trees of tensors anywhere, shared, gathered, scattered and averaged, compared to the bit."""

from __future__ import annotations

from typing import Any

import torch

import disttrain
from disttrain.state.share import gather, mean, scatter, share
from tests.unit.checkpoint.checkpoint_cases import same


def tree(rank: int) -> dict[Any, Any]:
    """One that differs from rank to rank in its values, and in how much there is."""
    generator = torch.Generator().manual_seed(rank)
    values = torch.randn(7, 5, generator=generator)
    return {
        "deep": [{3: (values, {"$tensor": values.bool()})}, [], (), {}],
        -1: {"3": values.to(torch.bfloat16), 3: values.to(torch.float16), "a.b": values[0], "a": {"b": values[1]}},
        "scalars": (torch.tensor(rank), torch.tensor(0.1 * rank, dtype=torch.float64), torch.tensor(rank % 2 == 0)),
        "empty": [torch.empty(0), torch.empty(3, 0, dtype=torch.int64), torch.empty(0, dtype=torch.bool)],
        "views": (values.t(), values[:, ::2], values[:1].expand(4, 5)),
        "special": torch.tensor([0x7FC00001, -0x00400000, -0x80000000, 1], dtype=torch.int32).view(torch.float32),
        "bytes": torch.arange(rank + 3, dtype=torch.uint8),
        "more": [torch.full((i + 1,), rank) for i in range(rank)],
        "plain": {"rank": rank, "none": None, "float": float("-inf"), "text": "x" * rank, "large": 2**70, "yes": True},
    }


def scalars_are_on_the_cpu(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.dim() > 0 or value.device.type == "cpu"
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return all(map(scalars_are_on_the_cpu, items))


def main() -> None:
    with disttrain.init() as engine:
        rank, size = engine.world.rank, engine.world.size
        everyone = [tree(r) for r in range(size)]
        shared = share(engine, tree(0) if rank == 0 else None)
        assert same(shared, everyone[0])
        assert scalars_are_on_the_cpu(shared)
        gathered = gather(engine, tree(rank))
        assert same(gathered, everyone) if rank == 0 else gathered == [None] * size
        scattered = scatter(engine, everyone if rank == 0 else None)
        assert same(scattered, everyone[rank])
        assert scalars_are_on_the_cpu(scattered)
        assert same(share(engine, {} if rank == 0 else tree(5)), {})
        assert same(share(engine, None), None)
        errors = [{"error": {0: torch.full((3,), float(2**r))}} for r in range(size)]
        average = share(engine, mean(errors) if rank == 0 else None)
        assert same(average, {"error": {0: torch.full((3,), sum(2.0**r for r in range(size)) / size)}})
        print("the same to the bit", flush=True)


main()
