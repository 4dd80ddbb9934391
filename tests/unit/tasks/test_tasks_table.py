"""Tables: what is read, what is refused by row and column, and metrics against numpy in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from disttrain.data import Table
from disttrain.errors import DataError, InputError
from disttrain.tasks import regression
from disttrain.tasks.table import TableTask

arrow = pytest.importorskip("pyarrow", reason="needs pyarrow, an optional dependency")

ROWS = 50


def columns() -> dict[str, Any]:
    draw = np.random.default_rng(1)
    x = draw.normal(size=(ROWS, 2)) * [1.0, 50.0] + [0.0, 1000.0]
    return {"a": x[:, 0], "b": x[:, 1], "flag": x[:, 0] > 0, "y": 2e4 + 300 * x[:, 0], "who": ["yes", "no"] * 25}


def write(path: Path, table: dict[str, Any]) -> Path:
    from pyarrow import csv, parquet

    found = arrow.table(table)
    if path.suffix == ".parquet":
        parquet.write_table(found, path)
    else:
        csv.write_csv(found, path)
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_file_becomes_inputs_and_a_target(name: str, tmp_path: Path) -> None:
    given = columns()
    table = Table(write(tmp_path / name, given), "y", features=["b", "a", "flag"])
    x, y = table.gather(np.array([3, 1]))
    assert table.columns == ("b", "a", "flag")
    assert x.dtype == y.dtype == torch.float64
    assert x.tolist() == [[given["b"][i], given["a"][i], float(given["flag"][i])] for i in (3, 1)]
    assert y.tolist() == [given["y"][3], given["y"][1]]


def test_frames_and_classes() -> None:
    pandas = pytest.importorskip("pandas", reason="needs pandas, an optional dependency")
    table = Table(pandas.DataFrame(columns()), "who", classes=True)
    assert table.classes == ("no", "yes")
    assert table.tensors[1].tolist() == [1, 0] * 25
    assert table.fingerprint() != Table(arrow.table(columns()), "who", classes=("yes", "no")).fingerprint()
    with pytest.raises(DataError, match="row 2, column who: 'no' is none of the classes yes, maybe"):
        Table(arrow.table(columns()), "who", classes=("yes", "maybe"))


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "text": (
        {"a": [1.0], "city": ["x"], "y": [1.0]},
        {},
        r"columns that are not numbers: city \(string\); leave them out",
    ),
    "missing": ({"a": [1.0, None], "y": [1.0, 2.0]}, {}, "row 2, column a: no value; expected a finite number"),
    "not finite": ({"a": [1.0, 2.0], "y": [float("nan"), 2.0]}, {}, "row 1, column y: nan"),
    "no such column": (
        {"age": [1.0], "y": [1.0]},
        {"features": ["ages"]},
        "no column 'ages', but age, y; did you mean age",
    ),
    "the target": ({"a": [1.0], "y": [1.0]}, {"features": ["a", "y"]}, "columns beside the target y as inputs"),
    "half a class": ({"a": [1.0], "y": [0.5]}, {"classes": True}, "row 1, column y: 0.5; expected a class"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_used_is_named(kind: str) -> None:
    table, options, message = REFUSED[kind]
    with pytest.raises(DataError, match=message):
        Table(arrow.table(table), "y", **options)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_text("nothing")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(DataError, match=r"t\.parquet: cannot be read as a table"):
        Table(tmp_path / "t.parquet", "y")
    with pytest.raises(DataError, match=r"t\.csv: cannot be read as a table: .*Expected 2 columns"):
        Table(tmp_path / "t.csv", "a")
    with pytest.raises(DataError, match=r"t\.txt: expected a file that ends in"):
        Table(tmp_path / "t.txt", "y")


def test_metrics_against_numpy() -> None:
    draw = np.random.default_rng(2)
    y, p = draw.normal(size=(2, 31))
    sums: dict[str, float] = {}
    for part in (slice(0, 7), slice(7, 31)):
        found = regression.totals(torch.from_numpy(p[part, None]), torch.from_numpy(y[part]))
        sums = {name: sums.get(name, 0.0) + float(total) for name, total in found.items()}
    rates = regression.rates(sums, unit=3.0)
    assert rates["loss"] == pytest.approx(np.mean((p - y) ** 2), rel=1e-14)
    assert rates["rmse"] == pytest.approx(3 * np.sqrt(np.mean((p - y) ** 2)), rel=1e-14)
    assert rates["mae"] == pytest.approx(3 * np.mean(np.abs(p - y)), rel=1e-14)
    assert rates["r2"] == pytest.approx(1 - np.sum((p - y) ** 2) / np.sum((y - y.mean()) ** 2), rel=1e-13)


def test_r2_of_targets_far_from_zero(tmp_path: Path) -> None:
    """As they are, not standardised: squares of 1e7 have no digits left for a spread of 1."""
    draw = np.random.default_rng(3)
    x = draw.normal(size=200)
    table = {"x": x, "y": 1e7 + x + draw.normal(size=200)}
    task = TableTask(str(write(tmp_path / "t.csv", table)), "y", standardise=False)
    model = nn.Linear(1, 1).double()
    model.load_state_dict({"weight": torch.ones(1, 1), "bias": torch.tensor([1e7])})
    tensors = task.test_dataset().tensors
    with torch.inference_mode():
        found = task.summarise({name: float(total) for name, total in task.evaluate(model, tensors).items()})
        y, error = tensors[1].numpy(), (model(tensors[0]).flatten() - tensors[1]).numpy()
    assert found["r2"] == pytest.approx(1 - np.sum(error**2) / np.sum((y - y.mean()) ** 2), rel=1e-9)
    assert torch.equal(
        regression.squares(torch.ones(3, 1), torch.tensor([0.0, 1.0, 3.0])), torch.tensor([1.0, 0.0, 4.0])
    )


class Plane(nn.Module):
    """Says what it is given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :1]


