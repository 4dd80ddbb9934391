"""What branches and studies are both asked: the law of the rate, and how trials are run."""

from __future__ import annotations

from disttrain.errors import InputError

LAWS = ("linear", "sqrt", "none")
"""Of :data:`disttrain.schedules.SCALING_RULES`, those that say all by the factor of the batch."""
ENGINES = ("ddp", "horovod", "horovod-mpi")


def check_asked(*, law: str, engine: str, **least: tuple[int, int]) -> None:
    """Refuse what no command could run.

    Args:
        least: by the name of an option, the number that was given and the least that it may be.

    Raises:
        InputError: naming the option.
    """
    for name, given, known in (("law", law, ("auto", *LAWS)), ("engine", engine, ENGINES)):
        if given not in known:
            raise InputError(f"--{name} {given!r}: expected {', '.join(known[:-1])} or {known[-1]}")
    for name, (number, smallest) in least.items():
        if not smallest <= number <= 1000:
            raise InputError(f"--{name} {number}: expected a number from {smallest} to 1000")
