"""Small things that a run promises: each was found wanting once."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from training_cases import MakeRun

from disttrain.engine.blame import headline
from disttrain.errors import CheckpointError, InputError, RankError
from disttrain.inference.evaluate import evaluate
from disttrain.training.build import make_loader
from disttrain.training.persist import save
from disttrain.training.step import update

TWO = ["task.name=tests.two_losses:DigitAndInk", "model.name=tests.two_losses:TwoHeads", "batch.global=101"]


def test_weights_that_were_learned_are_missed(make_run: MakeRun) -> None:
    run = make_run(*TWO, "loss.balance={kind: uncertainty, lr: 0.1}")
    batch = next(iter(make_loader(run)))
    update(run, batch, 0.01)
    run.progress.position = run.progress.position.advanced(batch)
    state = copy.deepcopy(run.state_dict())
    del state["methods"]["loss_weights"]
    with pytest.raises(CheckpointError, match="methods cannot be continued: KeyError: 'loss_weights'"):
        make_run(*TWO, "loss.balance={kind: uncertainty, lr: 0.1}").load_state_dict(state)


def test_a_position_that_contradicts_itself_is_refused(make_run: MakeRun) -> None:
    run = make_run()
    batch = next(iter(make_loader(run)))
    update(run, batch, 0.01)
    run.progress.position = run.progress.position.advanced(batch)
    state = copy.deepcopy(run.state_dict())
    make_run().load_state_dict(copy.deepcopy(state))
    state["progress"]["position"]["samples"] = 10**12
    with pytest.raises(CheckpointError, match=r"stands at sample \d+ of epoch 0 after 1000000000000"):
        make_run().load_state_dict(state)


def test_an_evaluation_leaves_frozen_layers_frozen(make_run: MakeRun) -> None:
    run = make_run("model.norm=batch", "model.dropout=0.1")
    frozen = next(m for m in run.model.modules() if isinstance(m, torch.nn.BatchNorm1d))
    frozen.eval()
    evaluate(run)
    assert run.model.training
    assert not frozen.training


def test_own_code_that_fails_in_a_save_is_a_failed_rank(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tests.own_ghosts import __file__ as own

    run = make_run()
    code = compile("def state_dict():\n    raise ValueError('no state')\n", own, "exec")
    names: dict[str, object] = {}
    exec(code, names)
    monkeypatch.setattr(run.optimizer, "state_dict", names["state_dict"])
    with pytest.raises(RankError, match=r"rank 0 failed .*own_ghosts.py:2: ValueError: no state") as found:
        save(run, tmp_path)
    assert found.value.exit_code == 4


def test_nothing_to_train_is_said(make_run: MakeRun) -> None:
    with pytest.raises(InputError, match="the model has no parameters to train"):
        make_run("task.name=tests.two_losses:DigitAndInk", "model.name=torch.nn:Identity")


def test_an_error_without_a_text_has_a_headline() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert headline(Mute()) == "Mute: its text cannot be made"
