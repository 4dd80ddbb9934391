"""The large-batch methods are part of the promise: they do not depend on ranks, accumulation or engine either."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from disttrain.checkpoint import load_latest
from disttrain.verify.verify import max_difference
from tests.harness import every_launcher, lines, sample_ids, train

COMMON = [
    "batch.global=480",
    "epochs=null",
    "samples=12000",
    "precision=fp64",
    "model.name=mlp",
    "model.hidden=[48,32]",
    "evaluate=null",
    "log.sample_ids=true",
    "log.tensorboard=false",
    "seed=5",
]
GHOSTS = ["model.norm=ghost_batch", "model.ghost_size=32"]
METHODS = {
    "ghost norm folded by means, LARS, EMA": [
        *GHOSTS,
        "model.stats_update=mean",
        "optimizer={name: lars, lr: 5.0, momentum: 0.9, weight_decay: 0.001}",
        "average={kind: ema, half_life: {samples: 3000}}",
    ],
    "ghost norm folded in sequence, LAMB, annealed noise": [
        *GHOSTS,
        "model.stats_update=sequential",
        "optimizer={name: lamb, lr: 0.02, pre_normalization: clip}",
        "gradient.noise={kind: annealed, eta: 0.0001}",
    ],
    "matching noise, mixup and cutmix, NovoGrad, penalties, adaptive clipping": [
        "optimizer={name: novograd, lr: 0.01, weight_decay: 0.001}",
        "gradient={clip_adaptive: 0.05, noise: {kind: multiplicative, match_batch: 60}}",
        "loss={mixup: 0.4, cutmix: 1.0, label_smoothing: 0.1, penalties: [{parameters: ['*weight'], l1: 0.0001, l2: 0.001}]}",
    ],
    "squared gradients of slices": [
        "optimizer={name: batch_invariant_adam, lr: 0.0005, slice: 60, reference_batch: 60}",
        "noise_scale={every_steps: 5}",
    ],
    "Muon, momentum in a cycle": [
        "optimizer={name: muon, lr: 0.005, adamw: ['body.1.*', 'head.*']}",
        "schedule={decay: {kind: one_cycle}}",
    ],
    "a growing batch, LARC, SWA": [
        "batch.global=100",
        "batch.growth={kind: instead_of_decay, max: 600}",
        "schedule={warmup: {kind: linear, samples: 1000}, decay: {kind: exponential, end: 0.02}}",
        "optimizer={name: sgd, lr: 0.1, momentum: 0.9, larc: {trust_coefficient: 0.05}}",
        "average={kind: swa, start: {samples: 6000}, every: {samples: 500}}",
    ],
}
VARIANTS = [
    ("ranks", 2, 100),
    ("ranks", 4, 64),
    *[pytest.param(*p.values, 2, 130, marks=p.marks) for p in every_launcher("horovodrun")],
]
State = tuple[dict[str, torch.Tensor], list[list[int]]]


def state(run_dir: Path) -> State:
    """Weights and running statistics, the average where there is one, and the order of the samples."""
    checkpoint = load_latest(run_dir).checkpoint
    average = checkpoint.state["methods"].get("average", {}).get("weights", {})
    tensors = dict(checkpoint.model) | {f"average of {name}": tensor for name, tensor in average.items()}
    return tensors, sample_ids(run_dir)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, State]:
    """Each recipe in one process without accumulation."""
    found = {}
    for name, overrides in METHODS.items():
        run_dir = tmp_path_factory.mktemp("alone") / "run"
        train("none", 1, run_dir, *COMMON, *overrides).check()
        found[name] = state(run_dir)
    return found


@pytest.mark.parametrize(("launcher", "size", "per_rank_max"), VARIANTS)
@pytest.mark.parametrize("method", METHODS)
def test_methods_do_not_depend_on_the_cluster(
    method: str, launcher: str, size: int, per_rank_max: int, alone: dict[str, State], tmp_path: Path
) -> None:
    words = [*COMMON, *METHODS[method], f"batch.per_rank_max={per_rank_max}"]
    train(launcher, size, tmp_path / "run", *words).check()
    tensors, ids = state(tmp_path / "run")
    expected, order = alone[method]
    assert ids == order
    assert tensors.keys() == expected.keys()
    difference, where = max_difference(tensors, expected)
    assert difference <= 1e-9, f"{where} differs by {difference:.2e}"


def test_the_batch_grows_in_mid_epoch_and_loses_nothing(alone: dict[str, State]) -> None:
    _, ids = alone["a growing batch, LARC, SWA"]
    sizes = [len(batch) for batch in ids]
    assert sizes[0] == 100
    assert max(sizes) == 600
    assert len(set(sizes)) > 4
    flat = [i for batch in ids for i in batch]
    for epoch in range(len(flat) // 1437):
        assert sorted(flat[epoch * 1437 : (epoch + 1) * 1437]) == list(range(1437))


def test_averages_are_among_what_is_compared(alone: dict[str, State]) -> None:
    for name in ("ghost norm folded by means, LARS, EMA", "a growing batch, LARC, SWA"):
        assert any("average" in key for key in alone[name][0])


ADASCALE = [
    "batch.global=480",
    "samples=9600",
    "epochs=null",
    "precision=fp64",
    "model.name=mlp",
    "model.hidden=[32]",
    "optimizer={name: sgd, lr: 0.02, momentum: 0.9, reference_batch: 60, lr_scaling: adascale}",
    "schedule={decay: {kind: cosine}}",
    "evaluate=null",
    "log.every_steps=1",
    "log.tensorboard=false",
    "seed=5",
]


@pytest.fixture(scope="module")
def adascale_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    train("none", 1, run_dir, *ADASCALE, "batch.per_rank_max=30").check()
    return run_dir


@pytest.mark.parametrize(
    ("launcher", "size"),
    [
        ("ranks", 2),
        ("ranks", 4),
        *[pytest.param(*p.values, 2, marks=p.marks) for p in every_launcher("horovodrun")],
    ],
)
def test_adascale_measures_the_same_gain_from_the_same_micro_batches(
    launcher: str, size: int, adascale_alone: Path, tmp_path: Path
) -> None:
    train(launcher, size, tmp_path, *ADASCALE, "batch.per_rank_max=30").check()
    one, many = ([line for line in lines(run_dir) if "lr" in line] for run_dir in (adascale_alone, tmp_path))
    # A short last batch is cut into other micro-batches on other ranks, so the estimates agree nearly, not to rounding.
    assert one[0]["noise_scale"] == pytest.approx(many[0]["noise_scale"], rel=1e-9)
    assert abs(len(one) - len(many)) <= 1
    for a, b in zip(one, many, strict=False):
        assert a["lr"] == pytest.approx(b["lr"], rel=0.1, abs=1e-3)
    # More updates than the batch's 20 and fewer than the reference batch's 160: each is worth between 1 and 8 of these.
    assert 20 < len(one) < 160
    assert any(line["lr"] > 0.02 for line in one)


def test_a_noise_scale_needs_two_micro_batches(tmp_path: Path) -> None:
    result = train("none", 1, tmp_path / "run", *ADASCALE)
    assert result.code == 2
    assert "set batch.per_rank_max to 240 or less" in result.text


SYNCHRONISED = [
    *COMMON,
    "model.norm=batch",
    "batch_norm={kind: sync}",
    "optimizer={name: sgd, lr: 0.1, momentum: 0.9}",
]


@pytest.fixture(scope="module")
def synchronised_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    train("none", 1, run_dir, *SYNCHRONISED).check()
    return run_dir


@pytest.mark.parametrize(
    ("launcher", "size"),
    [
        ("ranks", 2),
        ("ranks", 3),
        *[pytest.param(*p.values, 2, marks=p.marks) for p in every_launcher("horovodrun")],
    ],
)
def test_synchronised_batch_norm_does_not_depend_on_the_ranks(
    launcher: str, size: int, synchronised_alone: Path, tmp_path: Path
) -> None:
    train(launcher, size, tmp_path / "run", *SYNCHRONISED).check()
    difference, where = max_difference(state(tmp_path / "run")[0], state(synchronised_alone)[0])
    assert difference <= 1e-9, f"{where} differs by {difference:.2e}"
