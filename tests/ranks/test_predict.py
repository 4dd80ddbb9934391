"""Predictions: each sample once and in order, the same from any number of ranks, and what the evaluation has counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from disttrain.data.selection import held_out
from disttrain.tasks.digits import SAMPLES, TEST_SAMPLES, Digits
from tests.harness import ROOT, Result, disttrain, launch, lines, train

WORDS = [
    "batch.global=128",
    "epochs=null",
    "updates=12",
    "log.tensorboard=false",
    "model={name: mlp, hidden: [32], norm: ghost_batch, ghost_size: 16}",
    "average={kind: ema, half_life: {samples: 600}}",
    "data.validation={fraction: 0.1}",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("predict") / "run"
    train("none", 1, run, *WORDS).check()
    return run


def predict(ranks: int, run: Path, what: object, to: Path, *words: object) -> Result:
    return launch(
        "ranks", ranks, ["-m", "disttrain", "predict", str(run), str(what), "--to", str(to), *map(str, words)]
    )


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("ranks", "batch"), [(1, 1000), (3, 47)])
def test_the_test_set_once_and_in_order(ranks: int, batch: int, run: Path, tmp_path: Path) -> None:
    predict(ranks, run, "test", tmp_path / "a.jsonl", "--batch", batch).check()
    found = rows(tmp_path / "a.jsonl")
    assert [row["id"] for row in found] == list(range(TEST_SAMPLES))
    labels = Digits().test_dataset().gather(np.arange(TEST_SAMPLES))[1].tolist()  # type: ignore[union-attr]
    assert [row["target"] for row in found] == labels
    last = [line for line in lines(run) if line.get("split") == "test"][-1]
    assert sum(row["class"] == row["target"] for row in found) == round(last["accuracy"] * TEST_SAMPLES)
    assert all(abs(sum(row["probabilities"]) - 1) < 1e-5 for row in found)


def test_one_and_three_ranks_say_the_same_of_a_file(run: Path, tmp_path: Path) -> None:
    inputs = Digits().test_dataset().gather(np.arange(100))[0].numpy()  # type: ignore[union-attr]
    np.save(tmp_path / "x.npy", inputs)
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(sample.tolist()) + "\n" for sample in inputs))
    predict(1, run, tmp_path / "x.npy", tmp_path / "one.npy", "--no-average").check()
    predict(3, run, tmp_path / "x.npy", tmp_path / "three.npy", "--no-average", "--batch", 7).check()
    predict(2, run, tmp_path / "x.jsonl", tmp_path / "lines.npy", "--batch", 7).check()
    one, three, averaged = (np.load(tmp_path / f"{name}.npy") for name in ("one", "three", "lines"))
    assert one.dtype.names == ("id", "class", "probabilities")
    for found in (one, three, averaged):
        assert found["id"].tolist() == list(range(100))
    assert one["class"].tolist() == three["class"].tolist()
    np.testing.assert_allclose(one["probabilities"], three["probabilities"], rtol=1e-5)
    assert np.abs(one["probabilities"] - averaged["probabilities"]).max() > 1e-3


def test_the_held_out_samples_by_their_ids(run: Path, tmp_path: Path) -> None:
    trained, validation = held_out(SAMPLES - TEST_SAMPLES, 0.1)
    for name, chosen in (("validation", validation), ("train", trained)):
        predict(2, run, name, tmp_path / f"{name}.jsonl").check()
        expected = chosen.ids(np.arange(len(chosen))).tolist()
        assert [row["id"] for row in rows(tmp_path / f"{name}.jsonl")] == expected


def test_what_is_refused(run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((2, 1, 9, 9)))
    np.save(tmp_path / "words.npy", np.array(["a"]))
    (tmp_path / "bad.jsonl").write_text("[1]\n[")
    (tmp_path / "there.npy").write_text("mine")
    new = tmp_path / "new.jsonl"
    for what, to, said in (
        ("tset", new, "there is no tset: expected train, validation, test, or a file"),
        ("test", tmp_path / "a.csv", "ends in .jsonl or .npy"),
        ("test", tmp_path / "there.npy", "--force replaces it"),
        (tmp_path / "wide.npy", new, "its samples are of shape (1, 9, 9); the model's are (1, 8, 8)"),
        (tmp_path / "words.npy", new, "expected an array of numbers"),
        (tmp_path / "bad.jsonl", new, "bad.jsonl:2: is not JSON"),
        (run / "recipe.yaml", new, "expected train, validation, test, .npy, .jsonl"),
    ):
        result = disttrain("predict", run, what, "--to", to)
        assert (result.code, len(result.err.splitlines())) == (2, 1), result.text
        assert said in result.err
    assert not new.exists()


def test_a_task_of_ones_own_gives_what_its_model_gives(tmp_path: Path) -> None:
    recipe, run = tmp_path / "r.yaml", tmp_path / "run"
    recipe.write_text(
        'task: {name: "examples.my_task:Friedman", train_samples: 64, test_samples: 32}\nbatch: {global: 32}\nupdates: 1\n'
        "optimizer: {name: adamw, lr: 0.01}\nlog: {tensorboard: false}\n"
    )
    assert (ROOT / "examples/my_task.py").is_file()
    disttrain("train", recipe, "--run-dir", run).check()
    assert "--trust" in predict(1, run, "test", tmp_path / "a.jsonl").err
    predict(2, run, "test", tmp_path / "a.jsonl", "--trust", "--batch", 5).check()
    found = rows(tmp_path / "a.jsonl")
    assert [row["id"] for row in found] == list(range(32))
    assert found[0].keys() == {"id", "output"}
    np.save(tmp_path / "x.npy", np.zeros((3, 10)))
    refused = predict(1, run, tmp_path / "x.npy", tmp_path / "b.jsonl", "--trust")
    assert refused.code == 2
    assert "give its class predict(model, tensors)" in refused.err
