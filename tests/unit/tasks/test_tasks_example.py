"""The task and the model of ``examples/my_task.py``, with the recipe in its docstring."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


# An error of 0.5 is noise; always guessing the mean gives 5.
@pytest.mark.parametrize(
    ("model", "epochs", "bound"),
    [pytest.param("mlp", 40, 0.75, marks=pytest.mark.slow), ("examples.my_task:Bumps", 4, 3.0)],
)
def test_it_trains_as_its_docstring_says(tmp_path: Path, model: str, epochs: int, bound: float) -> None:
    docstring = (ROOT / "examples" / "my_task.py").read_text().split('"""')[1]
    recipe = textwrap.dedent(docstring.split("::\n")[1].split("\n\n")[0])
    if model != "mlp":
        recipe = recipe.replace("{name: mlp, hidden: [128, 128]}", f'{{name: "{model}"}}')
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe)
    command = [sys.executable, "-m", "disttrain", "train", str(path), f"epochs={epochs}", "log.tensorboard=false"]
    result = subprocess.run(
        [*command, "--run-dir", str(tmp_path / "run")], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert result.returncode == 0, result.stdout + result.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rmse = [line["rmse"] for line in lines if "rmse" in line and line.get("split") == "test"]
    assert len(rmse) == epochs
    assert 0.45 < rmse[-1] < bound
