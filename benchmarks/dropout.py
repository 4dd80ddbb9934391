"""A whole step of a GPT-2-like model on CPU, with our dropout and with torch's.

Both models are the same but for the class of their dropout layers. Steps are interleaved (torch's, ours, torch's again), each
triple gives one ratio and one control, and medians are reported, so that what else the machine does falls on all three alike.

    python benchmarks/dropout.py [--rounds 40]
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from disttrain.models.transformer import Transformer
from disttrain.nn import convert_dropout, dropout_masks

VOCABULARY, TOKENS, BATCH = 2048, 128, 8


def gpt2_like(attention: float) -> nn.Module:
    """Four layers of width 256: dropout 0.1 after the embedding and in every residual branch, and of attention's weights."""
    if not attention:
        return Transformer(VOCABULARY, TOKENS, layers=4, heads=4, width=256, dropout=0.1)
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_layer": 4, "n_head": 4, "n_embd": 256, "n_positions": TOKENS, "vocab_size": VOCABULARY}
    rates = {"attn_pdrop": attention, "embd_pdrop": 0.1, "resid_pdrop": 0.1}
    return GPT2LMHeadModel(GPT2Config(**sizes, **rates, bos_token_id=0, eos_token_id=0, use_cache=False))


def stepper(model: nn.Module, ours: bool) -> Callable[[int], float]:
    """One step, forward, backward and update; gives its seconds."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    tokens = torch.randint(VOCABULARY, (BATCH, TOKENS + 1), generator=torch.Generator().manual_seed(0))

    def step(number: int) -> float:
        began = time.perf_counter()
        optimizer.zero_grad()
        if ours:
            with dropout_masks(seed=1, update=number, first=0, samples=BATCH):
                passes(model, tokens)
        else:
            passes(model, tokens)
        optimizer.step()
        return time.perf_counter() - began

    return step


def passes(model: nn.Module, tokens: torch.Tensor) -> None:
    out = model(tokens[:, :-1])
    F.cross_entropy(getattr(out, "logits", out).flatten(0, 1), tokens[:, 1:].flatten()).backward()


def compare(attention: float, rounds: int) -> str:
    """A line of the table."""
    plain = gpt2_like(attention).train()
    theirs, ours = stepper(plain, False), stepper(convert_dropout(copy.deepcopy(plain)), True)
    for number in range(3):
        theirs(number), ours(number)
    triples = [(theirs(n), ours(n), theirs(n)) for n in range(rounds)]
    ratio = statistics.median(b / a for a, b, _ in triples)
    control = statistics.median(c / a for a, _, c in triples)
    milliseconds = [1e3 * statistics.median(column) for column in zip(*triples, strict=True)]
    where = "embedding, residual branches, attention" if attention else "embedding, residual branches"
    return f"| {where} | {milliseconds[0]:.0f} ms | {milliseconds[1]:.0f} ms | {ratio:.2f} | {control:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {platform.machine()}, one thread, {rounds} rounds\n")
    print("| dropout 0.1 in | torch's | ours | ratio | control (torch's / torch's) |")
    print("|---|---|---|---|---|")
    for attention in (0.0, 0.1):
        print(compare(attention, rounds), flush=True)


if __name__ == "__main__":
    main()
