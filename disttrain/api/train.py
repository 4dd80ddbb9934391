"""Training from Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import nn

from disttrain.api.ambient import alone, joined
from disttrain.api.load import load_model
from disttrain.api.passed import AnyModel, AnyRecipe, AnyTask, Passed
from disttrain.engine.agreement import everyone
from disttrain.engine.base import Engine
from disttrain.engine.environment import read_job
from disttrain.errors import InputError
from disttrain.inference.choice import Which
from disttrain.rundir.settle import Request
from disttrain.telemetry import print_summary
from disttrain.training.session import run_session

_MODES: dict[object, Literal["no", "must", "auto"]] = {False: "no", True: "must", "auto": "auto"}


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run; the same on every rank, but for times.

    Attributes:
        metrics: of the last evaluation: the test set's under their own names, others as ``train_NAME``, ``validation_NAME``.
        run_dir: the run directory.
        step: updates made.
        samples: samples trained on.
        best_step: the update at which the metric that counts was the best; None without an evaluation.
        stopped: why a callback ended the run; None if it is complete, or early stopping ended it.
        summary: all that the command line would print at the end.
    """

    metrics: dict[str, float]
    run_dir: Path
    step: int
    samples: int
    best_step: int | None
    stopped: str | None
    summary: dict[str, Any]
    _passed: Passed = field(repr=False)

    def model(self, checkpoint: Which = "newest", average: bool | None = None) -> nn.Module:
        """The trained model; see :func:`disttrain.load_model`. The run directory has to be within this rank's reach."""
        given = self._passed
        return load_model(
            self.run_dir, task=given.task, model=given.model, checkpoint=checkpoint, average=average, trust=True
        )


def train(
    recipe: AnyRecipe | None = None,
    *,
    task: AnyTask | None = None,
    model: AnyModel | None = None,
    callbacks: Sequence[object] = (),
    run_dir: str | Path | None = None,
    resume: bool | Literal["auto"] = False,
    engine: str | Engine = "auto",
    device: str = "auto",
    timeout: float | None = None,
    quiet: bool = False,
    trust: bool = False,
) -> Result:
    """Train a recipe, as ``disttrain train`` does: in a script (alone, or started by torchrun, horovodrun or mpirun), in a
    notebook, in a sweep. The process is left as it was.

    Args:
        recipe: a file, a dict or a :class:`disttrain.Recipe`; None: the built-in default, or to resume that of the run.
        task: an object or a class, in place of the recipe's.
        model: a module, or a function that makes one (it gets what the task knows, such as ``num_classes``, where its signature
            names it), in place of the recipe's. A module is copied, so it is not trained itself, and another call begins with
            the same weights; the trained one is ``result.model()``.
        callbacks: objects such as :class:`disttrain.Callback`, after those of the recipe.
        run_dir: where the run lives; None: a new directory below ``runs/``, with ``resume="auto"`` ``runs/NAME``.
        resume: False: begin a run; True: continue one; ``"auto"``: continue if there is something to continue, else begin.
        engine: ``auto``, ``ddp``, ``horovod`` or ``local``, or an engine from :func:`disttrain.init`, which stays open; several
            trainings on several ranks share one.
        device: ``auto``, ``cpu`` or ``cuda``; an engine that is passed has its own.
        timeout: seconds that ranks wait for each other; see :func:`disttrain.init`.
        quiet: print nothing.
        trust: with ``resume`` and no recipe, whether the saved recipe may have objects outside disttrain made.

    What is passed as an object stands in the saved recipe by name only, and has to be passed again to continue the run, to
    evaluate or to load it.

    Raises:
        InputError: the input is wrong; the message says what.
        StopRequested: on SIGTERM, SIGUSR1 or Control-C, with everything saved; ``resume="auto"`` goes on. A second Control-C is
            a ``KeyboardInterrupt`` at once. In a thread other than the first, signals are left alone.
        RankError: this rank failed (its cause is attached), another one went away, or the ranks disagree.
        CheckpointError, DivergedError: as the command line's exit codes; see :mod:`disttrain.errors`.
    """

    def asked() -> tuple[Passed, Request]:
        given, mode = Passed(task, model), _mode(resume)
        wanted = None if recipe is None and mode != "no" else given.recipe(recipe)
        overrides = [] if wanted is not None else given.overrides()
        place = None if run_dir is None else Path(run_dir)
        return given, Request(wanted, overrides, mode, place, read_job(), trust, tuple(callbacks), quiet)

    # Ranks that are joined already hear of a mistake that only one of them has made.
    given, request = everyone(engine, asked) if isinstance(engine, Engine) else asked()
    with alone(), given.known(), joined(engine, device, timeout) as (mine, stop):
        metrics, about = run_session(request, mine, stop)
        if mine.world.is_main and not quiet:
            print_summary({**metrics, **about}, framed=mine.world.owns_terminal)
    return _result(metrics, about, given)


def _mode(resume: object) -> Literal["no", "must", "auto"]:
    if not isinstance(resume, bool | str) or resume not in _MODES:
        raise InputError(f'resume is {resume!r}; expected False, True or "auto"')
    return _MODES[resume]


def _result(metrics: dict[str, float], about: dict[str, Any], given: Passed) -> Result:
    return Result(
        metrics=dict(metrics),
        run_dir=Path(about["run_dir"]),
        step=about["updates"],
        samples=about["samples"],
        best_step=about.get("best_step"),
        stopped=about["stopped"],
        summary={**metrics, **about},
        _passed=given,
    )
