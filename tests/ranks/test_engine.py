"""What an engine promises besides gradients, on real ranks of each kind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.harness import LAUNCHERS, every_launcher, finish, is_free, launch, start

SCRIPT = """
import sys
import torch
from torch import nn
import disttrain
from disttrain.engine.agreement import everyone, on_main, require_agreement
from disttrain.errors import InputError, RankError

with disttrain.init(sys.argv[1], device="cpu") as engine:
    world = engine.world
    rank, size = world.rank, world.size

    assert engine.all_reduce(torch.tensor([rank, 1])).tolist() == [size * (size - 1) // 2, size]
    assert engine.all_reduce(torch.tensor([float(rank)]), "max").item() == size - 1
    assert engine.all_reduce(torch.tensor([float(rank)]), "min").item() == 0
    # Several sums on their way at once, asked for in another order than they were begun, with other exchanges in between.
    begun = [engine.sum_later(torch.tensor([float(rank), float(i)])) for i in range(3)]
    engine.all_reduce(torch.ones(1))
    assert [begun[i]() for i in (2, 0, 1)] == [[size * (size - 1) / 2, size * i] for i in (2.0, 0.0, 1.0)]
    assert engine.broadcast(torch.full((3,), float(rank))).tolist() == [0.0] * 3
    assert engine.all_gather_object({"rank": rank, "pad": "x" * rank}) == [{"rank": r, "pad": "x" * r} for r in range(size)]
    assert engine.broadcast_object([rank]) == [0]
    engine.barrier("here")

    # Rank 0's parameters and buffers, in every dtype.
    torch.manual_seed(rank)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 2).double())
    model[1].running_mean.fill_(rank + 1.0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    prepared = engine.prepare(model)
    assert engine.unwrap(prepared) is model
    for other in engine.all_gather_object({k: v.tolist() for k, v in model.state_dict().items()}):
        assert other == {k: v.tolist() for k, v in model.state_dict().items()}
    if rank == 0:
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

    # Batch norm's statistics become the mean over ranks; the count of batches is left alone.
    model[1].running_mean.fill_(rank + 1.0)
    engine.average_batch_norm(prepared)
    assert model[1].running_mean.tolist() == [(size + 1) / 2] * 3

    # Disagreement is named on all ranks, and the job can go on.
    try:
        require_agreement(engine, {"recipe": {"lr": 0.1 if rank == 0 else 0.2, "seed": 1}})
        raise SystemExit("not noticed")
    except RankError as error:
        assert "recipe lr: 0.1 on rank 0; 0.2 on rank" in str(error), error
        assert "seed" not in str(error)
    try:
        engine.barrier("a" if rank == 0 else "b")
        raise SystemExit("not noticed")
    except RankError as error:
        assert "barrier" in str(error)
    try:
        engine.prepare(nn.Linear(2, 2 + rank))
        raise SystemExit("not noticed")
    except RankError as error:
        assert "model weight" in str(error) and "float32[2, 2]" in str(error), error
    try:
        engine.prepare(nn.Linear(2, 2).double() if rank else nn.Linear(2, 2))
        raise SystemExit("not noticed")
    except RankError as error:
        assert "float64" in str(error)

    def fails_on_one():
        if rank == 1:
            raise InputError("no such file")
        return rank

    try:
        everyone(engine, fails_on_one)
        raise SystemExit("not noticed")
    except InputError as error:
        assert str(error) == "rank 1: no such file", error
    assert everyone(engine, lambda: rank * 10) == rank * 10
    assert on_main(engine, lambda: "main " + str(rank)) == "main 0"
    if rank == 0:
        print("ALL", engine.name, size, flush=True)
"""


@pytest.mark.parametrize("launcher", every_launcher())
@pytest.mark.parametrize("size", [2, 3])
def test_collectives_and_agreement(launcher: str, size: int, tmp_path: Path) -> None:
    (tmp_path / "engine.py").write_text(SCRIPT)
    engine = "horovod" if launcher in ("horovodrun", "mpirun-horovod") else "ddp"
    result = launch(launcher, size, [str(tmp_path / "engine.py"), engine]).check()
    assert f"ALL {engine} {size}" in result.out


@pytest.mark.parametrize(
    ("launcher", "size", "fresh"),
    [("ranks", 8, False), *[pytest.param(*p.values, 2, True, marks=p.marks) for p in every_launcher(*LAUNCHERS[:3])]],
)
def test_leaving_is_clean(launcher: str, size: int, fresh: bool, tmp_path: Path) -> None:
    """A process that exits right after a collective must not abort (Gloo's threads once did, in one exit of four)."""
    script = tmp_path / "leave.py"
    script.write_text(
        "import disttrain, torch\n"
        "with disttrain.init(device='cpu') as engine:\n"
        "    model = engine.prepare(torch.nn.Linear(4, 4))\n"
        "    for _ in range(3):\n"
        "        engine.backward(model(torch.ones(2, 4)))\n"
        "        engine.reduce_gradients()\n"
        "    engine.all_gather_object(engine.world.rank)\n"
    )
    result = launch(launcher, size, [str(script)], fresh=fresh, env={"DISTTRAIN_TEST_TEARDOWN": "1"}).check()
    assert "terminate called" not in result.err


def test_under_srun_the_ranks_find_each_other_by_the_node_list(tmp_path: Path) -> None:
    """srun's variables, set by hand: no Slurm here."""
    script = tmp_path / "slurm.py"
    script.write_text(
        "import disttrain, torch\n"
        "with disttrain.init(device='cpu') as engine:\n"
        "    print(engine.world.launcher, engine.name, engine.all_reduce(torch.ones(1)).item())\n"
    )
    job = next(number for number in range(os.getpid(), 2**22) if is_free(20000 + number * 31 % 20000))
    env = {
        "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_ID": "0", "SLURM_JOB_ID": str(job), "SLURM_NODEID": "0",
        "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_TASKS_PER_NODE": "2",
    }  # fmt: skip
    ranks = [
        start("none", 1, [str(script)], env=env | {"SLURM_PROCID": str(r), "SLURM_LOCALID": str(r)}) for r in range(2)
    ]
    for result in [finish(r) for r in ranks]:
        assert "srun ddp 2.0" in result.check().out


def test_horovod_under_torchrun_is_refused_with_the_way_out() -> None:
    result = launch("torchrun", 2, ["-m", "disttrain", "train", "--engine", "horovod"])
    assert result.code != 0
    assert "horovodrun or mpirun" in result.err
