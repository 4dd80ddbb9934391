"""Dropout in a run: who draws, what is refused, and what is said about it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from training_cases import MakeRun

from disttrain.data.batch import MicroBatch
from disttrain.errors import InputError
from disttrain.nn.dropout import Drawn
from disttrain.training.build import make_loader
from disttrain.training.rehearse import check_draws
from disttrain.training.state import Run
from disttrain.training.step import update

WORDS = ["model.hidden=[64]", "model.dropout=0.5", "batch.global=50", "optimizer={name: sgd, lr: 0.1}", "seed=4"]


def weights(run: Run) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in run.params])


def test_who_draws_is_read_from_the_model(make_run: MakeRun) -> None:
    ours, theirs, none = make_run(*WORDS), make_run(*WORDS, "dropout=per_rank"), make_run("dropout=per_rank")
    assert any(isinstance(m, Drawn) for m in ours.model.modules())
    assert not any(isinstance(m, Drawn) for m in theirs.model.modules())
    assert ours.plan.rank_dependent == none.plan.rank_dependent == ()
    assert theirs.plan.rank_dependent == ("dropout from each rank's own generator (1 layers)",)


@pytest.mark.parametrize(("kind", "same"), [("invariant", True), ("per_rank", False)])
def test_generators_of_the_rank_do_not_matter(make_run: MakeRun, kind: str, same: bool) -> None:
    found = []
    for seed in (1, 2):
        run = make_run(*WORDS, f"dropout={kind}")
        torch.manual_seed(seed)
        update(run, next(iter(make_loader(run))), lr=0.1)
        found.append(weights(run))
    assert torch.equal(*found) == same


def test_every_update_drops_otherwise_and_a_repeated_one_alike(make_run: MakeRun) -> None:
    run = make_run(*WORDS)
    batch, losses = next(iter(make_loader(run))), []
    for number in (0, 1, 0):
        run.progress.position = replace(run.progress.position, updates=number)
        losses.append(float(update(run, batch, lr=0.0).loss()))
    assert losses[0] == losses[2] != losses[1]


def test_a_borrowed_sample_does_not_break_it(make_run: MakeRun) -> None:
    run = make_run(*WORDS)
    batch, before = next(iter(make_loader(run))), weights(run)
    borrowed = MicroBatch(tuple(t[:1] for t in batch.micro_batches[0].tensors), batch.ids[:1], 0.0)
    update(run, replace(batch, before=50, share=0, micro_batches=[borrowed]), lr=1.0)
    assert torch.equal(weights(run), before)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["model={name: 'tests.dropout_models:Restless'}"],
            r"torch\.nn\.functional\.dropout in the model itself, torch\.randn_like in noise\. Use disttrain\.nn\.Dropout",
        ),
        (
            ["task={name: 'tests.dropout_models:NoisyDigits'}"],
            r"torch\.rand_like in losses\(\) of task tests\.dropout_models:NoisyDigits",
        ),
    ],
    ids=["model", "task"],
)
def test_draws_of_ones_own_are_refused_by_name(make_run: MakeRun, words: list[str], message: str) -> None:
    run = make_run(*WORDS[2:], *words)
    with pytest.raises(InputError, match=message):
        check_draws(run, next(iter(make_loader(run))))
    run = make_run(*WORDS[2:], *words, "dropout=per_rank")
    check_draws(run, next(iter(make_loader(run))))


def test_layers_that_cannot_be_converted_are_refused_at_set_up(make_run: MakeRun) -> None:
    words = ["model={name: 'tests.dropout_models:recurrent'}"]
    with pytest.raises(InputError, match=r"^dropout: invariant: body \(LSTM\) drops .*, or say dropout: per_rank$"):
        make_run(*words)
    assert make_run(*words, "dropout=per_rank").plan.rank_dependent


def test_nobody_is_accused_falsely(make_run: MakeRun) -> None:
    """Noise on the losses, mixing, fp16's scaler and batch norm draw and change nothing that belongs to a rank."""
    words = [
        "gradient.noise={kind: multiplicative, match_batch: 10}",
        "loss.mixup=0.4",
        "model.norm=batch",
        "precision=fp16",
    ]
    run = make_run(*WORDS, *words)
    batch, before = next(iter(make_loader(run))), torch.get_rng_state()
    check_draws(run, batch)
    assert torch.equal(torch.get_rng_state(), before)
    assert update(run, batch, lr=0.1).parts


def test_a_model_without_dropout_has_nothing_around_its_passes(make_run: MakeRun) -> None:
    run = make_run("batch.global=50")
    batch = next(iter(make_loader(run)))
    before = torch.initial_seed()
    with run.methods.dropout.masks(1, batch, 0):
        assert torch.initial_seed() == before


@pytest.mark.parametrize("norm", ["true", "false"])
def test_rows_of_a_sample_that_are_apart_are_refused(make_run: MakeRun, norm: str) -> None:
    """Their masks would depend on how the batch is cut."""
    model = "model={name: 'tests.dropout_models:TwoViews', norm: %s, by_sample: %s}"
    run = make_run(*WORDS[2:], model % (norm, "false"))
    batch = next(iter(make_loader(run)))
    with pytest.raises(
        InputError, match=r"invariant: drop gets several rows for each sample, and not next to each other"
    ):
        check_draws(run, batch)
    run = make_run(*WORDS[2:], model % (norm, "true"))
    check_draws(run, batch)
