"""What people do wrong in their first hour, and the sentence that helps: each is seen here once, in one message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from disttrain.config import dump_recipe, load_recipe
from disttrain.version import __version__
from tests.harness import ROOT, Result, disttrain

SHORT = ["epochs=null", "updates=2", "log.tensorboard=false", "evaluate=null"]
OWN = "task.name=tests.cli.newcomer_tasks"

MISTAKES = {
    "a mean loss": (
        [f"{OWN}:MeanLoss"],
        "gave a tensor of shape () for a micro-batch of 64 samples; expected 64 numbers, 1 for each sample, not their mean",
    ),
    "a loss of wrong count": (
        [f"{OWN}:FewLosses"],
        "gave a tensor of shape (3,) for a micro-batch of 64 samples; expected 64 numbers",
    ),
    "samples of unequal shape": (
        [f"{OWN}:OddShapes", "batch.global=100"],
        "sample 50: field 0 is torch.float32 (1, 8, 9)",
    ),
    "a string label": ([f"{OWN}:StringLabels"], "field 1 is a str; expected a tensor, an array of numbers or a number"),
    "a dict where a tuple is meant": (
        [f"{OWN}:Dicts"],
        "task Dicts: a sample is a dict with image, label; expected a tuple, (input, label), or a prepare() of your own",
    ),
    "a stream": (
        [f"{OWN}:Stream"],
        "Endless, which has no length or cannot read a sample by its number; samples are read",
    ),
    "a precision that the device lacks": (
        ["precision=tf32"],
        "precision tf32: TF32 is a format of GPUs, and this is the CPU: use precision: fp32",
    ),
    "a state dict of another model": (
        ["start_from=other.pt"],
        "other.pt: 0 of the model's 6 tensors fit; 6 missing: body.1.weight, body.1.bias, body.5.weight and 3 more; 1 unexpected",
    ),
    "a pattern that matches nothing": (
        ["trainable=[nope.*]"],
        "no parameter matches 'nope.*'; there are body.1.weight",
    ),
    "nothing left to train": (["trainable=[]"], "expected at least one pattern; an empty list matches nothing"),
    "an unknown key": (["optimizer.learning_rate=0.1"], "unknown key; did you mean optimizer.lr?"),
    "a missing file": (["nowhere.yaml"], "nowhere.yaml: there is no such file"),
    "a wrong root": (
        ["task.name=fashion_mnist", "task.root=/nonexistent"],
        "/nonexistent: no such folder; `disttrain data fetch fashion_mnist --to /nonexistent`",
    ),
    "a metric that is not there": (
        ["early_stopping={metric: acuracy, patience: 1}", "evaluate={epochs: 1}"],
        "early_stopping.metric is 'acuracy'; task digits has loss, accuracy; did you mean accuracy?",
    ),
    "a task whose module is missing": (
        ["task.name=tests.cli.newcomer_task:MeanLoss"],
        "neither installed nor in the current directory; did you mean newcomer_tasks?",
    ),
    "a task that its module lacks": ([f"{OWN}:MeanLos"], "has no 'MeanLos'; did you mean MeanLoss?"),
    "a task by another name": (
        [f"{OWN}:Task"],
        "has no 'Task'; it defines MeanLoss, FewLosses, Items, OddShapes, StringLabels, Dicts, Endless, Stream",
    ),
    "a task whose module fails": (
        ["task.name=tests.cli.newcomer_failing:Task"],
        f"FileNotFoundError: /nonexistent/classes.txt not found. ({ROOT}/tests/cli/newcomer_failing.py, line 5)",
    ),
    "memory for less than one sample": (
        ["task.name=tests.faults.short:Short", "task.most=0", "batch.global=1"],
        "out of memory with one sample at once, and nothing smaller is left: use a smaller model or optimizer",
    ),
    "less memory than the micro-batch takes": (
        ["task.name=tests.faults.short:Short", "task.most=5"],
        "out of memory with 64 samples at once; the same command with --resume auto goes on from the last checkpoint with 32",
    ),
}


def check(result: Result, code: int, said: str) -> None:
    """One message, of ours, with the part that helps."""
    assert result.code == code, result.text
    assert said in result.err
    assert result.err.count("disttrain: ") == 1, result.err
    assert "Traceback" not in result.text


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message_that_helps(mistake: str, tmp_path: Path) -> None:
    words, said = MISTAKES[mistake]
    torch.save({"a.weight": torch.zeros(3, 3)}, tmp_path / "other.pt")
    words = [word.replace("other.pt", str(tmp_path / "other.pt")) for word in words]
    result = disttrain("train", *words[:1], *SHORT, *words[1:], "--run-dir", tmp_path / "run")
    check(result, 4 if "memory" in mistake else 2, said)


@pytest.mark.parametrize("words", [["trian", "f.yaml"], ["trian"], ["tarin", "optimizer.lr=1"]])
def test_a_misspelt_command_is_not_taken_for_a_recipe(words: list[str]) -> None:
    check(disttrain(*words), 2, f"there is no command '{words[0]}'; did you mean train?")


def test_a_run_directory_that_is_taken(tmp_path: Path) -> None:
    disttrain("train", *SHORT, "--run-dir", tmp_path / "run").check()
    again = disttrain("train", *SHORT, "--run-dir", tmp_path / "run")
    check(again, 2, "already holds a run: pass --resume to continue it")


def test_a_run_of_another_version(tmp_path: Path) -> None:
    """Its recipe has keys that are not known here, or its checkpoints another format."""
    disttrain("train", *SHORT, "--run-dir", tmp_path).check()
    recipe = tmp_path / "recipe.yaml"
    text = recipe.read_text()
    assert text == dump_recipe(load_recipe(recipe))
    recipe.write_text(text.replace("# disttrain ", "# disttrain 9.").replace("seed:", "sead:"))
    for words in (["train", "--resume", "--run-dir", tmp_path], ["evaluate", tmp_path]):
        result = disttrain(*words)
        check(result, 2, "sead: unknown key; did you mean seed?")
        assert (
            f"{recipe}: was written by disttrain 9.{__version__}, and this is {__version__}, which has other keys"
            in result.err
        )
    recipe.write_text(text)
    for manifest in tmp_path.glob("checkpoints/*/MANIFEST.json"):
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"version": 99}))
    result = disttrain("evaluate", tmp_path)
    check(result, 3, "has format version 99, which another disttrain wrote")


def test_show_without_the_data(tmp_path: Path) -> None:
    nowhere = {"DISTTRAIN_DATA": str(tmp_path)}
    result = disttrain("show", ROOT / "configs/fashion_mnist.yaml", "data={workers: 0}", env=nowhere)
    check(result, 2, "To see the plan without the data: data.train_samples=N data.test_samples=N")
