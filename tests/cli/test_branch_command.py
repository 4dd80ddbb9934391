"""`disttrain branch` as a user runs it: stopped and started again, on several ranks, and held against exact answers."""

from __future__ import annotations

import importlib.util
import json
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.harness import ROOT, disttrain, finish, needs, start, train, wait_until

RECIPE = """
task: {name: noisy_quadratic, dimension: 8, train_samples: 4096}
batch: {global: 16}
samples: 2048
optimizer: {name: sgd, lr: 0.05}
precision: fp64
checkpoint: {every_steps: 64, keep: 10}
log: {sinks: []}
"""
OPTIONS = ("--batches", "2x,4x", "--at", "64", "--law", "sqrt", "--repeats", "2", "--margin", "0.005")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("branch")
    (place / "recipe.yaml").write_text(RECIPE)
    train("none", 1, place / "run", place / "recipe.yaml").check()
    return place / "run"


@pytest.mark.slow
def test_a_stopped_study_goes_on(run_dir: Path) -> None:
    words = ["-m", "disttrain", "branch", str(run_dir), *OPTIONS, "--length", "samples=1024"]
    job = start("none", 1, words)
    done = run_dir / "branches" / "step-00000064" / "2x-0" / "metrics.jsonl"
    wait_until(done.exists, "the second branch never began")
    job.send_signal(signal.SIGTERM)
    assert finish(job).code == 75
    ended = (run_dir / "branches" / "step-00000064" / "1x-0" / "metrics.jsonl").read_bytes()
    table = disttrain("branch", run_dir, *OPTIONS, "--length", "samples=1024").check().out
    assert "critical batch" in table
    assert (run_dir / "branches" / "step-00000064" / "1x-0" / "metrics.jsonl").read_bytes() == ended
    assert json.loads((run_dir / "branches" / "critical_batch.json").read_text())["points"][0]["batch"] == 16
    refused = disttrain("branch", run_dir, *OPTIONS, "--length", "samples=512")
    assert refused.code == 2
    assert "--length: samples=1024 -> samples=512" in refused.err


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", pytest.param("horovod", marks=needs("horovodrun"))])
def test_branches_are_the_same_on_two_ranks(run_dir: Path, tmp_path: Path, engine: str) -> None:
    def losses(name: str, *more: str) -> np.ndarray:
        words = ("--batches", "2x", "--at", "64", "--length", "samples=512", "--repeats", "1", "--json", *more)
        found = json.loads(disttrain("branch", run_dir, *words, "--out", tmp_path / name).check().out)
        return np.array([found["points"][0]["losses"][k] for k in ("1", "2")])

    np.testing.assert_allclose(losses("two", "--ranks", "2", "--engine", engine), losses("one"), rtol=1e-10)


@pytest.mark.slow
def test_on_quadratics_each_tool_is_within_a_fifth_of_its_exact_value(tmp_path: Path) -> None:
    found = importlib.util.spec_from_file_location("quadratic", ROOT / "benchmarks" / "quadratic.py")
    assert found is not None
    assert found.loader is not None
    benchmark = importlib.util.module_from_spec(found)
    found.loader.exec_module(benchmark)
    for name in benchmark.SPECTRA:
        for tool in ("noise scale", "branch"):
            row = benchmark.measure(name, tool, tmp_path)
            assert row["measured"] == pytest.approx(row["exact"], rel=0.2), (name, tool)
