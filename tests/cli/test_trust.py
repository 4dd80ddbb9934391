"""A run directory from elsewhere runs nothing without consent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import disttrain, lines

FRIEDMAN = """\
name: friedman
task: {name: "examples.my_task:Friedman", train_samples: 256, test_samples: 64}
batch: {global: 128}
updates: 2
optimizer: {name: adamw, lr: 0.01}
log: {tensorboard: false}
"""


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate"],
        ["train", "--resume", "--run-dir"],
        ["export", "--to", "model.safetensors"],
        ["predict", "--to", "rows.jsonl", "--best"],
    ],
)
def test_a_foreign_run_directory_runs_no_command(words: list[str], tmp_path: Path) -> None:
    run, marker = tmp_path / "run", tmp_path / "ran"
    run.mkdir()
    (run / "recipe.yaml").write_text(
        f"task: {{name: digits}}\nmodel: {{name: 'os:system', command: 'touch {marker}'}}\nbatch: {{global: 64}}\n"
        "epochs: 1\noptimizer: {name: sgd, lr: 0.1}\n"
    )
    result = disttrain(*words, run, *(["test"] if words[0] == "predict" else []))
    assert result.code == 2, result.text
    assert "model os:system" in result.err
    assert "--trust" in result.err
    assert "Traceback" not in result.text
    assert not marker.exists()


def test_consent_by_option_or_by_the_recipe_itself(tmp_path: Path) -> None:
    run, recipe = tmp_path / "run", tmp_path / "friedman.yaml"
    recipe.write_text(FRIEDMAN)
    disttrain("train", recipe, "--run-dir", run).check()
    assert disttrain("train", "updates=4", "--resume", "--run-dir", run).code == 2
    disttrain("train", "updates=4", "--resume", "--run-dir", run, "--trust").check()
    disttrain("train", recipe, "updates=6", "--resume", "--run-dir", run).check()
    assert [line["step"] for line in lines(run) if line.get("event") == "resume"] == [2, 4]
    assert "rmse" in disttrain("evaluate", run, "--trust").check().out
