"""How the ranks of a torch job find each other: through torchrun's variables, Slurm's node list, or MPI."""

from __future__ import annotations

import datetime
import os
import re
import socket
from typing import Any

import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from disttrain.engine.environment import integer
from disttrain.engine.world import World
from disttrain.errors import InputError, RankError


def rendezvous(world: World, timeout_seconds: float) -> Store:
    """The key-value store of the job, reachable from every rank.

    ``MASTER_ADDR`` and ``MASTER_PORT`` win where they are set. Else, under ``srun``, the first node of the step serves on
    a port derived from the job's number; under ``mpirun``, rank 0 opens a free port and tells the others over MPI.

    Raises:
        InputError: no way to find each other, with what to install or set.
        RankError: rank 0 could not be reached in time.
    """
    timeout = datetime.timedelta(seconds=timeout_seconds)
    if "MASTER_ADDR" in os.environ or world.launcher == "torchrun":
        host, port = os.environ["MASTER_ADDR"], integer(os.environ, "MASTER_PORT", 1024, 65535)
    elif world.launcher == "srun":
        host, port = _slurm_address()
    elif world.launcher == "none":
        host, port = "127.0.0.1", 0
    else:
        return _store_over_mpi(world, timeout)
    agent_serves = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return _connect(host, port, world, timeout, serve=world.rank == 0 and not agent_serves)


def _connect(host: str, port: int, world: World, timeout: datetime.timedelta, *, serve: bool) -> Store:
    try:
        store = TCPStore(host, port, world.size, serve, timeout=timeout, wait_for_workers=False)
    except (dist.DistError, RuntimeError) as error:
        if serve:
            raise InputError(f"rank 0 cannot serve on {host}:{port}: {_first_line(error)}") from None
        raise RankError(f"rank {world.rank} cannot reach rank 0 at {host}:{port}: {_first_line(error)}") from None
    # An elastic restart reuses the agent's store; keys of an earlier attempt must not be read.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"disttrain/{attempt}", store)


def _store_over_mpi(world: World, timeout: datetime.timedelta) -> Store:
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise InputError(
            "torch DDP under mpirun needs mpi4py to find the other ranks, and it cannot be imported "
            f"({error}). Install it (pip install 'disttrain[mpi]'), set MASTER_ADDR and MASTER_PORT, or pass --engine horovod"
        ) from None
    comm = MPI.COMM_WORLD
    if (comm.rank, comm.size) != (world.rank, world.size):
        raise InputError(
            f"mpi4py sees rank {comm.rank} of {comm.size}, the launcher says {world.rank} of {world.size}: "
            "mpi4py was built for another MPI than this mpirun"
        )
    address: tuple[str, int] | InputError | None = None
    store = None
    if world.rank == 0:
        host = "127.0.0.1" if world.local_size == world.size else _routable_address()
        store = _connect(host, 0, world, timeout, serve=True)
        address = (host, _port_of(store))
    host, port = comm.bcast(address, root=0)
    return store if store is not None else _connect(host, port, world, timeout, serve=False)


def _port_of(store: Store) -> int:
    inner: Any = store.underlying_store if isinstance(store, PrefixStore) else store
    return int(inner.port)


def _routable_address() -> str:
    """This machine's address as others see it: the one the default route uses (no packet is sent)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1: never assigned
            return str(probe.getsockname()[0])
        except OSError:  # no default route, as on an isolated machine
            return socket.gethostbyname(socket.gethostname())


def _slurm_address() -> tuple[str, int]:
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST")
    job = os.environ.get("SLURM_JOB_ID")
    if not nodes or not job:
        raise InputError(
            "SLURM_STEP_NODELIST or SLURM_JOB_ID is not set: the ranks cannot find each other. "
            "Set MASTER_ADDR and MASTER_PORT, or start with torchrun"
        )
    step = os.environ.get("SLURM_STEP_ID", "0")
    return first_host(nodes), 20000 + (int(job) * 31 + int(step)) % 20000


def first_host(nodes: str) -> str:
    """The first host of a Slurm node list.

    Examples:
        >>> first_host("gpu[007-012,15],login1"), first_host("a1,a2"), first_host("n[3]-ib")
        ('gpu007', 'a1', 'n3-ib')
    """
    match = re.match(r"([^\[,]*)(?:\[([^\],-]+)[^\]]*\]([^,]*))?", nodes)
    assert match is not None
    head, number, tail = match.groups()
    return head + (number or "") + (tail or "")


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
