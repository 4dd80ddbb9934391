"""A ViT and a GPT-2 of Hugging Face, begun from a file and given a new head, in two stages on any ranks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from disttrain.checkpoint import load_checkpoint, load_latest
from disttrain.verify.verify import max_difference
from tests.harness import disttrain, lines, train

TEXT = Path(os.environ.get("DISTTRAIN_DATA", "nowhere")) / "tinyshakespeare" / "input.txt"
STAGES = "stages=[{updates: 4, trainable: ['%s.*']}, {lr_factor: 0.1, warmup: {updates: 1}}]"
COMMON = [
    "epochs=null", "updates=8", "precision=fp64", "evaluate=null", "schedule={decay: {kind: constant}}",
    "checkpoint={every_steps: 4, best: false}", "log={every_steps: 1, tensorboard: false}", "batch.global=48", "seed=2",
]  # fmt: skip
RECIPES = {
    "vit": [
        "model={name: 'tests.pretrained:ViT', dropout: 0.1}",
        "optimizer={name: adamw, lr: 0.01, eps: 0.0001, layer_decay: 0.5, weight_decay: 0.05, "
        "groups: [{parameters: ['*.bias', '*layernorm*'], weight_decay: 0.0}]}",
        "start_from={path: FILE, exclude: ['classifier.*']}",
        STAGES % "classifier",
    ],
    "gpt2": [
        f"task={{name: text, root: '{TEXT}', sequence_length: 8}}",
        "model={name: 'tests.pretrained:GPT2', dropout: 0.1}",
        "optimizer={name: adamw, lr: 0.01, eps: 0.0001}",
        "start_from={path: FILE, rename: {'': 'transformer.'}, exclude: ['lm_head.*']}",
        STAGES % "lm_head",
    ],
}
HEADS = {"vit": "classifier.", "gpt2": "lm_head."}


def pretrained(kind: str) -> dict[str, torch.Tensor]:
    """Random weights as a library would have them: a classifier of other classes; a bare transformer without a head. Biases
    that begin at 0 and have no gradient, those of keys, would differ by as much as they are."""
    from tests.pretrained import GPT2, ViT

    torch.manual_seed(1)
    found = ViT((1, 8, 8), 1000).state_dict() if kind == "vit" else GPT2(256, 8).transformer.state_dict()
    return {name: tensor + 0.02 * torch.randn(tensor.shape) for name, tensor in found.items()}


@pytest.fixture(scope="module", params=RECIPES)
def recipe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str], Path]:
    """A recipe, and its run of one process."""
    kind, folder = request.param, tmp_path_factory.mktemp("alone")
    save_file({name: t.contiguous() for name, t in pretrained(kind).items()}, folder / "w.safetensors")
    words = [*COMMON, *(word.replace("FILE", str(folder / "w.safetensors")) for word in RECIPES[kind])]
    train("none", 1, folder / "run", *words).check()
    return kind, words, folder / "run"


def test_two_ranks_make_the_same_run(recipe: tuple[str, list[str], Path], tmp_path: Path) -> None:
    kind, words, alone = recipe
    train("ranks", 2, tmp_path / "run", *words).check()
    found, expected = (load_latest(run_dir).checkpoint.model for run_dir in (tmp_path / "run", alone))
    difference, where = max_difference(dict(found), dict(expected))
    assert difference <= 1e-10, f"{kind}: {where} differs by {difference:.2e}"


def test_the_head_is_trained_first_and_then_all_of_it(recipe: tuple[str, list[str], Path]) -> None:
    kind, _, alone = recipe
    stored = {f"transformer.{k}" if kind == "gpt2" else k: t for k, t in pretrained(kind).items()}
    after = load_checkpoint(alone / "checkpoints/step-00000004").model
    head = HEADS[kind]
    for name, tensor in after.items():
        if not name.startswith(head):
            assert torch.equal(tensor, stored[name].double()), name
    end = load_latest(alone).checkpoint.model
    # The bias of keys has no gradient but rounding: softmax takes no notice of it.
    assert [n for n, t in end.items() if torch.equal(t, after[n]) and "k_proj.bias" not in n] == []
    (begun,) = [line for line in lines(alone) if line.get("event") == "start_from"]
    assert {name.startswith(head) for name in begun["missing"]} == {True}
    assert len(begun["sha256"]) == 64
    losses = [line["loss"] for line in lines(alone) if "loss" in line]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_verify_crosses_the_stages(recipe: tuple[str, list[str], Path]) -> None:
    _, words, _ = recipe
    arguments = ["--updates", "6", "--world-sizes", "2", "--accumulations", "1,2"]
    result = disttrain("verify", *words, *arguments).check()
    assert "1e-10" in result.text
