"""The promise: one recipe is one training run, whatever executes it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from disttrain.checkpoint import load_latest
from disttrain.verify.verify import max_difference
from tests.harness import every_launcher, sample_ids, train

# Digits: 1437 samples, so a global batch of 500 ends every epoch with a short batch of 437, and 3 ranks or accumulation
# never divide it evenly. 50 updates are more than 16 epochs.
RECIPE = [
    "batch.global=500",
    "epochs=null",
    "updates=50",
    "model.name=mlp",
    "model.hidden=[64,32]",
    "optimizer.name=sgd",
    "optimizer.lr=0.05",
    "optimizer.momentum=0.9",
    "optimizer.weight_decay=0.001",
    "loss.label_smoothing=0.1",
    "gradient.clip_norm=0.5",
    "schedule.warmup.epochs=1",
    "evaluate=null",
    "log.sample_ids=true",
    "log.tensorboard=false",
    "seed=3",
]
BOUNDS = {"fp64": 1e-10, "fp32": 1e-4}
Reference = dict[str, tuple[dict[str, torch.Tensor], list[list[int]]]]


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_latest(run_dir).checkpoint.model


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """One process without accumulation, per precision."""
    found: Reference = {}
    for precision in BOUNDS:
        run_dir = tmp_path_factory.mktemp("reference") / precision
        train("none", 1, run_dir, *RECIPE, f"precision={precision}").check()
        found[precision] = weights(run_dir), sample_ids(run_dir)
    return found


def compare(run_dir: Path, reference: Reference, precision: str) -> None:
    expected, ids = reference[precision]
    assert sample_ids(run_dir) == ids
    difference, where = max_difference(weights(run_dir), expected)
    assert difference <= BOUNDS[precision], f"{where} differs by {difference:.2e}"


def test_the_reference_is_not_trivial(reference: Reference) -> None:
    """Fifty updates over 18 epochs, each id once an epoch, a short batch at each end, and weights that moved."""
    expected, ids = reference["fp64"]
    assert [len(b) for b in ids[:4]] == [500, 500, 437, 500]
    assert len(ids) == 50
    assert sorted(i for batch in ids[:3] for i in batch) == list(range(1437))
    assert ids[0] != ids[3]
    assert all(v.dtype == torch.float64 for v in expected.values())


@pytest.mark.parametrize("launcher", every_launcher())
@pytest.mark.parametrize(("size", "per_rank_max", "fresh"), [(2, None, True), (3, 90, False)])
def test_engines_agree_in_float64(
    launcher: str, size: int, per_rank_max: int | None, fresh: bool, reference: Reference, tmp_path: Path
) -> None:
    limit = [] if per_rank_max is None else [f"batch.per_rank_max={per_rank_max}"]
    train(launcher, size, tmp_path / "run", *RECIPE, "precision=fp64", *limit, fresh=fresh).check()
    compare(tmp_path / "run", reference, "fp64")


@pytest.mark.parametrize(("launcher", "size", "per_rank_max"), [("none", 1, 250), ("none", 1, 125), ("ranks", 4, 63)])
def test_world_and_accumulation_do_not_matter(
    launcher: str, size: int, per_rank_max: int, reference: Reference, tmp_path: Path
) -> None:
    train(launcher, size, tmp_path / "run", *RECIPE, "precision=fp64", f"batch.per_rank_max={per_rank_max}").check()
    compare(tmp_path / "run", reference, "fp64")


@pytest.mark.parametrize(
    ("launcher", "size"),
    [("ranks", 3), *[pytest.param(*p.values, 2, marks=p.marks) for p in every_launcher("horovodrun")]],
)
def test_float32_stays_within_rounding(launcher: str, size: int, reference: Reference, tmp_path: Path) -> None:
    train(launcher, size, tmp_path / "run", *RECIPE, "precision=fp32", "batch.per_rank_max=100").check()
    compare(tmp_path / "run", reference, "fp32")


def test_more_ranks_than_samples_in_a_batch(tmp_path: Path) -> None:
    """A batch of two on three ranks: one rank only takes part in the exchange, and batch norm does not notice."""
    small = [*RECIPE, "batch.global=2", "updates=6", "precision=fp64"]
    train("none", 1, tmp_path / "one", *small).check()
    train("ranks", 3, tmp_path / "three", *small).check()
    assert sample_ids(tmp_path / "one") == sample_ids(tmp_path / "three")
    difference, where = max_difference(weights(tmp_path / "three"), weights(tmp_path / "one"))
    assert difference <= 1e-10, where


@pytest.mark.parametrize("order", ["partition", "replacement"])
def test_other_orders_do_not_depend_on_ranks(order: str, tmp_path: Path) -> None:
    parts = ["data.parts=4"] if order == "partition" else []
    words = [*RECIPE, "updates=8", "precision=fp64", f"data.order={order}", *parts]
    train("none", 1, tmp_path / "one", *words).check()
    train("ranks", 3, tmp_path / "three", *words).check()
    assert sample_ids(tmp_path / "one") == sample_ids(tmp_path / "three")
    difference, where = max_difference(weights(tmp_path / "three"), weights(tmp_path / "one"))
    assert difference <= 1e-10, where
