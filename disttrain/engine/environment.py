"""What the launcher told this process through its environment. Imports no torch, so that nonsense is refused at once."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from disttrain.errors import InputError

LAUNCHERS = ("torchrun", "horovodrun", "mpirun", "srun", "none")
TIMEOUT = "DISTTRAIN_TIMEOUT"
DEFAULT_TIMEOUT = 600.0


@dataclass(frozen=True, slots=True)
class Launch:
    """Where this process stands among its peers.

    ``rank`` of ``size`` processes; ``local_rank`` of ``local_size`` on its machine; ``node`` numbers the machines from 0.
    """

    launcher: str
    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    node: int = 0


def read_launch(env: Mapping[str, str] = os.environ) -> Launch:
    """The launch described by ``env``: torchrun, horovodrun, mpirun (Open MPI, or PMI as in MPICH), srun, or none.

    A torchrun or Horovod environment inside a Slurm step is normal and wins over Slurm's. A torchrun environment inside
    an ``mpirun`` or ``horovodrun`` job is ambiguous: ``DISTTRAIN_LAUNCHER`` then says which one counts.

    Raises:
        InputError: a variable is missing, is not a number, or contradicts another one.
    """
    _check_common(env)
    found = {name: read for name, (marker, read) in _READERS.items() if marker(env)}
    chosen = env.get("DISTTRAIN_LAUNCHER")
    if chosen is not None and chosen not in LAUNCHERS:
        raise InputError(f"DISTTRAIN_LAUNCHER={chosen!r}: expected one of {', '.join(LAUNCHERS)}")
    if chosen is None:
        if "torchrun" in found and (others := sorted(found.keys() & {"horovodrun", "mpirun"})):
            raise InputError(
                f"RANK or WORLD_SIZE is set (as by torchrun) inside a process started by {others[0]}: "
                "two launchers describe this process. Unset one set of variables, or set DISTTRAIN_LAUNCHER="
                f"torchrun or DISTTRAIN_LAUNCHER={others[0]} to say which one counts"
            )
        chosen = next((name for name in LAUNCHERS if name in found), "none")
    elif chosen != "none" and chosen not in found:
        raise InputError(f"DISTTRAIN_LAUNCHER={chosen!r}, but the variables of {chosen} are not set")
    launch = found[chosen](env) if chosen != "none" else Launch("none")
    if launch.launcher == "torchrun":
        _check_rendezvous(env, launch)
    return launch


@dataclass(frozen=True, slots=True)
class Job:
    """The torchrun job that started this process; the same for all its starts of the ranks, and for no other job.

    Attributes:
        name: its rendezvous id and the torchrun process of this machine, which outlives the ranks. An id alone is not enough:
            people give the same one to every job.
        key: of its directory: the id, or where that is torchrun's default, ``name``.
        restarts: whether it may start the ranks again after a failure.
    """

    name: str
    key: str
    restarts: bool

    @property
    def short(self) -> str:
        """``key``, fit for the name of a directory."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:8]


def read_job(env: Mapping[str, str] = os.environ) -> Job | None:
    """torchrun's job; None where something else started this process."""
    run_id = env.get("TORCHELASTIC_RUN_ID")
    if not run_id:
        return None
    name = f"{run_id} {socket.gethostname()} {os.getppid()} {_started(os.getppid())}"
    restarts = env.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"
    return Job(name, name if run_id == "none" else run_id, restarts)


