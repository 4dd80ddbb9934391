"""`disttrain scale` as a user runs it: refused, stopped and started again, on Horovod, and on other machines."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from tests.harness import ROOT, disttrain, finish, needs, start, train, wait_until
from tests.imitation_hosts import Hosts, missing

RECIPE = """
task: {name: synthetic, classes: 4, shape: [16], train_samples: 512, test_samples: 32}
model: {name: mlp, hidden: [64]}
batch: {global: 16}
samples: 1024
optimizer: {name: sgd, lr: 0.05, momentum: 0.9}
evaluate: null
log: {sinks: [], every_steps: 4}
"""
QUICK = ("--windows", "2", "--repeats", "1", "--seconds", "0.01")
PARTS = ("compute", "data", "exchange", "stragglers", "optimizer", "interpreter", "unexplained")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.mark.slow
def test_wrong_words_are_refused_and_change_nothing(recipe: Path, tmp_path: Path) -> None:
    for words, says in (
        (("--ranks", "0"), "--ranks '0'"),
        (("--ranks", "1,1"), "twice"),
        (("--ranks", "1,32", "--mode", "strong"), "less than one a rank"),
        (("--mode", "sideways"), "weak, strong or both"),
        (("--link", "fast", "--hosts", "a,b"), "100mbit"),
        (("--hosts", "no.such.host.invalid"), "cannot be used"),
        (("batch.growth={kind: late, batch: 32}",), "batch.growth"),
    ):
        refused = disttrain("scale", recipe, *words, "--to", tmp_path / "to")
        assert refused.code == 2, refused.text
        assert says in refused.err
        assert "Traceback" not in refused.err
    assert not (tmp_path / "to").exists()


@pytest.mark.slow
def test_a_stopped_scaling_goes_on(recipe: Path, tmp_path: Path) -> None:
    place = tmp_path / "to"
    words = ["-m", "disttrain", "scale", str(recipe), *QUICK, "--ranks", "1,2", "--to", str(place)]
    job = start("none", 1, words)
    first = place / "launches" / "weak-strong-1-0.json"
    wait_until(first.exists, "the first launch never ended")
    job.send_signal(signal.SIGTERM)
    assert finish(job).code == 75
    ended = first.read_bytes()
    found = json.loads(disttrain(*words[2:], "--json").check().out)
    assert first.read_bytes() == ended
    assert [(run["mode"], run["ranks"], run["global_batch"]) for run in found["runs"]] == [
        ("strong", 1, 16),
        ("strong", 2, 16),
        ("weak", 1, 16),
        ("weak", 2, 32),
    ]
    for run in found["runs"]:
        assert tuple(run["split"]) == PARTS
        assert sum(run["split"].values()) == pytest.approx(run["step_seconds"]["median"])
    assert found["exchange"]["alpha_seconds"] > 0
    assert {(each["mode"], each["ranks"]) for each in found["forecast"]} == {
        ("weak", 8),
        ("weak", 64),
        ("weak", 512),
        ("strong", 8),
    }
    assert any("forecast, not measured" in words for words in found["words"])
    assert (place / "plots" / "split.svg").is_file()
    refused = disttrain("scale", recipe, "batch.global=8", *QUICK, "--ranks", "1,2", "--to", place)
    assert refused.code == 2
    assert "batch.global: 16 -> 8" in refused.err
    one = disttrain("scale", recipe, *QUICK, "--ranks", "1", "--to", tmp_path / "one").check().out
    assert "no forecast" in one


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine",
    [pytest.param(e, marks=needs(t)) for e, t in (("horovod", "horovodrun"), ("horovod-mpi", "mpirun-horovod"))],
)
def test_horovod_is_scaled_too(recipe: Path, tmp_path: Path, engine: str) -> None:
    words = ("--ranks", "2", "--mode", "weak", "--engine", engine, "--to", tmp_path / "to", "--json")
    found = json.loads(disttrain("scale", recipe, *QUICK, *words).check().out)
    (run,) = found["runs"]
    assert (run["ranks"], run["engine"]) == (2, engine)
    assert found["exchange"]["measured"]


@pytest.mark.slow
def test_runs_made_elsewhere(recipe: Path, tmp_path: Path) -> None:
    for ranks in (1, 2):
        train("ranks" if ranks > 1 else "none", ranks, tmp_path / str(ranks), recipe).check()
    words = ("--from", tmp_path / "1", "--from", tmp_path / "2", "--to", tmp_path / "to")
    told = disttrain("scale", *words).check().out
    assert "strong scaling reaches" in told
    assert "no parts of a step" in told
    assert disttrain("scale", recipe, *words).code == 2


@pytest.mark.slow
@pytest.mark.skipif(bool(missing()), reason=f"no imitation hosts: {missing()}")
def test_two_hosts_are_reached_by_ssh() -> None:
    place = Path(tempfile.mkdtemp(dir="/var/tmp"))  # each host has a /dev/shm of its own, where temporary files may be
    (place / "recipe.yaml").write_text(RECIPE)
    large = "model.hidden=[512,512]"  # more bytes than the imitation of a link lets through at once
    words = [
        "-m",
        "disttrain",
        "scale",
        str(place / "recipe.yaml"),
        large,
        *QUICK,
        "--ranks",
        "1,2",
        "--mode",
        "weak",
        "--json",
    ]
    words += ["--hosts", "node0,node1", "--link", "100mbit", "--to", str(place / "to")]
    with Hosts(2, 1e8) as hosts:
        ended = hosts.run("node0", [sys.executable, *words], {**os.environ, "PYTHONPATH": str(ROOT)})
        assert ended.returncode == 0, ended.stderr
        refused = hosts.run(
            "node0", [sys.executable, *words[:-6], "--hosts", "node0,node7"], {**os.environ, "PYTHONPATH": str(ROOT)}
        )
    shutil.rmtree(place)
    found = json.loads(ended.stdout)
    assert [(run["ranks"], run["hosts"]) for run in found["runs"]] == [(1, 1), (2, 2)]
    slowest = max((m for m in found["exchange"]["measured"]), key=lambda m: m["bytes"])
    # Each of two ranks sends as many bytes as there are, and a link of 100 Mbit/s takes 80 ns for each.
    assert slowest["seconds"] > 0.8 * slowest["bytes"] * 8e-8
    assert refused.returncode == 2
    assert "node7 cannot be used" in refused.stderr
