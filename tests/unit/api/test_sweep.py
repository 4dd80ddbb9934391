"""A sweep with Optuna in one process, pruned by a callback: as docs/howto/python.md shows it."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

import disttrain
from disttrain.config.sections.schedules import Schedule

optuna = pytest.importorskip("optuna", reason="needs Optuna, an optional dependency")


class Prune(disttrain.Callback):
    """Reports each evaluation, and ends a run that Optuna gives up."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial

    def on_evaluation(self, run: disttrain.RunView) -> None:
        self.trial.report(run.metrics["accuracy"], run.step)
        if self.trial.should_prune():
            run.stop("pruned")


def test_three_trials(tmp_path: Path) -> None:
    recipe = disttrain.Recipe.load(None, "log.sinks=[]", "updates=40", "evaluate={updates: 20, train: false}")
    recipe.schedule = Schedule()

    def objective(trial: optuna.Trial) -> float:
        recipe.optimizer.lr = trial.suggest_float("lr", 1e-6, 1.0, log=True)
        result = disttrain.train(recipe, callbacks=[Prune(trial)], run_dir=tmp_path / f"{trial.number}", quiet=True)
        if result.stopped:
            raise optuna.TrialPruned
        return result.metrics["accuracy"]

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        pruner = optuna.pruners.ThresholdPruner(lower=0.4)
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1), pruner=pruner)
    for lr in (0.1, 1e-6, 0.05):
        study.enqueue_trial({"lr": lr})
    study.optimize(objective, n_trials=3)
    good, bad, other = study.trials
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert (sorted(good.intermediate_values), sorted(bad.intermediate_values)) == ([20, 40], [20])
    assert study.best_value == max(good.value or 0, other.value or 0) > 0.4
