"""How the critical batch grows during a run of a 784-64-10 MLP with layer norm on Fashion-MNIST, by branches from four points.
Goes on where it was killed.

    DISTTRAIN_DATA=DIR python benchmarks/critical_batch.py [--work DIR]

Writes benchmarks/critical_batch.json; the table is printed, and stands in benchmarks/critical_batch.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import disttrain
from disttrain.study.branch import Question, branch
from disttrain.study.branch_report import as_json, headings, in_words, rows

RESULTS = Path(__file__).with_suffix(".json")
RECIPE = {
    "task": {"name": "fashion_mnist"},
    "model": {"name": "mlp", "hidden": [64], "norm": "layer"},
    "data": {"validation": {"fraction": 0.1}},
    "batch": {"global": 64},
    "epochs": 8,
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
    "evaluate": {"epochs": 1, "train": False},
    "checkpoint": {"every_steps": 100, "keep": 100, "best": False},
    "log": {"sinks": []},
    "seed": 1,
}
POINTS = (100, 800, 2400, 5600)
QUESTION = Question((2, 4, 8, 16, 32), "", "samples=16384", "linear", margin=0.01, repeats=5)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, default=Path("runs/critical_batch"))
    run_dir = parser.parse_args().work / "run"
    disttrain.train(RECIPE, run_dir=run_dir, resume="auto", quiet=True)
    answers = []
    for step in POINTS:
        question = Question(**{f: getattr(QUESTION, f) for f in QUESTION.__slots__} | {"at": str(step)})
        answers += branch(run_dir, question)
        RESULTS.write_text(
            json.dumps({"recipe": RECIPE, "branch": json.loads(as_json(answers, QUESTION))}, indent=1) + "\n"
        )
    print("| " + " | ".join(headings(answers)) + " |")
    for row in rows(answers):
        print("| " + " | ".join(row) + " |")
    for answer in answers:
        print(in_words(answer, QUESTION.margin))


if __name__ == "__main__":
    main()