def _started(pid: int) -> str:
    """When a process started, in ticks since the machine did, so that a number that is given again is told apart."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):  # no such file outside Linux: the number alone has to do
        return ""


def time_limit(seconds: float | None = None, env: Mapping[str, str] = os.environ) -> float | None:
    """How long ranks may wait for each other: ``seconds``, else ``DISTTRAIN_TIMEOUT``, else None: nobody says.

    Raises:
        InputError: it is no positive number of seconds.
    """
    text = env.get(TIMEOUT)
    if seconds is None and text is None:
        return None
    try:
        found = float(text or "") if seconds is None else seconds
    except ValueError:
        found = 0.0
    if not 1 <= found <= 10**6:
        given = f"{TIMEOUT}={text!r}" if seconds is None else f"--timeout {seconds:g}"
        raise InputError(f"{given}: expected seconds, from 1 to 1000000")
    return found


def integer(env: Mapping[str, str], name: str, low: int, high: int | None = None) -> int:
    """``env[name]`` as an integer in [low, high]. Raises :class:`InputError` naming the variable otherwise."""
    text = env.get(name)
    allowed = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
    if text is None:
        raise InputError(f"{name} is not set: expected {allowed}")
    try:
        value = int(text)
    except ValueError:
        raise InputError(f"{name}={text!r}: expected {allowed}") from None
    if value < low or (high is not None and value > high):
        raise InputError(f"{name}={text!r}: expected {allowed}")
    return value


def _launch(launcher: str, env: Mapping[str, str], rank: str, size: str, local: tuple[str, str], node: str) -> Launch:
    """Read the five numbers; a missing local pair is filled in only where it cannot be wrong."""
    world = integer(env, size, 1)
    me = integer(env, rank, 0, world - 1)
    if local[0] in env:
        local_rank = integer(env, local[0], 0, world - 1)
        local_size = integer(env, local[1], 1, world) if local[1] in env else max(local_rank + 1, 1)
        if local_rank >= local_size:
            raise InputError(f"{local[0]}={local_rank} with {local[1]}={local_size}: expected a smaller local rank")
    elif world == 1 or env.get("MASTER_ADDR") in ("127.0.0.1", "localhost", "::1"):
        local_rank, local_size = me, world
    else:
        raise InputError(f"{local[0]} is not set: without it the device of rank {me} of {world} is not known")
    index = integer(env, node, 0) if node in env else me // local_size
    return Launch(launcher, me, world, local_rank, local_size, index)


def _torchrun(env: Mapping[str, str]) -> Launch:
    return _launch("torchrun", env, "RANK", "WORLD_SIZE", ("LOCAL_RANK", "LOCAL_WORLD_SIZE"), "GROUP_RANK")


def _horovodrun(env: Mapping[str, str]) -> Launch:
    if "HOROVOD_RANK" in env:
        local = ("HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE")
        return _launch("horovodrun", env, "HOROVOD_RANK", "HOROVOD_SIZE", local, "HOROVOD_CROSS_RANK")
    launch = _mpirun(env)  # horovodrun --mpi hands its ranks to mpirun
    return Launch("horovodrun", launch.rank, launch.size, launch.local_rank, launch.local_size, launch.node)


def _mpirun(env: Mapping[str, str]) -> Launch:
    if "OMPI_COMM_WORLD_RANK" in env or "OMPI_COMM_WORLD_SIZE" in env:
        local = ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE")
        # OMPI_COMM_WORLD_NODE_RANK counts processes on a node, not nodes: the node is derived.
        return _launch("mpirun", env, "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", local, "")
    return _launch("mpirun", env, "PMI_RANK", "PMI_SIZE", ("MPI_LOCALRANKID", "MPI_LOCALNRANKS"), "")


def _srun(env: Mapping[str, str]) -> Launch:
    size = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in env else "SLURM_NTASKS"
    launch = _launch("srun", env, "SLURM_PROCID", size, ("SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"), "SLURM_NODEID")
    per_node = env.get("SLURM_STEP_TASKS_PER_NODE", "")  # "4", "4(x2)" or "4(x2),3"
    if per_node:
        groups = [g.partition("(x") for g in per_node.split(",")]
        counts = [int(c) for c, _, times in groups for _ in range(int(times.rstrip(")") or 1))]
        if launch.node < len(counts):
            return Launch("srun", launch.rank, launch.size, launch.local_rank, counts[launch.node], launch.node)
    return launch


def _inside_srun(env: Mapping[str, str]) -> bool:
    # A batch script itself also carries SLURM_PROCID=0, but is no step started by srun.
    return "SLURM_PROCID" in env and not (env.get("ENVIRONMENT") == "BATCH" and "SLURM_STEP_ID" not in env)


_Marker = Callable[[Mapping[str, str]], bool]
_Reader = Callable[[Mapping[str, str]], Launch]
# What horovodrun tells the mpirun it starts; it leaves no variable of its own in its ranks.
_HOROVODRUN_OVER_MPI = {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "^openib", "OMPI_MCA_orte_tag_output": "1"}
_MPI_MARKS = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_RANK")
_READERS: dict[str, tuple[_Marker, _Reader]] = {
    "torchrun": (lambda env: "RANK" in env or "WORLD_SIZE" in env, _torchrun),
    "horovodrun": (
        lambda env: (
            "HOROVOD_RANK" in env
            or "HOROVOD_SIZE" in env
            or all(env.get(name) == value for name, value in _HOROVODRUN_OVER_MPI.items())
        ),
        _horovodrun,
    ),
    "mpirun": (lambda env: any(mark in env for mark in _MPI_MARKS), _mpirun),
    "srun": (_inside_srun, _srun),
}


def _check_common(env: Mapping[str, str]) -> None:
    if "OMP_NUM_THREADS" in env:
        for part in env["OMP_NUM_THREADS"].split(","):
            integer({"OMP_NUM_THREADS": part}, "OMP_NUM_THREADS", 1)
    devices = [d.strip() for d in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if d.strip()]
    if len(set(devices)) != len(devices):
        raise InputError(f"CUDA_VISIBLE_DEVICES={env['CUDA_VISIBLE_DEVICES']!r} names a device twice")
    check, shutdown = "HOROVOD_STALL_CHECK_TIME_SECONDS", "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS"
    warn_after = integer(env, check, 1) if check in env else 60
    if shutdown in env and 0 < integer(env, shutdown, 0) < warn_after:
        raise InputError(
            f"{shutdown}={env[shutdown]} is shorter than {check}={warn_after}: Horovod would silently never shut down. "
            f"Set {shutdown} to 0 (never) or to more than {warn_after}"
        )


def _check_rendezvous(env: Mapping[str, str], launch: Launch) -> None:
    """MASTER_ADDR and MASTER_PORT must be usable before anything waits for them."""
    if launch.size == 1 and "MASTER_ADDR" not in env:
        return
    host = env.get("MASTER_ADDR")
    if not host:
        raise InputError("MASTER_ADDR is not set: RANK and WORLD_SIZE are, so the address of rank 0 is needed")
    port = integer(env, "MASTER_PORT", 1024, 65535)
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InputError(f"MASTER_ADDR={host!r} cannot be resolved ({error})") from None
    serves_store = launch.rank == 0 and env.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    if serves_store and launch.size > 1 and not _port_is_free(port):
        raise InputError(f"MASTER_PORT={port} is in use on this machine: choose another port, on all ranks the same")


def _port_is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