@pytest.mark.parametrize("standardise", [True, False])
def test_a_regression_is_measured_in_the_units_of_its_column(standardise: bool, tmp_path: Path) -> None:
    path = str(write(tmp_path / "t.csv", {name: value for name, value in columns().items() if name != "who"}))
    task = TableTask(path, "y", test_fraction=0.2, standardise=standardise)
    train, test = (dataset[:][0].numpy() for dataset in (task.train_dataset(), task.test_dataset()))
    y = task.test_dataset()[:][1].numpy()
    assert (task.sizes().train, task.sizes().test) == (40, 10)
    assert sorted([*train[:, 0], *test[:, 0]]) == sorted(columns()["a"])
    inputs = task.prepare(task.test_dataset()[:], torch.float64)
    metrics = task.summarise({name: float(total) for name, total in task.evaluate(Plane(), inputs).items()})
    predicted = test[:, 0]
    if standardise:
        of_y = task.train_dataset()[:][1].numpy()
        predicted = (test[:, 0] - train[:, 0].mean()) / train[:, 0].std() * of_y.std() + of_y.mean()
        assert inputs[0].mean(0).abs().max() < 1.5
    assert metrics["rmse"] == pytest.approx(np.sqrt(np.mean((predicted - y) ** 2)), rel=1e-9)
    assert metrics["mae"] == pytest.approx(np.mean(np.abs(predicted - y)), rel=1e-9)
    assert not task.higher_is_better("rmse")
    assert task.model_hints() == {"in_shape": (3,), "num_classes": 1}


def test_a_classification_takes_its_classes_from_the_train_file(tmp_path: Path) -> None:
    path = str(write(tmp_path / "t.parquet", columns()))
    task = TableTask(path, "who", test=path, kind="classification", label_smoothing=0.1)
    assert task.model_hints()["num_classes"] == 2
    assert task.test_dataset()[:][1].tolist() == [1, 0] * 25
    assert (task.metric, task.metric_names) == ("accuracy", ("loss", "accuracy"))
    with pytest.raises(InputError, match="label_smoothing is for classes"):
        TableTask(path, "y", label_smoothing=0.1)


def test_ids_of_64_bits_are_no_inputs(tmp_path: Path) -> None:
    """float64 would round them."""
    (tmp_path / "t.csv").write_text(f"id,y\n{2**60 + 1},1\n")
    with pytest.raises(
        DataError, match=r"t\.csv: column id: Integer value 1152921504606846977 not in range.*leave it out"
    ):
        Table(tmp_path / "t.csv", "y")
