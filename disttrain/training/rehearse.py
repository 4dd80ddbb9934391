"""Forward and backward passes that leave no trace, so that the first real one finds everything laid out."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from disttrain.checkpoint import capture_rng, restore_rng
from disttrain.data.batch import Batch, MicroBatch
from disttrain.engine.patience import patiently
from disttrain.methods.execution import compiling
from disttrain.methods.shapes import by_itself, micro_batch_sizes, resized
from disttrain.training.state import Run
from disttrain.training.step import accumulate, check_losses

log = logging.getLogger("disttrain")


def check_draws(run: Run, batch: Batch) -> None:
    """A forward pass in which nothing may draw random numbers that the recipe does not allow.

    Raises:
        InputError: on all ranks: something does, and what.
    """
    first = resized(batch, len(batch.micro_batches[0].ids))
    run.task.global_batch = by_itself(first, run.engine.world.device)
    with without_trace(run):
        run.methods.dropout.check(batch, lambda micro: run.call(run.task.losses, run.model, micro))


def rehearse(run: Run, batch: Batch) -> None:
    """Run ``batch``'s exchange before the first update of this process, as often as the engine asks for.

    DDP lays out its gradient buckets anew after the first passes, in the order in which gradients arrived. Past two ranks
    a ring adds in an order that depends on the layout, so without a rehearsal the first update after a restart would add
    in another order than the same update of an undisturbed run, and bit-identity would end there.
    """
    micro = batch.micro_batches[-1]
    mine = min(len(micro.ids), batch.share)  # 0 for a borrowed sample
    last = replace(batch, before=batch.before + batch.share - mine, share=mine, micro_batches=[micro])
    with without_trace(run):
        for _ in range(run.engine.rehearsals):
            accumulate(run, last)
            run.engine.reduce_gradients()
    run.engine.memory.load_state_dict(run.exchange_state)
    run.exchange_state = {}


def warm_start(run: Run, batch: Batch) -> None:
    """Compile the model, if it is to be compiled, before it first meets the others: for every size of micro-batch that this
    rank will see and can be known. Ranks take their time, and what fails on one fails on all.

    Raises:
        InputError: on all ranks: it cannot be compiled.
    """
    if run.recipe.compile is None:
        return
    phase, run.engine.phase = run.engine.phase, "compiling the model"
    began, known = time.monotonic(), micro_batch_sizes(run.plan, run.engine.world.rank)

    def compile_all() -> None:
        with compiling(), without_trace(run), run.engine.alone(run.wrapped):
            for count in sorted(known | {len(micro.ids) for micro in batch}, reverse=True):
                piece = resized(batch, count)
                run.task.global_batch = by_itself(piece, run.engine.world.device)
                with run.methods.dropout.masks(0, piece, 0):
                    try_out(run, piece.micro_batches[0])

    patiently(run.engine, compile_all)
    run.engine.phase = phase
    log.info("the model was compiled in %.0f s", time.monotonic() - began)


def try_out(run: Run, micro: MicroBatch) -> None:
    """Forward and backward of the model itself, without an exchange."""
    terms = run.call(run.task.losses, run.model, micro)
    check_losses(run, micro, terms)
    named: Mapping[str, Tensor] = terms if isinstance(terms, Mapping) else {"": terms}
    torch.stack([losses.sum() for losses in named.values()]).sum().backward()  # type: ignore[no-untyped-call]


@contextmanager
def without_trace(run: Run) -> Iterator[None]:
    """Afterwards buffers, random states and gradients are as before; statistics collect as in an update, and are dropped."""
    buffers = {name: buffer.clone() for name, buffer in run.model.named_buffers()}
    device = run.engine.world.device
    random = capture_rng(device)
    run.methods.statistics.begin_update(run.progress.position)
    yield
    restore_rng(random, device)
    with torch.no_grad():
        for name, buffer in run.model.named_buffers():
            buffer.copy_(buffers[name])
    run.model.zero_grad(set_to_none=True)
