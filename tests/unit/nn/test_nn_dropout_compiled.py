"""Dropout under torch.compile: one graph for all updates, and the masks of eager mode."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from disttrain.models.transformer import Transformer
from disttrain.nn import convert_dropout, dropout_masks

TOKENS = torch.arange(6 * 12).view(6, 12) % 50


class Recomputed(nn.Module):
    """A block whose activations are recomputed inside of the compiled graph."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.block = nn.Embedding(50, 8), nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        from torch.utils.checkpoint import checkpoint

        out: Tensor = checkpoint(self.block, self.embed(x), use_reentrant=False)
        return out


MODELS = {
    "a transformer, one layer in two places": lambda: Transformer(50, 12, layers=1, heads=2, width=8, dropout=0.2),
    "recomputed": Recomputed,
    "attention": lambda: nn.Sequential(
        nn.Embedding(50, 8), nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
    ),
}


def results(model: nn.Module, called: nn.Module, update: int) -> Tensor:
    """Output and gradients of one micro-batch."""
    model.zero_grad()
    with dropout_masks(seed=1, update=update, first=2 * update, samples=6):
        out = called(TOKENS)
        out.square().sum().backward()
    return torch.cat([out.detach().flatten(), *(p.grad.flatten() for p in model.parameters() if p.grad is not None)])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::UserWarning:torch.*")
def test_masks_are_those_of_eager_mode(backend: str, name: str) -> None:
    from torch._dynamo.utils import counters

    torch.manual_seed(0)
    torch.compiler.reset()
    model = convert_dropout(MODELS[name]()).double().train()
    compiled = torch.compile(model, backend=backend, fullgraph=True, dynamic=False)
    counters.clear()
    for update in range(3):
        expected = results(model, model, update)
        torch.testing.assert_close(results(model, compiled, update), expected, rtol=1e-9, atol=1e-11)
    assert counters["stats"]["unique_graphs"] == 1
    torch.compiler.reset()
