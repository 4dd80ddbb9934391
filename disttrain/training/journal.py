"""The training lines of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

from disttrain.methods.watch import GradientWatch
from disttrain.telemetry import Sink
from disttrain.training.state import Run
from disttrain.training.step import Update


class Journal:
    """A line every ``log.every_steps`` updates and after the last one.

    A line is written one update late: while the next update is computed, the losses of all ranks are added up and travel
    to the host, so an update with a line costs no more than any other. :meth:`flush` writes what is still on its way; it
    is called before anything is evaluated or saved, so a file never lacks a line that a checkpoint has passed.

    Args:
        sink: where lines go; the same calls are made on every rank.
    """

    def __init__(self, run: Run, sink: Sink) -> None:
        self._run = run
        self._sink = sink
        self._watch = GradientWatch()
        self._write: Callable[[], None] | None = None
        self.meter = Meter(run.progress.position.samples)

    def note(self, result: Update, *, last: bool) -> None:
        """After each update, when the run's position has moved past it; ``last``: none follows.

        Raises:
            DivergedError: on all ranks: the gradient of an update up to the latest line was not finite.
        """
        self._finish()
        step = self._run.progress.position.updates
        self._watch.note(step, result.grad_norm)
        if last or step % self._run.recipe.log.every_steps == 0:
            self._write = self._line(result)

    def flush(self) -> None:
        """Write the line that is on its way, take in what was measured, and make sure that every gradient so far was finite.

        Raises:
            DivergedError: on all ranks: one was not.
        """
        self._finish()
        self._watch.check()
        self._run.methods.noise_scale.settle()

    def _finish(self) -> None:
        write, self._write = self._write, None
        if write is not None:
            write()

    def _line(self, result: Update) -> Callable[[], None]:
        """Begin a line: the exact mean loss over this update's global batch, and the state of the run as it is now."""
        run, noise = self._run, self._run.methods.noise_scale
        sums = cache(run.engine.sum_later(noise.with_parts(result.loss().view(1))))
        noise.arriving(sums, 1)
        grad_norm = self._watch.begin_check()
        report = run.methods.all.report()
        record: dict[str, Any] = {
            **where(run),
            "loss": None,
            "lr": result.lr,
            "grad_norm": None,
            "samples_per_second": self.meter.rate(run.progress.position.samples),
        }
        if run.recipe.batch.growth is not None:
            record["global_batch"] = run.plan.batch_at(run.progress.position.samples)

        def write() -> None:
            norm = grad_norm()
            self._sink.log(record | {"loss": sums()[0], "grad_norm": norm} | dict(report()))

        return write


def where(run: Run) -> dict[str, float]:
    """The coordinates every line carries."""
    position = run.progress.position
    epoch = position.epoch + position.offset / run.plan.train_samples
    return {"step": position.updates, "epoch": round(epoch, 6), "samples": position.samples}


class Meter:
    """Samples per second since the last reading, evaluations excluded."""

    def __init__(self, samples: int) -> None:
        self.restart(samples)

    def restart(self, samples: int) -> None:
        self._since, self._samples = time.monotonic(), samples

    def rate(self, samples: int) -> float:
        now = time.monotonic()
        rate = (samples - self._samples) / max(now - self._since, 1e-9)
        self._since, self._samples = now, samples
        return rate
