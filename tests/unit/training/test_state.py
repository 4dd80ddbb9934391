"""What comes back from a checkpoint, and what is refused because no run could go on from it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from training_cases import MakeRun

from disttrain.checkpoint import Checkpoint, capture_rng, load_latest
from disttrain.checkpoint.fit import check_form
from disttrain.data.position import Position
from disttrain.errors import CheckpointError
from disttrain.state.share import mean
from disttrain.training.build import make_loader
from disttrain.training.persist import restore, restore_weights, save, take_up
from disttrain.training.state import Run
from disttrain.training.step import update
from tests.unit.checkpoint.checkpoint_cases import same

WORDS = [
    "batch.global=20",
    "batch.per_rank_max=10",
    "model.name=mlp",
    "model.hidden=[6]",
    "model.norm=ghost_batch",
    "model.ghost_size=10",
    "optimizer={name: adamw, lr: 0.01}",
    "noise_scale={every_steps: 1}",
    "average={kind: ema, half_life: {samples: 30}}",
]


def advance(run: Run, updates: int) -> None:
    stream = iter(make_loader(run))
    for _ in range(updates):
        batch = next(stream)
        update(run, batch, 0.01)
        run.progress.position = run.progress.position.advanced(batch)


def trained(make_run: MakeRun, run_dir: Path, *words: str) -> tuple[Run, Checkpoint]:
    run = make_run(*WORDS, *words)
    advance(run, 3)
    save(run, run_dir)
    return run, load_latest(run_dir).checkpoint


KINDS = {
    "ema": "log.layer_ratios=false",
    "swa": "average={kind: swa, start: {samples: 20}, every: {samples: 20}}",
    "larc": "optimizer={name: sgd, lr: 0.1, momentum: 0.9, larc: {}}",
    "lars": "optimizer={name: lars, lr: 0.1, momentum: 0.9}",
    "lamb": "optimizer={name: lamb, lr: 0.01}",
    "novograd": "optimizer={name: novograd, lr: 0.01}",
    "muon": "optimizer={name: muon, lr: 0.01}",
    "slices": "optimizer={name: batch_invariant_adam, lr: 0.01, slice: 10, reference_batch: 10, lr_scaling: linear}",
    "sgd": "optimizer={name: sgd, lr: 0.1, momentum: 0.9}",
    "plain": "optimizer={name: sgd, lr: 0.1, momentum: 0.0}",
    "fp16": "precision=fp16",
    "user": "optimizer={name: 'tests.unit.training.test_state:Counting', lr: 0.01}",
}


class Counting(torch.optim.Optimizer):
    """Somebody's own: a counter that is an int, a flag, a list of tensors that grows, and words in its settings."""

    def __init__(self, params: Any, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "mode": "slow", "counts": (1, 2.0, None)})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                state["count"] = state.get("count", 0) + 1
                state["even"] = state["count"] % 2 == 0
                state["history"] = [*state.get("history", []), p.grad.sum()][-3:]
                p.sub_(group["lr"] * p.grad / state["count"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_run_goes_on_to_the_same_bits(kind: str, make_run: MakeRun, tmp_path: Path) -> None:
    run, checkpoint = trained(make_run, tmp_path, KINDS[kind])
    other = make_run(*WORDS, KINDS[kind])
    restore(other, checkpoint)
    assert same(other.state_dict(), run.state_dict())
    for each in (run, other):
        advance(each, 2)
    assert same(dict(other.model.state_dict()), dict(run.model.state_dict()))
    assert same(other.state_dict(), run.state_dict())


def test_a_frozen_layer_with_ghosts_fits_before_and_after_an_update(make_run: MakeRun) -> None:
    """In evaluation mode it has complete statistics all the time: a checkpoint of either moment fits a run in the other."""
    statistics = make_run(*WORDS, "model.norm=ghost_batch").methods.statistics
    with statistics.complete():
        before = statistics.rank_state_dict()
        statistics.begin_update(Position())
        check_form(before, statistics.rank_state_dict(), "parts")


def test_averages_stand_under_their_parameters_names(make_run: MakeRun, tmp_path: Path) -> None:
    run, checkpoint = trained(make_run, tmp_path)
    weights = checkpoint.state["methods"]["average"]["weights"]
    params = dict(run.model.named_parameters())
    assert weights.keys() == params.keys()
    with run.methods.average.applied():
        assert all(torch.equal(weights[name], p) for name, p in params.items())
    assert not any(torch.equal(weights[name], p) for name, p in params.items())
    other = make_run(*WORDS)
    restore_weights(other, checkpoint, averaged=True)
    assert all(torch.equal(p, weights[name]) for name, p in other.model.named_parameters())


Change = Callable[[Checkpoint], Any]


def put(*path: Any, value: Any) -> Change:
    """Set, or delete where ``value`` is ..., what lies under ``path``: ``model`` or ``state``, then keys."""

    def change(checkpoint: Checkpoint) -> None:
        inner: Any = getattr(checkpoint, path[0])
        for key in path[1:-1]:
            inner = inner[key]
        if value is ...:
            del inner[path[-1]]
        else:
            inner[path[-1]] = value

    return change


NAN = torch.full((6, 64), math.nan)
STATE = ("state", "optimizer", "state")
GROUPS = ("state", "optimizer", "param_groups")
PROGRESS = ("state", "progress")
METHODS = ("state", "methods")
PARTS = ("state", "ranks", 0, "methods")
REFUSED: dict[str, tuple[Change, str]] = {
    "another name": (lambda c: c.model.update(x=c.model.popitem()[1]), "tensors are not those of this recipe's model"),  # type: ignore[attr-defined]
    "a name too many": (put("model", "more", value=torch.zeros(1)), "1 tensors are not those.*more"),
    "another shape": (put("model", "0.bias", value=torch.zeros(7)), "tensors are not those"),
    "weights not finite": (lambda c: next(t for t in c.model.values() if t.is_floating_point()).fill_(math.inf), "not finite"),
    "no progress": (put(*PROGRESS, value=...), "the checkpoint's state is of"),
    "something more": (put("state", "more", value=1), "the checkpoint's state is of"),
    "progress a list": (put(*PROGRESS, value=[]), "progress of the run is not"),
    "progress a number": (put(*PROGRESS, value=3), "progress of the run is not"),
    "progress a tensor": (put(*PROGRESS, value=torch.zeros(2)), "progress of the run is not"),
    "position missing": (put(*PROGRESS, "position", value=...), "progress of the run is not"),
    "position negative": (put(*PROGRESS, "position", "samples", value=-20), "samples is -20"),
    "position a float": (put(*PROGRESS, "position", "offset", value=20.0), r"offset is 20\.0"),
    "position past the epoch": (put(*PROGRESS, "position", "offset", value=10**9), "stands at sample 1000000000"),
    "position of another update": (put(*PROGRESS, "position", "updates", value=2), "of update 3 is at 2"),
    "position a list": (put(*PROGRESS, "position", value=[0, 0, 0, 0]), "position is not"),
    "stale a text": (put(*PROGRESS, "stale", value="0"), "stale is 0"),
    "scheduled not finite": (put(*PROGRESS, "scheduled", value=math.nan), "scheduled is nan"),
    "metrics a list": (put(*PROGRESS, "metrics", value=[]), "metrics is"),
    "optimizer missing": (put("state", "optimizer", value=...), "the checkpoint's state is of"),
    "optimizer a list": (put("state", "optimizer", value=[]), "optimizer cannot be continued"),
    "no groups": (put(*GROUPS, value=...), "optimizer cannot be continued"),
    "one group too few": (put(*GROUPS, 0, value=...), "optimizer cannot be continued"),
    "one group too many": (lambda c: c.state["optimizer"]["param_groups"].append({"params": []}), "cannot be continued"),
    "group without eps": (put(*GROUPS, 0, "eps", value=...), r"param_groups\.0 is a mapping"),
    "betas a text": (put(*GROUPS, 0, "betas", value="0.9"), r"param_groups\.0\.betas is '0\.9'"),
    "betas of one": (put(*GROUPS, 0, "betas", value=(0.9,)), r"param_groups\.0\.betas is a tuple of 1"),
    "weight decay NaN": (put(*GROUPS, 0, "weight_decay", value=math.nan), "weight_decay is nan"),
    "moment of another shape": (put(*STATE, 0, "exp_avg", value=torch.zeros(7)), r"exp_avg is a tensor of shape \(7,\)"),
    "moment that broadcasts": (put(*STATE, 0, "exp_avg_sq", value=torch.zeros(1)), "exp_avg_sq is a tensor"),
    "moment a number": (put(*STATE, 0, "exp_avg", value=0.0), r"exp_avg is 0\.0"),
    "moment missing": (put(*STATE, 0, "exp_avg_sq", value=...), r"optimizer\.state\.0 is a mapping of"),
    "counter infinite": (put(*STATE, 0, "step", value=math.inf), r"optimizer\.state\.0\.step is the tensor inf"),
    "counter missing": (put(*STATE, 0, "step", value=...), "optimizer"),
    "moment not finite": (lambda c: c.state["optimizer"]["state"][0]["exp_avg"].fill_(math.nan), "1 tensors .* not finite"),
    "no moments at all": (put(*STATE, value={}), "no state for any parameter"),
    "state a list": (put(*STATE, value=[1]), "optimizer"),
    "state of one a list": (put(*STATE, 0, value=[1]), "optimizer"),
    "methods missing": (put(*METHODS, value=...), "the checkpoint's state is of"),
    "methods a list": (put(*METHODS, value=[]), "methods is a mapping of nothing"),
    "methods a tensor": (put(*METHODS, value=torch.zeros(1)), "methods is a mapping of nothing"),
    "average missing": (put(*METHODS, "average", value=...), "methods is a mapping of noise_scale"),
    "an unknown method": (put(*METHODS, "more", value={}), "methods are average, more, noise_scale, not those"),
    "average of another kind": (put(*METHODS, "average", "seen", value=3), r"methods\.average is a mapping"),
    "average a number": (put(*METHODS, "average", value=3), r"methods\.average is 3"),
    "average without names": (put(*METHODS, "average", "weights", value=[torch.zeros(1)]), "weights is a list"),
    "average of another shape": (put(*METHODS, "average", "weights", "0.bias", value=torch.zeros(7)), "weights"),
    "average of truths": (put(*METHODS, "average", "weights", "0.bias", value=torch.ones(6).bool()), "average"),
    "average not finite": (
        lambda c: next(iter(c.state["methods"]["average"]["weights"].values())).fill_(-math.inf),
        "not finite",
    ),
    "noise scale a text": (put(*METHODS, "noise_scale", "count", value="1"), "noise_scale.count is '1'"),
    "precision of another": (put("state", "precision", value={"scale": 1.0}), "precision is a mapping of scale"),
    "no ranks": (put("state", "ranks", value=...), "states of the ranks are not"),
    "ranks empty": (put("state", "ranks", value=[]), "states of the ranks are not"),
    "ranks a mapping": (put("state", "ranks", value={0: {}}), "states of the ranks are not"),
    "ranks numbers": (put("state", "ranks", value=[3]), "states of the ranks are not"),
    "rank without random": (put("state", "ranks", 0, "random", value=...), "states of the ranks are not"),
    "random a number": (put("state", "ranks", 0, "random", value=3), "states of the ranks are not"),
    "random damaged": (put("state", "ranks", 0, "random", "torch", value="AAAA"), "random state is damaged"),
    "parts missing": (put(*PARTS, value={}), r"ranks\.methods is a mapping of nothing"),
    "parts of another method": (put(*PARTS, "more", value={}), r"ranks\.methods is a mapping of"),
    "parts a tensor": (put(*PARTS, "statistics", value=torch.ones(())), r"statistics is the tensor 1\.0"),
    "parts of one layer more": (lambda c: c.state["ranks"][0]["methods"]["statistics"]["layers"].append([]), "layers is a"),
    "mean that broadcasts": (put(*PARTS, "statistics", "layers", 0, 0, value=torch.zeros(1)), r"layers\.0\.0 is a tensor"),
    "variance a number": (put(*PARTS, "statistics", "layers", 0, 1, value=2**70), r"layers\.0\.1 is"),
    "variance not finite": (
        lambda c: c.state["ranks"][0]["methods"]["statistics"]["layers"][0][1].fill_(math.nan),
        "1 tensors .* not finite",
    ),
    "share a text": (put(*PARTS, "statistics", "layers", 0, 2, value="1"), r"layers\.0\.2 is '1'"),
    "exchanges that differ": (
        lambda c: c.state["ranks"].append({**c.state["ranks"][0], "exchange": {"error": {0: torch.zeros(3)}}}),
        "states of the ranks differ",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def cache() -> dict[str, Any]:
    """The checkpoint that every change starts from."""
    return {}


@pytest.mark.parametrize("name", REFUSED)
def test_a_sealed_checkpoint_that_cannot_be_continued(
    name: str, make_run: MakeRun, tmp_path: Path, cache: dict[str, Any]
) -> None:
    if not cache:
        _, cache["checkpoint"] = trained(make_run, tmp_path)
    checkpoint: Checkpoint = copy.deepcopy(cache["checkpoint"])
    change, message = REFUSED[name]
    change(checkpoint)
    with pytest.raises(CheckpointError, match=message) as raised:
        restore(make_run(*WORDS), checkpoint)
    assert raised.value.exit_code == 3
    assert raised.value.everywhere
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    "value", [[], 3, {"average": 3}, {"average": {"weights": [1]}}, {"average": {"weights": {"x": 1}}}]
)
def test_averages_that_evaluation_cannot_use(value: Any, make_run: MakeRun, tmp_path: Path) -> None:
    _, checkpoint = trained(make_run, tmp_path)
    checkpoint.state["methods"] = value
    with pytest.raises(CheckpointError, match="average is not what disttrain writes"):
        restore_weights(make_run(*WORDS), checkpoint, averaged=True)


@pytest.mark.parametrize(
    ("mean", "message"),
    [
        (torch.full((32,), math.nan), "1 tensors .* not finite"),
        (torch.zeros(1), r"shape \(1,\)"),
        (3, "is 3; expected a tensor"),
    ],
)
def test_a_rank_s_running_statistics_that_cannot_be_continued(mean: Any, message: str, make_run: MakeRun) -> None:
    run = make_run("task={name: synthetic, shape: [1, 8, 8], classes: 4}", "model={name: convnet, norm: batch}")
    state = {"layers": [list(layer) for layer in run.methods.statistics.rank_state_dict()["layers"]]}
    state["layers"][0][0] = mean
    with pytest.raises(CheckpointError, match=message):
        take_up(run, {"random": capture_rng("cpu"), "exchange": {}, "methods": {"statistics": state}})


def test_the_mean_of_trees() -> None:
    trees = [{"rank": 2, "error": {3: torch.tensor([i, 1.0])}} for i in (1.0, 2.0, 6.0)]
    assert same(mean(trees), {"rank": 2, "error": {3: torch.tensor([3.0, 1.0])}})
    assert mean([{}, {}]) == {}
