"""Complete runs on samples that people bring: dicts, padded texts, pixels, a table; the same on any cut of the batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from disttrain.checkpoint import load_latest
from disttrain.verify.verify import max_difference
from tests.harness import disttrain, lines, sample_ids, train

COMMON = [
    "model=null",
    "batch.global=30",
    "epochs=null",
    "updates=30",
    "precision=fp64",
    "optimizer={name: adamw, lr: 0.02}",
    "schedule.decay.kind=constant",
    "evaluate={updates: 30, batch: 7}",
    "log.sample_ids=true",
    "log.tensorboard=false",
    "loss.label_smoothing=0.0",
    "seed=5",
]
RUNS = {
    "padded texts": (["task={name: 'tests.own_samples:Texts'}"], "accuracy"),
    "padded tokens": (["task={name: 'tests.own_samples:Tags'}"], "accuracy"),
    "segmentation": (["task={name: 'tests.own_samples:Shapes'}"], "iou"),
    "a table": (
        [
            "task={name: table, train: TABLE, target: y, test_fraction: 0.2}",
            "model={name: mlp, hidden: [8]}",
            "optimizer.lr=0.1",
        ],
        "r2",
    ),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet file of a linear function with a large offset."""
    arrow = pytest.importorskip("pyarrow", reason="needs pyarrow, an optional dependency")
    from pyarrow import parquet

    draw = np.random.default_rng(0)
    x = draw.normal(size=(200, 3)) * [1.0, 100.0, 0.01] + [0.0, 5000.0, -3.0]
    path = tmp_path_factory.mktemp("table") / "table.parquet"
    columns = {**{f"x{i}": x[:, i] for i in range(3)}, "y": 1e4 + 3 * x[:, 0] + 0.02 * x[:, 1]}
    parquet.write_table(arrow.table(columns), path)
    return path


@pytest.mark.parametrize("kind", RUNS)
def test_the_same_run_on_any_cut(kind: str, table: Path, tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="needs Hugging Face datasets, an optional dependency")
    given, metric = RUNS[kind]
    words = [*COMMON, *(word.replace("TABLE", str(table)) for word in given)]
    train("none", 1, tmp_path / "alone", *words).check()
    train("ranks", 2, tmp_path / "cut", *words, "batch.per_rank_max=4", "data.workers=1").check()
    assert sample_ids(tmp_path / "cut") == sample_ids(tmp_path / "alone")
    ours, theirs = (dict(load_latest(tmp_path / name).checkpoint.model) for name in ("cut", "alone"))
    difference, where = max_difference(ours, theirs)
    assert difference <= 1e-10, f"{where} differs by {difference:.2e}"
    found = [[line for line in lines(tmp_path / name) if "split" in line][-1] for name in ("cut", "alone")]
    assert found[0][metric] == pytest.approx(found[1][metric], rel=1e-12)
    assert found[1][metric] > 0.6


REFUSED = {
    "Unmasked": r"losses() gave 360 losses that are not zero for a micro-batch that has",
    "Unpacked": "losses() was given a dict: ids int64 (30, 12), tags int64 (30, 12), label int64 (30,)",
    "Streamed": "train_dataset() is an IterableDataset, which has no length or cannot read a sample by its number",
    "Uncollated": "expected the same for all (to pad to the longest, give the task a collate())",
}


@pytest.mark.parametrize("name", REFUSED)
def test_mistakes_are_named(name: str, tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="needs Hugging Face datasets, an optional dependency")
    words = [*COMMON, f"task={{name: 'tests.own_samples:{name}'}}"]
    said = disttrain("train", *words, "--run-dir", tmp_path / "run")
    assert said.code == 2, said.text
    assert REFUSED[name] in said.err
