"""What disttrain's loop costs over a hand-written DDP loop, on a tiny MLP and on a small convnet.

    OMP_NUM_THREADS=1 torchrun --nproc_per_node=2 benchmarks/step_overhead.py

Both loops live in the same two processes and the same process group, read the same in-memory data by gathers, and take
turns of ``STEPS`` updates: raw, disttrain, raw again. The ratio of a round is disttrain's time over the mean of the two
raw turns around it; printed are the median over rounds with its quartiles, and raw against raw as the noise floor.
disttrain's side is the loop as ``disttrain train`` runs it: position, schedule, gradient watch, stop vote, and a logged
line every 50 updates, the default. The raw side computes the loss and steps, and nothing else.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from disttrain.config import load_recipe
from disttrain.engine.base import Engine
from disttrain.engine.select import init
from disttrain.engine.stop import StopVote
from disttrain.methods.model import make_model
from disttrain.tasks.make import make_task
from disttrain.telemetry import NullSink
from disttrain.training.build import build_run
from disttrain.training.journal import Journal
from disttrain.training.loop import advance, batches

CASES = {
    # name: overrides of the built-in recipe, updates a turn, rounds, bound
    "tiny mlp": (
        ["task.name=digits", "model.name=mlp", "model.hidden=[64]"],
        64,
        50,
        400,
        1.10,
    ),
    "convnet 28x28": (
        ["task.name=synthetic", "task.classes=10", "task.shape=[1,28,28]", "model.name=convnet"],
        128,
        10,
        15,
        1.03,
    ),
}
Turn = Callable[[int], None]


def disttrain_turn(engine: Engine, overrides: list[str], global_batch: int) -> Turn:
    recipe = load_recipe(
        None,
        [
            *overrides,
            f"batch.global={global_batch}",
            "log.sinks=[]",
            "evaluate=null",
            "optimizer.weight_decay=0.0",
            "loss.label_smoothing=0",
            "log.every_steps=50",  # the default of a recipe; the built-in one for digits says 10
            "epochs=1000000",  # past its end a run would log every update
        ],
    )
    run = build_run(recipe, engine)
    stream = batches(run)
    sink = NullSink()
    # A third of the time is ours, so this is a vote in every half second of it, as in a run.
    journal, vote = Journal(run, sink), StopVote(engine, interval_seconds=1.5)

    def turn(steps: int) -> None:
        for _ in range(steps):
            advance(run, next(stream), journal, sink)
            vote(False)

    return turn


def raw_turn(engine: Engine, overrides: list[str], global_batch: int) -> Turn:
    """What a careful person writes without any toolkit."""
    recipe = load_recipe(None, [*overrides, f"batch.global={global_batch}"])
    task = make_task(recipe)
    torch.manual_seed(recipe.seed)
    model, _ = make_model(recipe, task, task.model_hints(), engine.all_reduce)
    if engine.world.size > 1:
        model = torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images, labels = task.train_dataset().gather(torch.arange(task.sizes().train).numpy(), 0)
    mine = global_batch // engine.world.size
    state = {"epoch": 0, "at": 0, "order": torch.randperm(len(images), generator=torch.Generator().manual_seed(0))}

    def turn(steps: int) -> None:
        for _ in range(steps):
            if state["at"] + global_batch > len(images):
                state["epoch"] += 1
                state["at"] = 0
                state["order"] = torch.randperm(len(images), generator=torch.Generator().manual_seed(state["epoch"]))
            start = state["at"] + engine.world.rank * mine
            ids = state["order"][start : start + mine]
            state["at"] += global_batch
            (x,) = task.prepare((images.index_select(0, ids), labels.index_select(0, ids)), torch.float32)[:1]
            y = labels.index_select(0, ids)
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    return turn


def measure(turn: Turn, steps: int) -> float:
    began = time.perf_counter()
    turn(steps)
    return time.perf_counter() - began


def main() -> None:
    failed = []
    with init("ddp" if len(sys.argv) < 2 else sys.argv[1]) as engine:
        for name, (overrides, global_batch, steps, rounds, bound) in CASES.items():
            ours, raw = (make(engine, overrides, global_batch) for make in (disttrain_turn, raw_turn))
            for turn in (ours, raw):
                turn(steps)  # warm up
            ratios, noise, raw_ms, ours_ms = [], [], [], []
            for _ in range(rounds):
                before, mine, after = measure(raw, steps), measure(ours, steps), measure(raw, steps)
                ratios.append(2 * mine / (before + after))
                noise.append(after / before)
                raw_ms.append(1e3 * (before + after) / 2 / steps)
                ours_ms.append(1e3 * mine / steps)
            if engine.world.is_main:
                low, middle, high = statistics.quantiles(ratios, n=4)
                print(
                    f"{name:14} raw {statistics.median(raw_ms):.3f} ms, disttrain {statistics.median(ours_ms):.3f} ms, "
                    f"ratio {middle:.3f} ({low:.3f} to {high:.3f}), raw/raw {statistics.median(noise):.3f}, bound {bound}"
                )
                failed += [name] if middle > bound else []
    if failed:
        sys.exit(f"over the bound: {', '.join(failed)}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    main()
