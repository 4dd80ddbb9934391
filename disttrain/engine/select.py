"""From a launcher to an engine."""

from __future__ import annotations

import importlib.util
import os

from disttrain.engine.base import Engine
from disttrain.engine.world import World
from disttrain.errors import InputError

ENGINES = ("auto", "ddp", "horovod", "local")


def choose_engine(request: str, world: World) -> str:
    """``ddp``, ``horovod`` or ``local`` for a request of ``auto`` or one of these.

    ``auto`` follows the launcher: torchrun means DDP, horovodrun Horovod, no launcher one local process. mpirun and srun
    can start both: DDP where the ranks can find each other (mpi4py, Slurm's node list, or ``MASTER_ADDR``), else Horovod.

    Raises:
        InputError: unknown engine, or ``local`` in a job of several ranks.
    """
    if request not in ENGINES:
        raise InputError(f"engine {request!r}: expected one of {', '.join(ENGINES)}")
    if request == "local" and world.size > 1:
        raise InputError(f"engine local is one process, but {world.launcher} started {world.size}: use ddp or horovod")
    if request != "auto":
        return request
    if world.launcher in ("none", "torchrun") or (world.size == 1 and world.launcher != "horovodrun"):
        return "local" if world.size == 1 else "ddp"
    if world.launcher == "horovodrun":
        return "horovod"
    meets = world.launcher == "srun" or "MASTER_ADDR" in os.environ or _installed("mpi4py")
    return "ddp" if meets or not _installed("horovod") else "horovod"


def make_engine(request: str, world: World, *, timeout_seconds: float = 600.0) -> Engine:
    """The engine for ``request``; joins the job. Heavy imports happen here and only for the engine that is used."""
    name = choose_engine(request, world)
    if name == "local":
        from disttrain.engine.local import LocalEngine

        return LocalEngine(world)
    if name == "horovod":
        from disttrain.engine.horovod import HorovodEngine

        return HorovodEngine(world)
    from disttrain.engine.ddp import DDPEngine

    return DDPEngine(world, timeout_seconds=timeout_seconds)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def init(engine: str = "auto", *, device: str = "auto", timeout_seconds: float = 600.0) -> Engine:
    """Join the job this process was started in, and return its engine; use it as a context manager.

    Args:
        engine: ``auto``, ``ddp``, ``horovod`` or ``local``; see :func:`choose_engine`.
        device: ``auto`` (CUDA where there is any, else CPU), ``cpu`` or ``cuda``; one GPU per rank, by local rank.
        timeout_seconds: how long a DDP collective waits for a peer before it fails.

    Raises:
        InputError: the environment, the engine or the device does not work; the message says what to do.

    Example:
        >>> with init("local", device="cpu") as engine:
        ...     engine.world.size
        1
    """
    return make_engine(engine, World.from_env(device=device), timeout_seconds=timeout_seconds)
