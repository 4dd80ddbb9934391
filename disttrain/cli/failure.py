"""How a command ends when it cannot go on: the first cause is the headline, and nobody repeats it."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from disttrain.engine.blame import headline, short_trace
from disttrain.engine.environment import read_launch
from disttrain.errors import DisttrainError, InputError

if TYPE_CHECKING:
    from disttrain.engine.base import Engine


def fail(error: DisttrainError) -> NoReturn:
    """End a command that never joined a job, or left it in good order, because of ``error``.

    Every rank finds the same mistake in the same input; the first rank of each machine says it.
    """
    if _speaks():
        say(str(error))
    raise SystemExit(error.exit_code)


def fail_rank(error: BaseException, engine: Engine) -> NoReturn:
    """End this rank of a running job because of ``error``, now, without waiting for any other rank.

    A deliberate error known to all ranks is printed by rank 0. One that this rank alone ran into is printed by it, with
    a traceback where the error is not deliberate. The consequences of another rank's end are one short line.
    """
    rank, lost_peer = engine.world.rank, engine.lost_peer(error)
    if lost_peer:
        time.sleep(0.4)  # horovodrun passes each rank's text on by a thread of its own: let the first error come first
        say(f"rank {rank} stopped {engine.phase}: another rank went away first")
        time.sleep(0.6)  # launchers report who exited first: let that be the rank that failed first
    elif isinstance(error, DisttrainError):
        if not error.everywhere or rank == 0:
            say(str(error) if error.everywhere else f"rank {rank} failed {engine.phase}: {error}")
    else:
        say(f"rank {rank} failed {engine.phase}: {headline(error)}\n{short_trace(error)}")
    if not lost_peer and not getattr(error, "everywhere", False):  # what all ranks ran into has been said
        _tell_torchrun(error)
    engine.abort()
    sys.stdout.flush()
    sys.stderr.flush()
    # Interpreter shutdown would wait in MPI's, NCCL's or Horovod's exit handlers for ranks that are still at work.
    os._exit(error.exit_code if isinstance(error, DisttrainError) else 4)


def say(message: str) -> None:
    """One message in one write, so that ranks do not interleave; a closed pipe is no reason to hang."""
    try:
        sys.stderr.write(f"disttrain: {message.rstrip()}\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass  # the pipe, the file or the whole stream is gone: the exit code says what can still be said


def _speaks() -> bool:
    try:
        return read_launch().local_rank == 0
    except InputError:
        # The environment itself is what is wrong: who plausibly has a first rank beside it leaves the word to that one.
        return not any(0 < _claimed(rank) < _claimed(size) for rank, size in _LOCAL_RANKS)


_LOCAL_RANKS = (
    ("LOCAL_RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("HOROVOD_LOCAL_RANK", "HOROVOD_SIZE"),
    ("SLURM_LOCALID", "SLURM_NTASKS"),
)


def _claimed(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else 0


def _tell_torchrun(error: BaseException) -> None:
    """Let torchrun's own summary name this error as the root cause."""
    if "TORCHELASTIC_ERROR_FILE" not in os.environ:
        return
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    get_error_handler().record_exception(error)
