"""Ranks on other machines, reached by ssh: without a password, and with the same paths as here."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from disttrain.errors import InputError
from disttrain.version import __version__

HANDED_ON = r"PATH|PYTHONPATH|LD_LIBRARY_PATH|VIRTUAL_ENV|OMP_NUM_THREADS|(DISTTRAIN|NCCL|GLOO|HOROVOD|TORCH|CUDA)_.*"
"""Variables that ranks elsewhere have as they are here; see ``launch/mpirun.sh``."""
SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10")
HOST = r"([A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9_][A-Za-z0-9_.-]*"


@dataclass(frozen=True, slots=True)
class Place:
    """Of a rank: ``local_rank`` of ``local_size`` on its machine; ``hosts`` are all machines, and none where it is this one."""

    rank: int
    size: int
    local_size: int
    hosts: tuple[str, ...]

    @classmethod
    def of(cls, rank: int, size: int, hosts: Sequence[str]) -> Self:
        return cls(rank, size, size // max(len(hosts), 1), tuple(hosts))

    def command(self, program: Sequence[str], base: Mapping[str, str], own: Mapping[str, str]) -> list[str]:
        """What starts ``program`` there with the variables of its rank, from here."""
        if not self.hosts:
            return list(program)
        given = {name: base[name] for name in handed_on(base)} | dict(own)
        words = ["env", *(f"{name}={value}" for name, value in given.items()), *program]
        # With a terminal of its own the rank ends when the connection does.
        return [
            *SSH,
            "-tt",
            self.hosts[self.rank // self.local_size],
            f"cd {shlex.quote(os.getcwd())} && {shlex.join(words)}",
        ]


def torch_variables(at: Place, port: str) -> dict[str, str]:
    """What torchrun would tell a rank; nothing where there is one."""
    if at.size == 1:
        return {}
    return {
        "RANK": str(at.rank),
        "WORLD_SIZE": str(at.size),
        "LOCAL_RANK": str(at.rank % at.local_size),
        "LOCAL_WORLD_SIZE": str(at.local_size),
        "GROUP_RANK": str(at.rank // at.local_size),
        "MASTER_ADDR": at.hosts[0].rpartition("@")[2] if at.hosts else "127.0.0.1",
        "MASTER_PORT": port,
    }


def handed_on(env: Mapping[str, str]) -> list[str]:
    """The names of those variables of ``env`` that all machines get."""
    return [name for name in env if re.fullmatch(HANDED_ON, name)]


def check_hosts(hosts: Sequence[str]) -> None:
    """Refuse machines that cannot be used.

    Raises:
        InputError: a name is none or there twice; a machine cannot be reached, or this program is not there, or is another.
    """
    for host in hosts:
        if not re.fullmatch(HOST, host):
            raise InputError(f"--hosts: {host!r} is no host; expected names separated by commas, such as host1,host2")
    if len(set(hosts)) < len(hosts):
        raise InputError(f"--hosts {','.join(hosts)} names a host twice")
    for host in hosts:
        asked = Place.of(0, 1, [host]).command([sys.executable, "-m", "disttrain", "--version"], os.environ, {})
        try:
            found = subprocess.run(
                [word for word in asked if word != "-tt"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
            )
        except FileNotFoundError:
            raise InputError("--hosts needs ssh, which is not installed") from None
        except subprocess.TimeoutExpired:
            raise InputError(f"--hosts: {host} does not answer within 60 s") from None
        if found.returncode:
            last = (found.stderr.strip().splitlines() or [f"exit code {found.returncode}"])[-1]
            raise InputError(
                f"--hosts: {host} cannot be used: {last} (it is to be reached by ssh without a password, with the same paths as "
                "here)"
            )
        if found.stdout.split()[-1:] != [__version__]:
            raise InputError(f"--hosts: {host} has {found.stdout.strip() or 'no disttrain'}, and this is {__version__}")
