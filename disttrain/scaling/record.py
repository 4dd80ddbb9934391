"""What a scaling is once it is measured: ``scale.json``, which ``plan`` and ``report`` read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from disttrain.errors import InputError
from disttrain.rundir.rundir import replace_file
from disttrain.rundir.written import read_json

NAME, VERSION = "scale.json", 1
Mode = Literal["strong", "weak"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A median and the limits of its 95 % interval."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Split:
    """Where the time of a step goes, in seconds, mean over the ranks; each is measured by itself.

    Attributes:
        compute: forward and backward passes.
        data: waiting for the next batch.
        exchange: communication of gradients that computation does not hide.
        stragglers: waiting for the slowest rank.
        optimizer: from the mean gradient to the new weights.
        interpreter: Python around all of these.
        unexplained: of the step that was not watched, what their sum lacks; negative where they are more.
    """

    compute: float
    data: float
    exchange: float
    stragglers: float
    optimizer: float
    interpreter: float
    unexplained: float

    @property
    def step(self) -> float:
        """The step that was not watched: the sum of all."""
        return float(sum(asdict(self).values()))


@dataclass(frozen=True, slots=True)
class ScaledRun:
    """What was measured of one number of ranks.

    Attributes:
        mode: ``strong``: the global batch stays; ``weak``: that of a rank stays. One rank is both, and stands in each.
        hosts: machines.
        engine: ``ddp``, ``horovod`` or ``horovod-mpi``; one rank has no exchange, whatever is said here.
        step_seconds: of an update.
        split: None: throughput alone is known, as of runs made elsewhere.
        unexplained: its share of the step.
        cores: processor cores for all ranks; fewer than ranks: they take turns, and nothing is fitted to them. None: not known.
    """

    mode: Mode
    ranks: int
    hosts: int
    engine: str
    global_batch: int
    samples_per_second: Interval
    step_seconds: Interval
    split: Split | None
    unexplained: Interval | None = None
    cores: int | None = None


@dataclass(frozen=True, slots=True)
class Exchanged:
    """All-reduces of one size, the median of many.

    Attributes:
        link_bits_per_second: between hosts; None: it was not said.
    """

    ranks: int
    hosts: int
    link_bits_per_second: float | None
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class ExchangeModel:
    """An all-reduce of ``n`` bytes on ``p`` ranks takes ``2 (p - 1) alpha + 2 (p - 1) / p n beta`` (a ring).

    Attributes:
        alpha_seconds: of a message.
        seconds_per_byte: beta.
        measured: what both were fitted to.
        error: median of the relative differences between the model and what was measured.
    """

    alpha_seconds: float
    alpha_interval: Interval
    seconds_per_byte: float
    seconds_per_byte_interval: Interval
    measured: tuple[Exchanged, ...]
    error: float = 0.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """Throughput that was not measured."""

    mode: Mode
    ranks: int
    global_batch: int
    samples_per_second: Interval


@dataclass(frozen=True, slots=True)
class Scaling:
    """Everything that is known.

    Attributes:
        recipe: resolved.
        environment: machine and packages, in words.
        parameters_bytes: that travel in each update.
        exchange: None: not measured.
        forecast: none where too little is known; ``words`` say why.
        words: the verdict, and what else there is to say.
    """

    name: str
    recipe: dict[str, Any]
    environment: dict[str, Any]
    parameters_bytes: int
    runs: tuple[ScaledRun, ...]
    exchange: ExchangeModel | None
    forecast: tuple[Forecast, ...]
    words: tuple[str, ...] = field(default=())
    version: int = VERSION

    def of(self, mode: Mode) -> list[ScaledRun]:
        """The runs of a mode by their number of ranks."""
        return sorted((run for run in self.runs if run.mode == mode), key=lambda run: run.ranks)


def save(scaling: Scaling, directory: Path) -> None:
    """Write ``scale.json``.

    Raises:
        DisttrainError: it cannot be written; an earlier one is untouched.
    """
    replace_file(directory / NAME, json.dumps(asdict(scaling), indent=1, allow_nan=False) + "\n")


def load(directory: Path) -> Scaling:
    """Read ``scale.json``.

    Raises:
        InputError: there is none, or it is damaged or of another version.
    """
    path = directory / NAME
    if not path.exists():
        raise InputError(f"{directory} holds no scaling: {NAME} is missing (disttrain scale makes it)")
    data = read_json(path)
    version = data.get("version") if isinstance(data, dict) else None
    if version != VERSION:
        raise InputError(
            f"{path} is of version {version}, and this disttrain reads version {VERSION}: measure it again"
        )
    try:
        return TypeAdapter(Scaling).validate_python(data)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise InputError(f"{path}: {where}: {error.errors()[0]['msg']}") from None
