"""The complete examples of loops of one's own: stopped anywhere, they go on as the same run, on the same ranks or on others."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from disttrain.checkpoint import flatten, load_latest
from disttrain.verify.verify import max_difference
from tests.harness import ROOT, Job, every_launcher, finish, free_port, launch, needs, start, wait_until

LOOP, GAN = str(ROOT / "examples/own_loop_complete.py"), str(ROOT / "examples/gan.py")
SCRIPT = str(Path(__file__).with_name("own_state_script.py"))


def run(launcher: str, size: int, program: str, directory: Path, *words: str) -> int:
    engine = ["--engine", "horovod"] if launcher == "mpirun-horovod" else []
    return launch(launcher if size > 1 else "none", size, [program, str(directory), *engine, *words]).code


def saved(directory: Path) -> dict[str, Any]:
    """The newest checkpoint but for random states, which nobody seeded all of."""
    path = load_latest(directory).path
    state = json.loads((path / "state.json").read_text())
    del state["state"]["ranks"]
    return {"state": state} | {name: (path / name).read_bytes() for name in ("model.safetensors", "state.safetensors")}


def tensors(directory: Path) -> dict[str, torch.Tensor]:
    found = load_latest(directory).checkpoint
    return {**found.model, **flatten({k: v for k, v in found.state.items() if k != "ranks"})[1]}


def assert_same_run(mine: Path, other: Path, at_least: int) -> None:
    ours, theirs = tensors(mine), tensors(other)
    assert ours.keys() == theirs.keys()
    assert len(ours) >= at_least
    difference, where = max_difference(ours, theirs)
    assert difference <= 1e-10, f"{where} differs by {difference:.2e}"


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(p.values[0], marks=[*p.marks, *([pytest.mark.slow] if p.values[0] != "torchrun" else [])])
        for p in every_launcher()
    ],
)
def test_on_as_many_ranks_it_is_bit_identical(launcher: str, tmp_path: Path) -> None:
    words = ["--epochs", "3"]  # 19 updates each, in bf16
    assert run(launcher, 2, LOOP, tmp_path / "whole", *words) == 0
    run(launcher, 2, LOOP, tmp_path / "parts", *words, "--stop-after", "24")
    assert load_latest(tmp_path / "parts").checkpoint.step == 24
    assert run(launcher, 2, LOOP, tmp_path / "parts", *words) == 0
    assert saved(tmp_path / "parts") == saved(tmp_path / "whole")
    assert load_latest(tmp_path / "parts").checkpoint.step == 57


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both examples in one process without a stop, in float64."""
    folder = tmp_path_factory.mktemp("alone")
    for program, words in WORDS.items():
        assert run("none", 1, program, folder / Path(program).stem, *words) == 0
    return {program: folder / Path(program).stem for program in WORDS}


WORDS = {
    LOOP: ["--epochs", "2", "--precision", "fp64"],
    GAN: ["--epochs", "2", "--precision", "fp64", "--batch", "299"],  # 14 updates each, the last of 113 samples
}


@pytest.mark.parametrize(
    ("program", "launchers"),
    [
        (LOOP, [("ranks", 2), ("ranks", 3), ("none", 1)]),
        (GAN, [("ranks", 3), ("none", 1), ("ranks", 2)]),
        pytest.param(GAN, [("ranks", 2), ("horovodrun", 3)], marks=needs("horovodrun")),
    ],
)
def test_on_other_ranks_it_is_the_same_run(
    program: str, launchers: list[tuple[str, int]], alone: dict[str, Path], tmp_path: Path
) -> None:
    """Each stops after nine more updates, in mid-epoch, and the last goes on to the end."""
    cut = ["--per-rank-max", "60"] if program == GAN else []
    for i, (launcher, size) in enumerate(launchers):
        last = i == len(launchers) - 1
        words = [*WORDS[program], *cut, *([] if last else ["--stop-after", str(9 * (i + 1))])]
        code = run(launcher, size, program, tmp_path, *words)
        assert code == 0 or not last
    assert_same_run(tmp_path, alone[program], 20)


def test_a_signal_to_one_rank_ends_all_with_75(tmp_path: Path) -> None:
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    words = [LOOP, str(tmp_path), "--epochs", "100000"]
    ranks: list[Job] = [start("none", 1, words, env=env | {"RANK": str(r), "LOCAL_RANK": str(r)}) for r in range(2)]

    def is_under_way() -> bool:
        assert all(rank.poll() is None for rank in ranks)
        return any(tmp_path.glob("checkpoints/step-*"))

    wait_until(is_under_way, "the loop does not begin")
    ranks[1].send_signal(signal.SIGTERM)
    results = [finish(rank) for rank in ranks]
    assert [result.code for result in results] == [75, 75], results[0].text + results[1].text
    assert load_latest(tmp_path).checkpoint.step >= 19


@pytest.mark.parametrize("launcher", every_launcher("ranks", "horovodrun"))
def test_what_each_rank_has_of_its_own(launcher: str, tmp_path: Path) -> None:
    engine = "horovod" if launcher == "horovodrun" else "ddp"
    for size in (2, 3):
        result = launch(launcher, size, [SCRIPT, str(tmp_path), engine]).check()
        assert len(re.findall(rf"as it was on {size} ranks", result.out)) == size
