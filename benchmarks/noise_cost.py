"""What measuring the gradient noise scale costs, at equal accumulation.

    OMP_NUM_THREADS=1 python benchmarks/noise_cost.py            # one process
    OMP_NUM_THREADS=1 torchrun --nproc_per_node=2 benchmarks/noise_cost.py
    OMP_NUM_THREADS=1 python benchmarks/noise_cost.py memory     # peak memory, each in a process of its own

Runs of one recipe that differ in ``noise_scale`` only live in the same processes and take turns of ten updates: off, every
10, off, every 1, off. The ratio of a turn is its time over the mean of the turns without measuring around it; off over off is
the noise floor.
Times are those of the process (what other programs take of the machine is not in them), under several ranks those of the wall.
Every round is appended to ``noise_cost.json``; a case that has its rounds is skipped, so a killed benchmark goes on.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

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
    "convnet, 0.4 M": ([*IMAGES, "model.name=convnet"], 64, 8),
    "many small tensors, 0.04 M in 322": (
        [*IMAGES, "model.name=mlp", f"model.hidden={[16] * 80}", "model.norm=layer"],
        128,
        8,
    ),
    "mlp, 23 M": ([*IMAGES, "model.name=mlp", "model.hidden=[3240,3240,3240]"], 64, 5),
}
NOISE = {"off": "null", "every 10": "{every_steps: 10}", "every 1": "{every_steps: 1}"}
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
    clock = time.process_time if engine.world.size == 1 else time.perf_counter

    def turn() -> float:
        began = clock()
        for _ in range(UPDATES):
            advance(run, next(stream), journal, sink)
        return (clock() - began) / UPDATES

    return turn


def measure(engine: Engine, name: str, found: list[dict[str, float]]) -> None:
    if len(found) >= CASES[name][2]:
        return
    turns = {noise: turn_of(engine, words_of(name, noise, engine.world.size)) for noise in NOISE}
    for turn in turns.values():
        turn()
    while len(found) < CASES[name][2]:
        first, ten, second, one, third = (turns[n]() for n in ("off", "every 10", "off", "every 1", "off"))
        row = {"off_ms": 1e3 * second, "every 10": 2 * ten / (first + second), "every 1": 2 * one / (second + third)}
        found.append({**row, "off/off": third / first})
        if engine.world.is_main:
            keep(f"{name}, {engine.world.size} ranks", found)


def kept() -> dict[str, list[dict[str, float]]]:
    return json.loads(JSON.read_text()) if JSON.exists() else {}


def keep(key: str, rows: list[dict[str, float]]) -> None:
    temporary = JSON.with_suffix(".tmp")
    temporary.write_text(json.dumps(kept() | {key: rows}, indent=1) + "\n")
    os.replace(temporary, JSON)


def memory(name: str, noise: str) -> None:
    """Three updates, and the most that this process ever held."""
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
