"""From a launcher to an engine."""

from __future__ import annotations

import importlib.util
import os

from disttrain.engine.base import Engine
from disttrain.engine.environment import DEFAULT_TIMEOUT, time_limit
from disttrain.engine.world import World
from disttrain.errors import InputError

JOINED: list[str] = []
"""The job of several ranks that this process has joined."""
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


def first_time() -> None:
    """To be called before a process joins its job: where ranks meet (a port, Horovod's rendezvous) is good for one time.

    Raises:
        InputError: it has joined one of several ranks before.
    """
    if JOINED:
        raise InputError(
            "this process has joined its job of several ranks once already: let everything in it share one engine "
            "(engine = disttrain.init(), then disttrain.train(..., engine=engine))"
        )


def make_engine(request: str, world: World, *, timeout_seconds: float | None = None) -> Engine:
    """The engine for ``request``; joins the job. Heavy imports happen here and only for the engine that is used.

    ``timeout_seconds``: see :func:`init`.
    """
    name, limit = choose_engine(request, world), time_limit(timeout_seconds)
    JOINED.extend([name] if world.size > 1 else [])
    if name == "local":
        from disttrain.engine.local import LocalEngine

        return LocalEngine(world)
    if name == "horovod":
        from disttrain.engine.horovod import HorovodEngine

        return HorovodEngine(world, timeout_seconds=limit)
    from disttrain.engine.ddp import DDPEngine

    return DDPEngine(world, timeout_seconds=limit or DEFAULT_TIMEOUT)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def init(engine: str = "auto", *, device: str = "auto", timeout_seconds: float | None = None) -> Engine:
    """Join the job this process was started in, and return its engine; use it as a context manager.

    Args:
        engine: ``auto``, ``ddp``, ``horovod`` or ``local``; see :func:`choose_engine`.
        device: ``auto`` (CUDA where there is any, else CPU), ``cpu`` or ``cuda``; one GPU per rank, by local rank.
        timeout_seconds: how long ranks wait for each other, when they meet and in a collective, before they fail; None:
            the environment's ``DISTTRAIN_TIMEOUT``, or else 600 (in Horovod over Gloo its own limits hold then).

    Raises:
        InputError: the environment, the engine or the device does not work; the message says what to do.

    Examples:
        >>> with init("local", device="cpu") as engine:
        ...     engine.world.size
        1
    """
    first_time()
    return make_engine(engine, World.from_env(device=device), timeout_seconds=timeout_seconds)
