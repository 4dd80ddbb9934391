"""disttrain on two ranks against plain torch DDP written by hand, on the same samples: the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from disttrain.verify.verify import max_difference
from tests.harness import every_launcher, launch

SCRIPT = """
import os, sys
import numpy as np
import torch, torch.distributed as dist, torch.nn.functional as F
from torch import nn
import disttrain
from disttrain.data import ArrayDataset

side, out = sys.argv[1], sys.argv[2]
torch.manual_seed(5)
images, labels = torch.randn(240, 1, 8, 8, dtype=torch.float64), torch.arange(240) % 4
net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.GroupNorm(2, 6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4)).double()

if side == "plain":
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    model = nn.parallel.DistributedDataParallel(net)
    order = disttrain.data.GlobalShuffle(240, seed=9)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(10):
        ids = order.batch(step // 5, step % 5 * 48, step % 5 * 48 + 48)
        mine = torch.from_numpy(ids[48 * rank // size : 48 * (rank + 1) // size])
        optimizer.zero_grad()
        F.cross_entropy(model(images[mine]), labels[mine]).backward()
        optimizer.step()
    dist.barrier()
else:
    with disttrain.init(side) as engine:
        rank = engine.world.rank
        model = engine.prepare(net)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        dataset = ArrayDataset(images, labels)
        for batch in disttrain.data.loader(dataset, engine.world, global_batch=48, seed=9, epochs=2, per_rank_max=10):
            optimizer.zero_grad()
            for i, micro in enumerate(batch.micro_batches):
                with engine.accumulating(last=i == len(batch.micro_batches) - 1):
                    x, y = micro.tensors
                    engine.backward(F.cross_entropy(model(x), y, reduction="none"), scale=micro.weight / batch.size)
            engine.reduce_gradients()
            optimizer.step()
if rank == 0:
    torch.save({k: v for k, v in net.state_dict().items()}, out)
if side == "plain":
    dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("parity")
    (folder / "side.py").write_text(SCRIPT)
    launch("ranks", 2, [str(folder / "side.py"), "plain", str(folder / "plain.pt")]).check()
    return folder, torch.load(folder / "plain.pt")


@pytest.mark.parametrize("launcher", every_launcher())
def test_the_weights_are_those_of_plain_ddp(
    launcher: str, plain: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    folder, expected = plain
    side = "horovod" if launcher in ("horovodrun", "mpirun-horovod") else "ddp"
    launch(launcher, 2, [str(folder / "side.py"), side, str(tmp_path / "ours.pt")]).check()
    difference, where = max_difference(torch.load(tmp_path / "ours.pt"), expected)
    assert difference <= 1e-12, where
