"""The world: which of how many ranks this process is, and the one device it computes on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from disttrain.engine.environment import Launch, read_launch
from disttrain.errors import InputError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class World:
    """Immutable facts about this process.

    Attributes:
        rank: number of this process, 0 to ``size - 1``.
        size: number of processes in the job.
        local_rank: number of this process on its machine, 0 to ``local_size - 1``.
        local_size: number of processes on this machine.
        node: number of this machine, from 0.
        device: the device this rank is pinned to.
        launcher: ``torchrun``, ``horovodrun``, ``mpirun``, ``srun`` or ``none``.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    node: int
    device: torch.device
    launcher: str = "none"

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the one that writes and prints."""
        return self.rank == 0

    @property
    def owns_terminal(self) -> bool:
        """Whether a terminal this rank writes to is somebody's: mpirun gives its ranks one of their own, and copies what they
        write line by line."""
        return self.launcher in ("none", "torchrun")

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ, device: str = "auto") -> World:
        """Find the launcher in ``env`` and pin a device: ``auto`` (CUDA where there is any, else CPU), ``cpu`` or ``cuda``.

        Raises:
            InputError: the environment is contradictory, or has fewer GPUs than ranks.
        """
        launch = read_launch(env)
        return cls.of(launch, pin_device(launch, device, env))

    @classmethod
    def alone(cls, device: torch.device) -> World:
        """The world of a process that has no other ranks."""
        return cls(0, 1, 0, 1, 0, device)

    @classmethod
    def of(cls, launch: Launch, device: torch.device) -> World:
        return cls(**asdict(launch), device=device)


def pin_device(launch: Launch, request: str = "auto", env: Mapping[str, str] = os.environ) -> torch.device:
    """The device of this rank; for CUDA it is made current before any other CUDA work, so no rank opens a context on
    GPU 0 by accident.

    Raises:
        InputError: CUDA is asked for and absent, or there are fewer GPUs than ranks on this machine.
    """
    import torch

    if request not in ("auto", "cpu", "cuda"):
        raise InputError(f"device {request!r}: expected auto, cpu or cuda")
    visible = env.get("CUDA_VISIBLE_DEVICES", "").strip()
    available = torch.cuda.is_available()
    if request == "cpu" or (request == "auto" and not available and not visible):
        return torch.device("cpu")
    if not available:
        why = f"CUDA_VISIBLE_DEVICES={visible!r}" if visible else "--device cuda"
        raise InputError(
            f"{why} asks for a GPU, but torch sees no usable CUDA device; pass --device cpu to train without"
        )
    gpus = torch.cuda.device_count()
    # Slurm can bind one GPU to each task (--gpus-per-task=1): then every task sees only its own, as device 0.
    bound_by_slurm = gpus == 1 and launch.launcher == "srun"
    index = 0 if bound_by_slurm else launch.local_rank
    if not bound_by_slurm and launch.local_size > gpus:
        raise InputError(
            f"{launch.local_size} ranks on this machine, but {gpus} visible GPUs: rank {launch.rank} (local rank "
            f"{launch.local_rank}) has none. Start at most {gpus} ranks per machine, or pass --device cpu"
        )
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    return device
