"""Learned weights of several losses do not depend on the cluster, nor on a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from disttrain.checkpoint import load_latest
from disttrain.verify.verify import max_difference
from tests.harness import digest, every_launcher, lines, train

COMMON = [
    "task.name=tests.two_losses:DigitAndInk",
    "model.name=tests.two_losses:TwoHeads",
    "optimizer={name: sgd, lr: 0.02, momentum: 0.9}",
    "precision=fp64",
    "batch.global=200",
    "batch.last=keep",
    "epochs=null",
    "updates=20",
    "evaluate=null",
    "log.every_steps=1",
    "log.tensorboard=false",
    "seed=5",
]
KINDS = {
    "uncertainty": "loss.balance={kind: uncertainty, lr: 0.05}",
    "gradnorm": "loss.balance={kind: gradnorm, parameters: ['body.3.*'], alpha: 0.5, lr: 0.002}",
}


def learned(run_dir: Path) -> list[dict[str, Any]]:
    """What each line says of the losses and their weights."""
    return [
        {f"{what} of {name}": value for what in ("losses", "loss_weights") for name, value in line[what].items()}
        for line in lines(run_dir)
        if "loss_weights" in line
    ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each kind in one process without accumulation."""
    found = {}
    for kind, balance in KINDS.items():
        found[kind] = tmp_path_factory.mktemp("alone") / "run"
        train("none", 1, found[kind], *COMMON, balance).check()
    return found


@pytest.mark.parametrize(
    ("launcher", "size", "per_rank_max"),
    [
        ("ranks", 3, 40),
        *[pytest.param(*p.values, 2, 200, marks=p.marks) for p in every_launcher("mpirun")],
        *[pytest.param(*p.values, 2, 40, marks=p.marks) for p in every_launcher("horovodrun")],
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_weights_on_any_cluster(
    kind: str, launcher: str, size: int, per_rank_max: int, alone: dict[str, Path], tmp_path: Path
) -> None:
    words = [*COMMON, KINDS[kind], f"batch.per_rank_max={per_rank_max}"]
    train(launcher, size, tmp_path / "run", *words).check()
    one, many = (load_latest(run_dir).checkpoint for run_dir in (alone[kind], tmp_path / "run"))
    difference, where = max_difference(many.model, one.model)
    assert difference <= 1e-9, f"{where} differs by {difference:.2e}"
    found, expected = learned(tmp_path / "run"), learned(alone[kind])
    assert len(found) == len(expected) == 20
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_bit_by_bit(kind: str, tmp_path: Path) -> None:
    words = [*COMMON, KINDS[kind], "checkpoint.every_steps=7"]
    train("ranks", 2, tmp_path / "whole", *words).check()
    train("ranks", 2, tmp_path / "parts", *words, "updates=9").check()
    train("ranks", 2, tmp_path / "parts", *words, "--resume").check()
    assert len(learned(tmp_path / "parts")) == len(learned(tmp_path / "whole")) == 20
    assert learned(tmp_path / "parts")[9:] == learned(tmp_path / "whole")[9:]
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")
