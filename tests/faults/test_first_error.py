"""The first error of a rank is the headline, on every launcher; nobody hangs and nobody repeats it."""

from __future__ import annotations

from pathlib import Path

import pytest

from disttrain.checkpoint import list_checkpoints
from tests.harness import ROOT, disttrain, every_launcher, finish, free_port, launch, start_training, train

QUICK = [
    "batch.global=100",
    "epochs=null",
    "updates=400",
    "evaluate=null",
    "log.tensorboard=false",
    "log.every_steps=5",
]


@pytest.mark.parametrize(
    "launcher",
    [
        *every_launcher("torchrun", "horovodrun", "mpirun"),
        *[pytest.param(*p.values, marks=[*p.marks, pytest.mark.slow]) for p in every_launcher("mpirun-horovod")],
    ],
)
def test_an_exception_on_one_rank_ends_all_and_is_the_headline(launcher: str, tmp_path: Path) -> None:
    words = [*QUICK, "task.name=tests.faults.broken:Breaking", "task.rank=1", "task.at=30"]
    result = train(launcher, 2, tmp_path / "run", *words, fresh=True)
    assert result.code != 0
    text = result.text
    assert text.count("ValueError: planted in call 30\n") >= 1, text[-4000:]
    ours = [line for line in text.splitlines() if "disttrain: rank" in line]
    # DDP rehearses with two calls before the first update.
    assert "disttrain: rank 1 failed in update" in ours[0], ours
    assert "ValueError: planted" in ours[0]
    for line in ours[1:]:
        assert "disttrain: rank 0 stopped in update" in line, ours
        assert "another rank went away first" in line
    # One traceback of ours, that of the rank that failed; launchers may add their own after it.

    assert "in losses" in text


def test_the_api_ends_all_ranks_too(tmp_path: Path) -> None:
    script = tmp_path / "loop.py"
    script.write_text(
        "import disttrain, torch\n"
        "with disttrain.init(device='cpu') as engine:\n"
        "    if engine.world.rank == 1:\n"
        "        raise ValueError('planted')\n"
        "    engine.all_reduce(torch.ones(2))\n"
        "    engine.barrier('never reached')\n"
    )
    result = launch("torchrun", 2, [str(script)], fresh=True)
    assert result.code != 0
    assert "ValueError: planted" in result.err


@pytest.mark.parametrize("launcher", every_launcher("torchrun", "horovodrun"))
def test_a_loss_that_is_not_a_number_ends_the_run_on_all_ranks(launcher: str, tmp_path: Path) -> None:
    words = [*QUICK, "task.name=tests.faults.broken:Breaking", "task.rank=1", "task.at=13", "task.how=nan"]
    result = train(launcher, 2, tmp_path / "run", *words, "checkpoint.every_steps=1")
    assert result.code != 0
    assert "the gradient norm of update 1" in result.text
    assert "is nan" in result.text
    steps = sorted(list_checkpoints(tmp_path / "run"))
    named = int(result.text.split("the gradient norm of update ")[1].split()[0])
    assert steps[-1] == named - 1, "nothing that is not finite may be saved"


def test_a_rank_that_leaves_early_is_a_failure(tmp_path: Path) -> None:
    words = [*QUICK, "task.name=tests.faults.broken:Breaking", "task.rank=1", "task.at=20", "task.how=exit"]
    result = train("torchrun", 2, tmp_path / "run", *words, fresh=True)
    assert result.code != 0
    assert "another rank went away first" in result.text


def test_own_code_that_fails_in_set_up_is_said_once_and_leaves_nothing(tmp_path: Path) -> None:
    own = [*QUICK, "task.name=tests.faults.broken:Unmade"]
    result = train("torchrun", 2, tmp_path / "run", *own)
    ours = [line for line in result.err.splitlines() if line.startswith("disttrain: ")]
    assert len(ours) == 1, result.err
    assert "tests/faults/broken.py:" in ours[0]
    assert "KeyError: 'no such column'" in ours[0]
    assert "disttrain/engine/agreement.py" not in result.err
    assert not (tmp_path / "run").exists()


def test_adasum_on_ddp_is_said_once_and_leaves_nothing(tmp_path: Path) -> None:
    """Refused deep inside `prepare`, by all ranks alike."""
    result = train("torchrun", 2, tmp_path / "run", *QUICK, "communication.reduction=adasum")
    assert result.err.count("communication.reduction adasum is Horovod's") == 1, result.err
    assert not (tmp_path / "run").exists()


def test_one_rank_whose_own_code_fails_is_named(tmp_path: Path) -> None:
    own = [*QUICK, "task.name=tests.faults.broken:Unmade", "task.on=1"]
    result = train("torchrun", 2, tmp_path / "run", *own)
    assert result.err.count("rank 1: ") == 1, result.err
    assert "broken.py" in result.err
    assert "went away" not in result.err


def test_different_data_is_refused_before_the_first_update(tmp_path: Path) -> None:
    result = train("torchrun", 2, tmp_path / "run", *QUICK, "task.name=tests.faults.broken:Different")
    assert result.code != 0
    assert "the ranks disagree" in result.text
    assert "dataset fingerprint" in result.text
    assert "on rank 0" in result.text
    assert "on rank 1" in result.text
    assert not (tmp_path / "run").exists()


def test_different_packages_are_named_with_their_ranks(tmp_path: Path) -> None:
    """Rank 1 has another torch, as where one machine of several was not updated."""
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    stale = tmp_path / "rank1"
    stale.mkdir()
    (stale / "sitecustomize.py").write_text("import torch\ntorch.__version__ = '1.0.0+stale'\n")
    first = {"RANK": "0", "LOCAL_RANK": "0"}
    second = {"RANK": "1", "LOCAL_RANK": "1", "PYTHONPATH": f"{stale}:{ROOT}"}
    ranks = [start_training("none", 1, tmp_path / "run", *QUICK, env=env | e, fresh=True) for e in (first, second)]
    results = [finish(r) for r in ranks]
    assert [r.code for r in results] == [4, 4], results[0].text + results[1].text
    assert "package torch:" in results[0].err
    assert '"1.0.0+stale" on rank 1' in results[0].err
    assert "Traceback" not in results[0].err + results[1].err


def test_a_second_job_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    assert disttrain(*QUICK[:2], "updates=3", "log.tensorboard=false", "--run-dir", tmp_path / "run").code == 0
    again = disttrain(*QUICK, "--run-dir", tmp_path / "run")
    assert again.code == 2
    assert "already holds a run" in again.err
