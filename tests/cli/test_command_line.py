"""What a user sees: messages, exit codes, and nothing heavy before the input is known to be good."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import tools
from tests.harness import ROOT, disttrain, environment, launch, lines

FIVE_MISTAKES = """\
task: {name: digits}
batch: {global: 64, per_rank_maximum: 32}
epochs: 3
optimizer: {name: sgd, lr: fast}
schedule: {warmup: {epochs: -1}}
seed: 1
learning_rte: 0.1
log: {tensorboard: on}
"""
QUICK = ["batch.global=400", "epochs=null", "updates=3", "log.tensorboard=false"]


def test_five_mistakes_are_five_messages(tmp_path: Path) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(FIVE_MISTAKES)
    result = disttrain("train", recipe)
    assert result.code == 2
    messages = result.err.splitlines()
    assert len(messages) == 5, result.err
    for line, key in (
        (2, "batch.per_rank_maximum"),
        (4, "optimizer.lr"),
        (5, "schedule.warmup"),
        (7, "learning_rte"),
        (8, "log.tensorboard"),
    ):
        assert any(f"{recipe}:{line}: {key}" in message for message in messages), result.err
    assert "Traceback" not in result.text
    assert result.out == ""


def test_five_mistakes_are_said_once_under_a_launcher(tmp_path: Path) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(FIVE_MISTAKES)
    result = launch("torchrun", 2, ["-m", "disttrain", "train", str(recipe)])
    assert result.code != 0
    assert result.err.count("per_rank_maximum: unknown key") == 1


@pytest.mark.parametrize(
    "words", [["train", "bad.yaml"], ["show", "bad.yaml"], ["verify", "bad.yaml"], ["train", "optimizer.lr=-1"]]
)
def test_wrong_input_is_refused_before_torch_is_loaded(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(FIVE_MISTAKES)
    code = (
        "import sys; sys.argv = ['disttrain', *sys.argv[1:]]\n"
        "from disttrain.cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert end.code == 2, end.code\n"
        "assert 'torch' not in sys.modules, 'torch was loaded'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"RANK": "abc", "WORLD_SIZE": "2"}, "RANK='abc'"),
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "RANK='2': expected an integer from 0 to 1"),
        ({"WORLD_SIZE": "0", "RANK": "0"}, "WORLD_SIZE='0'"),
        ({"RANK": "0"}, "WORLD_SIZE is not set"),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "99999"},
            "MASTER_PORT",
        ),
        (
            {
                "RANK": "0",
                "WORLD_SIZE": "2",
                "LOCAL_RANK": "0",
                "MASTER_ADDR": "no.such.host.invalid",
                "MASTER_PORT": "29500",
            },
            "cannot be resolved",
        ),
        ({"RANK": "0", "WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}, "two launchers"),
        ({"OMP_NUM_THREADS": "0"}, "OMP_NUM_THREADS='0'"),
        ({"CUDA_VISIBLE_DEVICES": "99"}, "CUDA_VISIBLE_DEVICES='99'"),
        ({"CUDA_VISIBLE_DEVICES": "0,0"}, "names a device twice"),
    ],
)
def test_nonsensical_environments_give_one_message(env: dict[str, str], said: str) -> None:
    result = disttrain("train", *QUICK, env=env)
    assert result.code == 2, result.text
    assert said in result.err
    assert len(result.err.strip().splitlines()) == 1, result.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--device", "cuda"], "--device cuda asks for a GPU"),
        (["train", "--device", "tpu"], "expected auto, cpu or cuda"),
        (["train", "--engine", "mpi"], "expected one of auto, ddp, horovod, local"),
        (["train", "a.yaml", "b.yaml"], "second recipe"),
        (["train", "batch.global=5000", "updates=1", "epochs=null"], "the train set has only 1437"),
        (["show", "--world-size", "0"], "--world-size 0"),
        (["verify", "--world-sizes", "0"], "--world-sizes '0'"),
        (["data", "fetch", "imagenet", "--to", "x"], "expected one of"),
        (["train", "--no-such-option"], "No such option"),
        (["train", "--lr", "0.1"], "given as optimizer.lr=0.1"),
        (["train", "model.name=timm:resnet18"], "timm"),
    ],
)
def test_wrong_options_exit_with_2(words: list[str], said: str, tmp_path: Path) -> None:
    if words[0] == "train":
        words = [*words, "--run-dir", str(tmp_path / "run")]
    result = disttrain(*words)
    assert result.code == 2, result.text
    assert said in result.err
    assert "Traceback" not in result.text


def test_no_checkpoint_to_resume_from_is_3(tmp_path: Path) -> None:
    assert disttrain("train", "--resume", "--run-dir", tmp_path / "none").code == 3
    assert disttrain("evaluate", tmp_path / "none").code == 2
    run = tmp_path / "run"
    disttrain("train", *QUICK, "--run-dir", run).check()
    for manifest in run.glob("checkpoints/*/MANIFEST.json"):
        manifest.write_text("{}")
    result = disttrain("train", "--resume", "--run-dir", run)
    assert result.code == 3
    assert "none of the" in result.err
    assert "Traceback" not in result.text


def test_a_damaged_checkpoint_is_passed_over_loudly(tmp_path: Path) -> None:
    run = tmp_path / "run"
    disttrain("train", *QUICK, "updates=4", "checkpoint.every_steps=2", "evaluate=null", "--run-dir", run).check()
    newest = max(run.glob("checkpoints/step-*"))
    (newest / "model.safetensors").write_bytes(b"\0" * (newest / "model.safetensors").stat().st_size)
    result = disttrain("train", "--resume", "--run-dir", run).check()
    assert "passed over" in result.text
    assert "sha256" in result.text
    assert [line["step"] for line in lines(run) if line.get("event") == "resume"] == [2]


def test_resuming_another_recipe_is_refused_by_name(tmp_path: Path) -> None:
    run = tmp_path / "run"
    disttrain("train", *QUICK, "--run-dir", run).check()
    result = disttrain("train", *QUICK, "optimizer.lr=0.5", "batch.per_rank_max=100", "--resume", "--run-dir", run)
    assert result.code == 2
    assert "optimizer.lr: 0.2 -> 0.5" in result.err
    assert "per_rank_max" not in result.err


def test_show_explains_every_number(tmp_path: Path) -> None:
    result = disttrain("show", ROOT / "configs/fashion_mnist.yaml", "batch.per_rank_max=50", "--world-size", 3).check()
    for said in (
        "512",
        "170 to 171",
        "does not divide",
        "peak learning rate",
        "updates an epoch",
        "the last batch has 96 samples",
    ):
        assert said in result.out, result.out


def test_show_works_where_the_data_is_not_and_says_how(tmp_path: Path) -> None:
    nowhere = {"DISTTRAIN_DATA": str(tmp_path)}
    said = disttrain("show", ROOT / "configs/fashion_mnist.yaml", "--world-size", 64, env=nowhere).check().out
    assert "60,000 samples" in said
    result = disttrain("show", ROOT / "configs/fashion_mnist.yaml", "data={workers: 0}", env=nowhere)
    assert result.code == 2, result.text
    assert "disttrain data fetch fashion_mnist" in result.err
    assert "data.train_samples=N" in result.err
    assert "data.test_samples=N" in result.err


@pytest.mark.parametrize("size", [1, 8, 64])
def test_every_recipe_resolves(size: int) -> None:
    recipes = sorted((ROOT / "configs").glob("*.yaml"))
    assert recipes
    for recipe in recipes:
        disttrain("show", recipe, "--world-size", size).check()


def test_schema_is_json_schema() -> None:
    schema = json.loads(disttrain("schema").check().out)
    assert {"task", "batch", "optimizer"} <= set(schema["properties"])


def test_doctor_names_what_is_here_and_what_is_not() -> None:
    out = disttrain("doctor").check().out
    for what in ("torch", "Gloo", "NCCL", "Horovod", "mpirun", "mpi4py", "CUDA devices"):
        assert what in out


def test_evaluate_gives_the_metrics_of_the_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    disttrain("train", *QUICK, "updates=8", "--run-dir", run).check()
    last = [line for line in lines(run) if line.get("split") == "test"][-1]
    out = disttrain("evaluate", run).check().out
    assert f"{100 * last['accuracy']:.2f} %" in out


def test_the_best_checkpoint_is_named_and_evaluated(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["updates=6", "evaluate.updates=1", "optimizer.lr=3", "checkpoint.keep=1", "--run-dir", run]
    summary = " ".join(disttrain("train", *QUICK, *words).check().out.split())
    found = {line["step"]: line["accuracy"] for line in lines(run) if line.get("split") == "test"}
    step = max(found, key=lambda at: found[at])
    assert step < 6  # or this shows nothing
    path = run / f"checkpoints/step-{step:08d}"
    assert f"best accuracy {100 * found[step]:.2f} % best step {step} best checkpoint {path} run" in summary
    for choice in (["--best"], ["--checkpoint", step]):
        shown = " ".join(disttrain("evaluate", run, *choice).check().out.split())
        assert f"test accuracy {100 * found[step]:.2f} %" in shown
        assert f"weights as trained checkpoint {path}" in shown
    for wrong, code, said in (
        (["--best", "--checkpoint", step], 2, "expected one of the two"),
        (["--checkpoint", "77"], 3, f"there are: {step}, 6"),
        (["--average"], 2, "keeps no average"),
    ):
        result = disttrain("evaluate", run, *wrong)
        assert (result.code, len(result.err.splitlines())) == (code, 1), result.text
        assert said in result.err


def test_no_command_means_train(tmp_path: Path) -> None:
    words = ["-m", "disttrain", *QUICK, "--run-dir", str(tmp_path / "run")]
    result = launch("none", 1, words, fresh=True).check()
    assert "test accuracy" in result.out
    assert str(tmp_path / "run") in result.out.replace("\n", "")
    assert {p.name for p in (tmp_path / "run").iterdir()} >= {"recipe.yaml", "metrics.jsonl", "checkpoints", "log"}
    first = next(line for line in lines(tmp_path / "run") if "loss" in line and "split" not in line)
    assert set(first) >= {"step", "epoch", "samples", "loss", "lr", "grad_norm", "samples_per_second"}


@pytest.mark.parametrize(
    ("words", "sizes", "accumulations", "code"),
    [([], "1,2", "2", 0), pytest.param(["model.norm=batch"], "2", "1", 4, marks=pytest.mark.slow)],
)
def test_verify_tells_invariant_recipes_from_others(
    words: list[str], sizes: str, accumulations: str, code: int, tmp_path: Path
) -> None:
    options = ["--world-sizes", sizes, "--accumulations", accumulations, "--updates", "4"]
    forked = {"DISTTRAIN_TEST_PYTHON": str(tools(tmp_path) / "python")}  # the runs that it starts
    result = disttrain("verify", "batch.global=500", *words, *options, env=forked)
    assert result.code == code, result.text
    assert ("the same training run" in result.out) == (code == 0)
    assert ("BROKEN" in result.out) == (code == 4)


def test_import_is_light() -> None:
    code = (
        "import sys, disttrain, disttrain.schedules, disttrain.data, disttrain.config\n"
        "heavy = {'torch', 'horovod', 'mpi4py', 'sklearn', 'tensorboard'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "import disttrain.engine.select\n"
        "heavy = {'horovod', 'mpi4py', 'disttrain.engine.ddp', 'disttrain.engine.horovod'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=environment())
