"""Forward and backward passes that leave no trace, so that the first real one finds everything laid out."""

from __future__ import annotations

from dataclasses import replace

import torch

from disttrain.checkpoint import capture_rng, restore_rng
from disttrain.data.batch import Batch
from disttrain.training.state import Run
from disttrain.training.step import accumulate


def rehearse(run: Run, batch: Batch) -> None:
    """Run ``batch``'s exchange before the first update of this process, as often as the engine asks for.

    DDP lays out its gradient buckets anew after the first passes, in the order in which gradients arrived. Past two ranks
    a ring adds in an order that depends on the layout, so without a rehearsal the first update after a restart would add
    in another order than the same update of an undisturbed run, and bit-identity would end there.
    """
    micro = batch.micro_batches[-1]
    share = min(len(micro.ids), batch.share)  # 0 for a borrowed sample
    last = replace(batch, before=batch.before + batch.share - share, share=share, micro_batches=[micro])
    buffers = {name: buffer.clone() for name, buffer in run.model.named_buffers()}
    device = run.engine.world.device
    random = capture_rng(device)
    for _ in range(run.engine.rehearsals):
        accumulate(run, last)
        run.engine.reduce_gradients()
    restore_rng(random, device)
    with torch.no_grad():
        for name, buffer in run.model.named_buffers():
            buffer.copy_(buffers[name])
    run.model.zero_grad(set_to_none=True)
    run.engine.memory.load_state_dict(run.exchange_state)
    run.exchange_state = {}
