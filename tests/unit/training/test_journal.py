"""Training lines: what they say, and when they are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from training_cases import MakeRun

from disttrain.errors import DivergedError
from disttrain.training.build import make_loader
from disttrain.training.journal import Journal
from disttrain.training.loop import advance, batches
from disttrain.training.state import Run
from disttrain.training.step import Update

WORDS = ["model.hidden=[8]", "batch.global=32", "log.every_steps=2"]


class Kept:
    """A sink that keeps its records."""

    def __init__(self) -> None:
        self.records: list[Mapping[str, Any]] = []

    def log(self, record: Mapping[str, object]) -> None:
        self.records.append(record)

    def close(self) -> None:
        pass

    def steps(self) -> list[int]:
        return [record["step"] for record in self.records]


def go_on(run: Run, journal: Journal, sink: Kept, updates: int) -> None:
    stream = batches(run)
    for _ in range(updates):
        advance(run, next(stream), journal, sink)
    stream.close()


def test_a_line_is_written_while_the_next_update_is_computed(make_run: MakeRun) -> None:
    run, sink = make_run(*WORDS), Kept()
    journal = Journal(run, sink)
    seen = []
    stream = batches(run)
    for _ in range(5):
        advance(run, next(stream), journal, sink)
        seen.append(sink.steps())
    assert seen == [[], [], [2], [2], [2, 4]]
    journal.flush()
    journal.flush()
    assert sink.steps() == [2, 4]


def test_a_line_says_what_its_own_update_was(make_run: MakeRun) -> None:
    run, sink = make_run(*WORDS, "log.every_steps=1", "schedule.warmup.updates=5"), Kept()
    journal = Journal(run, sink)
    samples, rates, losses, norms = [], [], [], []
    note = journal.note

    def listening(result: Update, *, last: bool) -> None:
        samples.append(run.progress.position.samples)
        rates.append(run.optimizer.param_groups[0]["lr"])
        losses.append(result.loss().item())
        norms.append(result.grad_norm.item())
        note(result, last=last)

    journal.note = listening  # type: ignore[method-assign]
    go_on(run, journal, sink, 4)
    journal.flush()
    assert sink.steps() == [1, 2, 3, 4]
    for key, expected in {"samples": samples, "lr": rates, "loss": losses, "grad_norm": norms}.items():
        assert [record[key] for record in sink.records] == expected, key
    assert len(set(rates)) == 4


def test_the_last_update_has_a_line(make_run: MakeRun) -> None:
    run, sink = make_run(*WORDS, "epochs=null", "updates=3", "log.every_steps=50"), Kept()
    journal = Journal(run, sink)
    go_on(run, journal, sink, 3)
    journal.flush()
    assert sink.steps() == [3]


@pytest.mark.parametrize("broken", [1, 2])
def test_a_gradient_that_is_not_finite_takes_the_place_of_its_line(make_run: MakeRun, broken: int) -> None:
    run, sink = make_run(*WORDS), Kept()
    journal = Journal(run, sink)
    for step in (1, 2):
        run.progress.position = run.progress.position.advanced(next(iter(make_loader(run))))
        norm = torch.tensor(float("nan") if step == broken else 1.0)
        journal.note(Update([(torch.ones(3), 1 / 3)], norm, 0.1, applied=True), last=False)
    with pytest.raises(DivergedError, match=f"of update {broken} is nan"):
        journal.flush()
    assert sink.records == []
