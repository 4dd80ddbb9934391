"""A trained model leaves as what it was measured to be: plain torch counts the samples that the summary says."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from disttrain.tasks.digits import TEST_SAMPLES, Digits
from tests.harness import disttrain, environment, launch, lines, train

SCRIPT = Path(__file__).with_name("plain_torch.py")
MODEL = "model={name: mlp, hidden: [48, 32], norm: ghost_batch, ghost_size: 16}"
WORDS = ["batch.global=128", "epochs=null", "updates=14", "optimizer.lr=0.2", "log.tensorboard=false", MODEL]
NEEDS = pytest.mark.skipif(
    not all(map(find_spec, ("onnxruntime", "onnxscript", "torchao"))),
    reason="needs onnxruntime, onnxscript and torchao, optional dependencies",
)
AVERAGE = "average={kind: ema, half_life: {samples: 600}}"


def correct(run: Path) -> int:
    """By the run's own last evaluation."""
    last = [line for line in lines(run) if line.get("split") == "test"][-1]
    return round(last["accuracy"] * TEST_SAMPLES)


def counted(folder: Path, *words: str) -> list[int]:
    x, y = Digits().test_dataset().gather(np.arange(TEST_SAMPLES))  # type: ignore[union-attr]
    np.save(folder / "x.npy", x.numpy())
    np.save(folder / "y.npy", y.numpy())
    files = [str(folder / word) for word in words]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *files], env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


def export(run: Path, to: Path, *words: object) -> str:
    return " ".join(disttrain("export", run, "--to", to, *words).check().out.split())


def test_plain_torch_counts_what_the_summary_says(tmp_path: Path) -> None:
    """Ghost norm and an average of the weights, in float32, float64 and bfloat16, with and without the average."""
    expected = []
    for name, words in (
        ("fp32", [AVERAGE]),
        ("raw", []),  # the same run says what the weights as trained are worth
        ("fp64", [AVERAGE, "precision=fp64"]),
        ("bf16", [AVERAGE, "precision=bf16"]),
    ):
        train("ranks", 2, tmp_path / name, *WORDS, *words).check()
        expected.append(correct(tmp_path / name))
    assert expected[0] != expected[1]  # or this shows nothing of averages
    for run, file, words in (
        ("fp32", "fp32.safetensors", ["--average"]),
        ("fp32", "raw.safetensors", ["--no-average"]),
        ("fp64", "fp64.pt2", []),
        ("bf16", "bf16.safetensors", []),
        ("fp32", "fp32.pt2", []),
    ):
        export(tmp_path / run, tmp_path / file, *words)
    files = ["fp32.safetensors", "raw.safetensors", "fp64.pt2", "bf16.safetensors@bf16", "fp32.pt2"]
    assert counted(tmp_path, *files) == [*expected, expected[0]]


@pytest.mark.slow
@NEEDS
def test_an_onnx_file_and_int8_weights(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train("none", 1, run, *WORDS).check()
    files = ["a.onnx", "b.onnx", "b.pt2"]
    said = {}
    for file in files:
        said[file] = export(run, tmp_path / file, *(["--quantize", "int8"] if file[0] == "b" else []))
    plain, *quantized = counted(tmp_path, *files)
    assert plain == correct(run)
    for count, file in zip(quantized, files[1:], strict=True):
        assert f"test accuracy {100 * count / TEST_SAMPLES:.2f} %" in said[file]
        assert f"before int8 accuracy {100 * plain / TEST_SAMPLES:.2f} %" in said[file]
        assert "int8 weights in 3 linear layers" in said[file]
    notes = metadata(tmp_path / "b.onnx")
    assert notes["metrics_before"]["accuracy"] == pytest.approx(plain / TEST_SAMPLES)
    assert notes["metrics"]["accuracy"] == pytest.approx(quantized[0] / TEST_SAMPLES)


def metadata(path: Path) -> dict[str, Any]:
    import onnx

    found = {entry.key.removeprefix("disttrain."): entry.value for entry in onnx.load(path).metadata_props}
    return {name: json.loads(value) if value[0] in "{[" else value for name, value in found.items()}


def test_targets_that_are_refused(tmp_path: Path) -> None:
    run, there = tmp_path / "run", tmp_path / "there.pt2"
    train("none", 1, run, *WORDS, "updates=1").check()
    there.write_text("mine")
    (tmp_path / "folder").mkdir()
    for to, more, said in (
        (there, [], "--force replaces it"),
        (tmp_path / "a.bin", [], "'.bin' is unknown; expected .safetensors"),
        (tmp_path / "none/a.pt2", [], "there is no directory"),
        (tmp_path / "folder", ["--force"], "holds no exported model"),
        (tmp_path / "new", [], "is for models of transformers"),
        (tmp_path / "a.safetensors", ["--quantize", "int8"], "expected .pt2 or .onnx"),
        (tmp_path / "a.pt2", ["--quantize", "int4"], "expected int8"),
        (tmp_path / "a.pt2", ["--average"], "keeps no average"),
        (tmp_path / "a.pt2", ["--best", "--checkpoint", "1"], "expected one of the two"),
    ):
        result = disttrain("export", run, "--to", to, *more)
        assert (result.code, len(result.err.splitlines())) == (2, 1), result.text
        assert said in result.err
    result = launch("ranks", 2, ["-m", "disttrain", "export", str(run), "--to", str(tmp_path / "a.pt2")])
    assert "export is one process" in result.err
    assert there.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "run", "there.pt2"]
    export(run, there, "--force")
    assert there.stat().st_size > 1000
