"""`disttrain diff` of real runs."""

from __future__ import annotations

import json
from pathlib import Path

from tests.harness import disttrain, train

WORDS = [
    "batch.global=128",
    "epochs=null",
    "log.every_steps=1",
    "log.tensorboard=false",
    "model={name: mlp, hidden: [16]}",
]


def test_what_differs_and_from_which_update_on(tmp_path: Path) -> None:
    one, same, other = tmp_path / "one", tmp_path / "same", tmp_path / "other"
    train("none", 1, one, *WORDS, "updates=6").check()
    train("none", 1, same, *WORDS, "updates=6", "checkpoint.every_steps=3").check()
    train("none", 1, same, "updates=7", "--resume").check()  # the same run, a little longer
    train("ranks", 2, other, *WORDS, "updates=6", "optimizer.lr=0.3").check()

    found = json.loads(disttrain("diff", one, same, "--json").check().out)
    keys = {(d["topic"], d["key"]) for d in found["differences"]}
    assert {("recipe", "checkpoint.every_steps"), ("recipe", "updates"), ("plan", "total_updates")} <= keys
    assert not {topic for topic, _ in keys} & {"package", "code", "dataset", "machine"}

    found = json.loads(disttrain("diff", one, other, "--json").check().out)
    said = {(d["topic"], d["key"]): (d["first"], d["second"]) for d in found["differences"]}
    assert said["machine", "ranks"] == (1, 2)
    assert said["recipe", "optimizer.lr"] == (0.2, 0.3)
    assert not {topic for topic, _ in said} & {"package", "code", "dataset"}
    (loss,) = (curve for curve in found["curves"] if curve["name"] == "loss")
    assert loss["common"] == 6
    assert loss["differs_at"] <= 4  # the first losses are those of the same weights, up to the order of additions
    assert loss["largest"] > 1e-3

    shown = disttrain("diff", one, other).check().out
    for word in ("optimizer.lr", "machine", "from which update on", "test accuracy"):
        assert word in shown
    starts = [json.loads(line) for line in (same / "environment.jsonl").read_text().splitlines()]
    assert [start["step"] for start in starts] == [0, 6]
    assert {"torch", "numpy", "python", "disttrain"} <= starts[0]["package"].keys()


def test_no_run_and_exit_codes(tmp_path: Path) -> None:
    result = disttrain("diff", tmp_path, tmp_path / "none")
    assert (result.code, len(result.err.splitlines())) == (2, 1)
    assert "holds no run" in result.err
