"""What measuring the gradient noise scale costs, at equal accumulation.

    OMP_NUM_THREADS=1 python benchmarks/noise_cost.py            # one process
    OMP_NUM_THREADS=1 torchrun --nproc_per_node=2 benchmarks/noise_cost.py
    OMP_NUM_THREADS=1 python benchmarks/noise_cost.py memory     # peak memory, each in a process of its own

Four runs of one recipe, two that do not measure, one at every 10 updates and one at every update, live in the same processes
and take turns update by update. A round is ten updates of each; its ratios are to the mean of the two that do not measure, and
the ratio of those two is the noise floor. Times are the processor's, added up over the ranks: what other programs take of the
machine is not in them, nor is waiting.
Every round is appended to ``noise_cost.json``; a case that has its rounds is skipped, so a killed benchmark goes on.
"""

from __future__ import annotations

import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from disttrain.config import load_recipe
from disttrain.engine.base import Engine
from disttrain.engine.select import init
from disttrain.telemetry import NullSink
from disttrain.training.build import build_run
from disttrain.training.journal import Journal
from disttrain.training.loop import advance, batches

JSON = Path(__file__).with_suffix(".json")
IMAGES = ["task.name=synthetic", "task.classes=10", "task.shape=[1,28,28]"]
CASES = {
    # name: overrides, samples of an update, rounds. Two micro-batches an update on each rank.
    "convnet, 0.4 M": ([*IMAGES, "model.name=convnet"], 64, 12),
    "many small tensors, 0.04 M in 322": (
        [*IMAGES, "model.name=mlp", f"model.hidden={[16] * 80}", "model.norm=layer"],
        128,
        12,
    ),
    "mlp, 23 M": ([*IMAGES, "model.name=mlp", "model.hidden=[3240,3240,3240]"], 64, 6),
}
NOISE = {"off": "null", "every 10": "{every_steps: 10}", "every 1": "{every_steps: 1}"}
TURNS = ("off", "every 10", "off", "every 1")
UPDATES = 10
Turn = Callable[[], float]


def words_of(name: str, noise: str, size: int) -> list[str]:
    overrides, batch, _ = CASES[name]
    return [
        *overrides,
        "optimizer={name: sgd, lr: 0.001, momentum: 0.9}",
        f"batch={{global: {batch}, per_rank_max: {batch // size // 2}}}",
        f"noise_scale={NOISE[noise]}",
        "log={every_steps: 10, sinks: []}",
        "evaluate=null",
        "epochs=1000000",
    ]


def turn_of(engine: Engine, words: list[str]) -> Turn:
    run = build_run(load_recipe(None, words), engine)
    stream, sink = batches(run), NullSink()
    journal = Journal(run, sink)

    def turn() -> float:
        batch, began = next(stream), time.process_time()
        advance(run, batch, journal, sink)
        return time.process_time() - began

    return turn


def measure(engine: Engine, name: str, found: list[dict[str, float]]) -> None:
    if len(found) >= CASES[name][2]:
        return
    turns = [turn_of(engine, words_of(name, noise, engine.world.size)) for noise in TURNS]
    order = random.Random(1)
    one_round(engine, turns, order)
    while len(found) < CASES[name][2]:
        off, ten, again, one = one_round(engine, turns, order)
        middle = (off + again) / 2
        found.append(
            {"off_ms": 1e3 * middle, "every 10": ten / middle, "every 1": one / middle, "off/off": again / off}
        )
        if engine.world.is_main:
            keep(f"{name}, {engine.world.size} ranks", found)


def one_round(engine: Engine, turns: list[Turn], order: random.Random) -> list[float]:
    """Seconds of an update of each, all ranks' together. The order is drawn anew each time, alike on all ranks."""
    spent = torch.zeros(len(turns), dtype=torch.float64)
    for _ in range(UPDATES):
        for which in order.sample(range(len(turns)), len(turns)):
            spent[which] += turns[which]()
    return [float(s) for s in engine.all_reduce(spent) / UPDATES]


def kept() -> dict[str, list[dict[str, float]]]:
    return json.loads(JSON.read_text()) if JSON.exists() else {}


def keep(key: str, rows: list[dict[str, float]]) -> None:
    temporary = JSON.with_suffix(".tmp")
    temporary.write_text(json.dumps(kept() | {key: rows}, indent=1) + "\n")
    os.replace(temporary, JSON)


def memory(name: str, noise: str) -> None:
    """Eleven updates, and the most that this process ever held."""
    with init() as engine:
        run = build_run(load_recipe(None, words_of(name, noise, 1)), engine)
        journal, stream = Journal(run, NullSink()), batches(run)
        for _ in range(UPDATES + 1):
            advance(run, next(stream), journal, NullSink())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    if sys.argv[1:2] == ["memory"] and len(sys.argv) > 2:
        memory(*sys.argv[2:])
    elif sys.argv[1:2] == ["memory"]:
        program = [sys.executable, __file__, "memory", "mlp, 23 M"]
        rows = kept().get("peak MiB, mlp, 23 M", [])
        while len(rows) < 3:
            rows.append({n: float(subprocess.check_output([*program, n]).split()[0]) for n in NOISE})
            keep("peak MiB, mlp, 23 M", rows)
    else:
        with init() as engine:
            for name in CASES:
                found = engine.broadcast_object(kept().get(f"{name}, {engine.world.size} ranks", []))
                measure(engine, name, found)
    for key, rows in kept().items():
        middle = {column: statistics.median(row[column] for row in rows) for column in rows[0]}
        print(key, len(rows), "rounds:", ", ".join(f"{column} {value:.3f}" for column, value in middle.items()))


if __name__ == "__main__":
    main()
