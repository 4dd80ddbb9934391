"""The errors disttrain raises on purpose. Each one knows the exit code of the command line it ends in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self


class DisttrainError(Exception):
    """Base of every deliberate error. The command line prints the message without a traceback and exits with
    ``exit_code``.

    Attributes:
        everywhere: every rank raises it, with the same message, so only rank 0 needs to print it. Set-up finds that out
            by itself (:func:`disttrain.engine.agreement.everyone`).
    """

    exit_code = 4
    everywhere = False

    def on_all_ranks(self) -> Self:
        """Mark this error as raised by every rank, and return it."""
        self.everywhere = True
        return self


class InputError(DisttrainError):
    """The user's input is wrong: a recipe, an option, the environment, or the data. Exit code 2."""

    exit_code = 2


class UserCodeError(InputError):
    """The user's own task, model or data failed while the run was set up. The message names file and line. Exit code 2."""


class DataError(InputError):
    """A data file is missing, damaged, or not what its header says. The message names the file. Exit code 2."""


class CheckpointError(DisttrainError):
    """A checkpoint is damaged, hostile, or belongs to another run. Exit code 3."""

    exit_code = 3


class NoCheckpointError(CheckpointError):
    """There is no valid checkpoint to resume from. Exit code 3."""


@contextmanager
def as_input() -> Iterator[None]:
    """What is wrong with a checkpoint is wrong input to whoever does not go on from it.

    Raises:
        InputError: in the place of a :class:`CheckpointError`, with its message.
    """
    try:
        yield
    except CheckpointError as error:
        raise InputError(str(error)) from error


class RankError(DisttrainError):
    """A rank failed, or the ranks disagree. Exit code 4."""


class PeerLostError(RankError):
    """A collective failed because another rank went away: a consequence, never the headline. Exit code 4."""


class OutOfMemoryError(RankError):
    """A rank ran out of memory. The message says with how many samples at once, and what to do. Exit code 4.

    Attributes:
        explained: False where it does not say that yet, because whoever raised it could not know.
    """

    explained = True


class DivergedError(RankError):
    """Training produced a value that is not finite. Exit code 4."""


class StopRequested(DisttrainError):
    """Stopped on SIGTERM or SIGUSR1 with everything saved; run again with ``--resume auto`` to go on. Exit code 75."""

    exit_code = 75
