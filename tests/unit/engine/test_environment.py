"""What launchers say, and the contradictory or nonsensical things an environment can hold."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from disttrain.engine.environment import Launch, read_launch
from disttrain.engine.rendezvous import first_host
from disttrain.errors import InputError

TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}
HOROVOD = {"HOROVOD_RANK": "3", "HOROVOD_SIZE": "4", "HOROVOD_LOCAL_RANK": "1", "HOROVOD_LOCAL_SIZE": "2"}
OMPI = {
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
SLURM = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_STEP_ID": "0"}


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, Launch("none", 0, 1, 0, 1, 0)),
        (TORCHRUN, Launch("torchrun", 1, 4, 1, 2, 0)),
        (HOROVOD, Launch("horovodrun", 3, 4, 1, 2, 1)),
        (OMPI, Launch("mpirun", 2, 4, 0, 2, 1)),
        (
            {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"},
            Launch("mpirun", 1, 2, 1, 2, 0),
        ),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "4(x2)"}, Launch("srun", 5, 8, 1, 4, 1)),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "4,3(x2)"}, Launch("srun", 5, 8, 1, 3, 1)),
        # torchrun started once per node by srun: torchrun's numbers count.
        (SLURM | TORCHRUN, Launch("torchrun", 1, 4, 1, 2, 0)),
        # A batch script is not a step.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "ENVIRONMENT": "BATCH"}, Launch("none", 0, 1, 0, 1, 0)),
        # horovodrun --mpi: both sets of variables belong to one launcher.
        (HOROVOD | OMPI | {"OMPI_COMM_WORLD_RANK": "3"}, Launch("horovodrun", 3, 4, 1, 2, 1)),
        (TORCHRUN | OMPI | {"DISTTRAIN_LAUNCHER": "torchrun"}, Launch("torchrun", 1, 4, 1, 2, 0)),
        (TORCHRUN | OMPI | {"DISTTRAIN_LAUNCHER": "mpirun"}, Launch("mpirun", 2, 4, 0, 2, 1)),
        # Variables set by hand on one machine.
        (
            {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"},
            Launch("torchrun", 1, 2, 1, 2, 0),
        ),
    ],
)
def test_launchers_are_found(env: dict[str, str], expected: Launch) -> None:
    assert read_launch(env) == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"RANK": "abc"}, "RANK='abc'"),
        ({"RANK": "4"}, "RANK='4': expected an integer from 0 to 3"),
        ({"RANK": "-1"}, "RANK='-1'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE='0': expected an integer >= 1"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE='-1'"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE=''"),
        ({"WORLD_SIZE": None}, "WORLD_SIZE is not set"),
        ({"RANK": None}, "RANK is not set"),
        ({"LOCAL_RANK": "2"}, "LOCAL_RANK=2 with LOCAL_WORLD_SIZE=2"),
        ({"LOCAL_RANK": None, "MASTER_ADDR": "10.0.0.1"}, "LOCAL_RANK is not set"),
        ({"MASTER_PORT": "99999"}, "MASTER_PORT='99999': expected an integer from 1024 to 65535"),
        ({"MASTER_PORT": "0"}, "MASTER_PORT='0'"),
        ({"MASTER_PORT": "abc"}, "MASTER_PORT='abc'"),
        ({"MASTER_PORT": "80"}, "MASTER_PORT='80'"),
        ({"MASTER_PORT": None}, "MASTER_PORT is not set"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR is not set"),
        ({"MASTER_ADDR": "no.such.host.invalid"}, "cannot be resolved"),
        ({"OMP_NUM_THREADS": "0"}, "OMP_NUM_THREADS='0'"),
        ({"OMP_NUM_THREADS": "many"}, "OMP_NUM_THREADS='many'"),
        ({"CUDA_VISIBLE_DEVICES": "0,1,0"}, "names a device twice"),
        ({"HOROVOD_STALL_CHECK_TIME_SECONDS": "soon"}, "HOROVOD_STALL_CHECK_TIME_SECONDS='soon'"),
        ({"HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "30"}, "would silently never shut down"),
        (OMPI, "two launchers"),
        (HOROVOD, "two launchers"),
        ({"DISTTRAIN_LAUNCHER": "slurm"}, "DISTTRAIN_LAUNCHER='slurm': expected one of"),
        ({"DISTTRAIN_LAUNCHER": "srun"}, "the variables of srun are not set"),
    ],
)
def test_nonsense_is_refused_by_name(change: dict[str, str | None], said: str) -> None:
    env = {k: v for k, v in (TORCHRUN | change).items() if v is not None}
    with pytest.raises(InputError) as caught:
        read_launch(env)
    assert said in str(caught.value)


def test_a_busy_port_is_refused_on_the_rank_that_would_serve() -> None:
    with socket.socket() as holder:
        holder.bind(("", 0))
        holder.listen()
        env = TORCHRUN | {"MASTER_PORT": str(holder.getsockname()[1])}
        with pytest.raises(InputError, match="is in use"):
            read_launch(env | {"RANK": "0"})
        assert read_launch(env).rank == 1
        # Under torchrun its agent holds the port, and that is as it should be.
        assert read_launch(env | {"RANK": "0", "TORCHELASTIC_USE_AGENT_STORE": "True"}).rank == 0


def test_environment_is_read_without_torch() -> None:
    code = "import sys; from disttrain.engine.environment import read_launch; read_launch({}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu[007-012,15],login1", "gpu007"),
        ("a1,a2", "a1"),
        ("n[3]-ib", "n3-ib"),
        ("host", "host"),
        ("r[01,05]", "r01"),
    ],
)
def test_first_host_of_a_slurm_node_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first
