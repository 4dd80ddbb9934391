"""Dropout does not know the cluster: the same run on any ranks, accumulation and engine, in float64."""

from __future__ import annotations

from pathlib import Path

import pytest

from disttrain.checkpoint import load_latest
from disttrain.verify.verify import max_difference
from tests.harness import digest, disttrain, every_launcher, launch, train

COMMON = [
    "batch.global=50",
    "epochs=null",
    "updates=12",
    "precision=fp64",
    "evaluate=null",
    "log.tensorboard=false",
    "seed=5",
]
MLP = [*COMMON, "model={name: mlp, hidden: [64, 32], dropout: 0.3}", "optimizer={name: adamw, lr: 0.003}"]
TEXT = "".join(f"{n} squared is {n * n}, and its half {n / 2}.\n" for n in range(900))


def difference(run_dir: Path, expected: Path) -> float:
    a, b = (dict(load_latest(path).checkpoint.model) for path in (run_dir, expected))
    return max_difference(a, b)[0]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process without accumulation."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    train("none", 1, run_dir, *MLP).check()
    return run_dir


@pytest.mark.parametrize(
    ("launcher", "size", "most"),
    [
        ("none", 1, 17),
        ("ranks", 3, 7),
        *[pytest.param(*p.values, 2, 50, marks=p.marks) for p in every_launcher("horovodrun")],
    ],
)
def test_a_cluster_does_not_matter(launcher: str, size: int, most: int, alone: Path, tmp_path: Path) -> None:
    train(launcher, size, tmp_path, *MLP, f"batch.per_rank_max={most}").check()
    assert difference(tmp_path, alone) <= 1e-10


def test_it_would_be_seen(alone: Path, tmp_path: Path) -> None:
    said = train("none", 1, tmp_path, *MLP, "dropout=per_rank").check()
    assert difference(tmp_path, alone) > 1e-3
    assert "dropout from each rank's own generator (2 layers)" in said.text


def test_it_goes_on_in_the_middle(alone: Path, tmp_path: Path) -> None:
    """To the bit on as many ranks, and as the same run on others."""
    train("none", 1, tmp_path / "same", *MLP, "updates=5").check()
    train("none", 1, tmp_path / "same", *MLP, "--resume").check()
    ours, theirs = digest(tmp_path / "same"), digest(alone)
    assert {name: ours[name] for name in ours if "model" in name} == {n: theirs[n] for n in theirs if "model" in n}
    train("ranks", 2, tmp_path / "moved", *MLP, "updates=5", "batch.per_rank_max=13").check()
    train("none", 1, tmp_path / "moved", *MLP, "--resume").check()
    assert difference(tmp_path / "moved", alone) <= 1e-10


def test_our_transformer_calls_one_layer_twice(tmp_path: Path) -> None:
    (tmp_path / "input.txt").write_text(TEXT)
    task = f"task={{name: text, root: '{tmp_path}/input.txt', sequence_length: 16}}"
    words = [*COMMON, task, "model={name: transformer, layers: 1, heads: 2, width: 16, dropout: 0.2}", "updates=4"]
    train("none", 1, tmp_path / "one", *words).check()
    train("ranks", 2, tmp_path / "two", *words, "batch.per_rank_max=9").check()
    assert difference(tmp_path / "two", tmp_path / "one") <= 1e-10


def gpt2(folder: Path, **settings: object) -> list[str]:
    """A recipe of GPT-2 with dropout 0.1 after embedding, in attention and in residual branches."""
    (folder / "input.txt").write_text(TEXT)
    model = ", ".join(f"{name}: {value}" for name, value in {"name": "'tests.dropout_models:gpt2'", **settings}.items())
    task = f"task={{name: text, root: '{folder}/input.txt', sequence_length: 16}}"
    return [*COMMON, task, f"model={{{model}}}", "batch.global=10", "updates=3", "optimizer={name: adamw, lr: 0.003}"]


def test_gpt2(tmp_path: Path) -> None:
    words = gpt2(tmp_path)
    train("none", 1, tmp_path / "one", *words).check()
    train("ranks", 2, tmp_path / "two", *words, "batch.per_rank_max=3").check()
    assert difference(tmp_path / "two", tmp_path / "one") <= 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"attention": "eager"}, {"checkpoint": "true"}], ids=str)
def test_gpt2_otherwise(settings: dict[str, str], tmp_path: Path) -> None:
    train("none", 1, tmp_path / "one", *gpt2(tmp_path)).check()
    train("ranks", 2, tmp_path / "two", *gpt2(tmp_path, **settings), "batch.per_rank_max=3").check()
    assert difference(tmp_path / "two", tmp_path / "one") <= 1e-10


VIT = ["model={name: 'tests.dropout_models:vit'}", "optimizer={name: adamw, lr: 0.003}", "batch.global=50"]


@pytest.mark.slow
@pytest.mark.horovod
@pytest.mark.parametrize("kind", ["gpt2", "vit"])
def test_verify_passes(kind: str, tmp_path: Path) -> None:
    """The command that a user has, on torch DDP and on Horovod."""
    words = [*COMMON, *VIT] if kind == "vit" else gpt2(tmp_path)
    options = ["--world-sizes", "1,2,3", "--accumulations", "1,2", "--engines", "ddp,horovod", "--updates", "6"]
    said = disttrain("verify", *words, *options, timeout=900).check()
    assert said.out.count(" ok") == 9
    assert "the same training run" in said.out


@pytest.mark.parametrize("size", [1, 2])
def test_functional_dropout_is_refused_by_name_on_all_ranks(size: int, tmp_path: Path) -> None:
    words = [*COMMON, "model={name: 'tests.dropout_models:Restless'}", "--run-dir", str(tmp_path / "run")]
    said = launch("none" if size == 1 else "ranks", size, ["-m", "disttrain", "train", *words])
    assert said.code == 2
    assert said.text.count("torch.nn.functional.dropout in the model itself") == 1
    assert "Traceback" not in said.text
