"""Fine-tuning in stages is the same run on any ranks and engine, stopped anywhere, the boundary included."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from disttrain.checkpoint import load_checkpoint, load_latest
from disttrain.verify.verify import max_difference
from tests.harness import digest, every_launcher, lines, sample_ids, train

COMMON = [
    "batch.global=300",
    "epochs=null",
    "updates=12",
    "precision=fp64",
    "model={name: mlp, hidden: [32, 24], norm: ghost_batch, ghost_size: 30}",
    "log={every_steps: 1, sample_ids: true, tensorboard: false}",
    "checkpoint={every_steps: 2, keep: 20, best: false}",
    "evaluate=null",
    "schedule={decay: {kind: constant}}",
    "seed=3",
]
RECIPES = {
    "the head, then more at a tenth, then all; AdamW, EMA, a penalty, groups": [
        "optimizer={name: adamw, lr: 0.01, eps: 0.001, groups: [{parameters: ['*.bias'], lr_factor: 2.0, weight_decay: 0.0}]}",
        "average={kind: ema, half_life: {samples: 900}}",
        "loss.penalties=[{parameters: ['body.1.*'], l2: 0.01}]",
        "stages=[{updates: 4, trainable: ['head.*']}, "
        "{updates: 4, trainable: ['head.*', 'body.[456].*'], lr_factor: 0.1}, {warmup: {updates: 2}, optimizer: drop}]",
    ],
    "a growing batch, LARS, SWA, learned statistics": [
        "batch.growth={kind: linear, end: 480, samples: 3000}",
        "optimizer={name: lars, lr: 2.0, momentum: 0.9, weight_decay: 0.001}",
        "average={kind: swa, start: {updates: 3}, every: {samples: 600}}",
        "noise_scale={every_steps: 1}",
        "batch.per_rank_max=60",
        "stages=[{epochs: 1, trainable: ['head.*', 'body.5.*']}, {lr_factor: 0.5}]",
    ],
}
State = tuple[dict[str, torch.Tensor], list[list[int]]]


def state(run_dir: Path) -> State:
    """Weights, running statistics and averages, and the order of the samples."""
    checkpoint = load_latest(run_dir).checkpoint
    average = checkpoint.state["methods"]["average"]["weights"]
    return dict(checkpoint.model) | {f"average of {k}": t for k, t in average.items()}, sample_ids(run_dir)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each recipe in one process."""
    found = {}
    for name, words in RECIPES.items():
        found[name] = tmp_path_factory.mktemp("alone") / "run"
        train("none", 1, found[name], *COMMON, *words).check()
    return found


@pytest.mark.parametrize("launcher", ["ranks", *every_launcher("horovodrun")])
@pytest.mark.parametrize("recipe", RECIPES)
def test_stages_do_not_depend_on_the_cluster(
    recipe: str, launcher: str, alone: dict[str, Path], tmp_path: Path
) -> None:
    train(launcher, 2, tmp_path / "run", *COMMON, *RECIPES[recipe]).check()
    (tensors, ids), (expected, order) = state(tmp_path / "run"), state(alone[recipe])
    assert ids == order
    assert tensors.keys() == expected.keys()
    difference, where = max_difference(tensors, expected)
    assert difference <= 1e-10, f"{where} differs by {difference:.2e}"


def test_only_what_a_stage_trains_moves(alone: dict[str, Path]) -> None:
    run_dir = alone[next(iter(RECIPES))]
    at = {step: load_checkpoint(run_dir / f"checkpoints/step-{step:08d}").model for step in (2, 4, 8, 12)}

    def moved(before: int, after: int) -> set[str]:
        return {name for name in at[before] if not torch.equal(at[before][name], at[after][name])}

    head, upper = (
        {"head.weight", "head.bias"},
        {name for name in at[2] if name.startswith(("body.4", "body.5", "body.6"))},
    )
    assert moved(2, 4) == head
    assert moved(4, 8) >= head | {"body.5.weight", "body.6.running_var"}
    assert moved(4, 8) <= head | upper
    assert moved(8, 12) == set(at[2])  # running statistics too


@pytest.mark.parametrize(("step", "size"), [(4, 1), (6, 2), (8, 2)])
def test_resumed_in_any_stage_and_at_its_end(step: int, size: int, tmp_path: Path) -> None:
    """Bit for bit on the same ranks, and the same run on others."""
    words = [*COMMON, *RECIPES[next(iter(RECIPES))]]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    launcher = "none" if size == 1 else "ranks"
    train(launcher, size, whole, *words).check()
    train(launcher, size, broken, *words, f"updates={step}").check()
    moved = shutil.copytree(broken, tmp_path / "moved")
    train(launcher, size, broken, *words, "--resume").check()
    assert digest(broken) == digest(whole)
    train("ranks", 3 - size, moved, *words, "--resume").check()
    assert max_difference(state(moved)[0], state(whole)[0])[0] <= 1e-10


def test_a_stage_is_told_of_where_it_begins(alone: dict[str, Path]) -> None:
    found = [line for line in lines(alone[next(iter(RECIPES))]) if line.get("event") == "stage"]
    assert [(line["step"], line["stage"]) for line in found] == [(4, 2), (8, 3)]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("start_from=nowhere.pt", "start_from nowhere.pt: there is no such file or run directory"),
        ("trainable=['haed.*']", "trainable: no parameter matches 'haed.*'; there are head.bias, head.weight"),
    ],
)
def test_what_is_wrong_is_said_once_by_all_ranks(word: str, message: str, tmp_path: Path) -> None:
    result = train("ranks", 2, tmp_path / "run", *COMMON, word)
    assert result.code == 2
    assert result.text.count(message) == 1, result.text
    assert "Traceback" not in result.text
    assert not (tmp_path / "run").exists()
