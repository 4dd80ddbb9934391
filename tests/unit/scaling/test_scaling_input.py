"""What cannot be scaled is refused before anything is started or written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from disttrain.config import Recipe, check_recipe
from disttrain.errors import InputError
from disttrain.scaling.elsewhere import read_runs
from disttrain.scaling.launches import answer, heard, said, understood
from disttrain.scaling.scale import planned
from disttrain.scaling.settings import Asked, Settings, make_base, open_scaling
from disttrain.verify.hosts import Place, check_hosts, torch_variables


def recipe(**batch: object) -> Recipe:
    return check_recipe(
        {
            "task": {"name": "noisy_quadratic", "dimension": 4, "train_samples": 64},
            "batch": batch or {"global": 6},
            "samples": 640,
            "optimizer": {"name": "sgd", "lr": 0.05},
        }
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"ranks": (0, 2)}, "--ranks '0,2'"),
        ({"ranks": (2, 2)}, "twice"),
        ({"ranks": (1, 3), "hosts": ("a", "b")}, "cannot share them evenly"),
        ({"ranks": (1,), "engine": "nccl"}, "ddp, horovod or horovod-mpi"),
        ({"ranks": (1,), "windows": 0}, "--windows 0"),
        ({"ranks": (1,), "link": 1e9}, "none are given"),
    ],
)
def test_numbers_that_are_none(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Settings(**given)


def test_batches_that_do_not_fit() -> None:
    fine = make_base(recipe(), Settings((2, 4), ("weak",)))
    assert [fine.batch("weak", ranks) for ranks in (2, 4)] == [6, 12]
    assert fine.on("weak", 4).batch.global_ == 12
    assert make_base(recipe(per_rank=3), Settings((2, 4))).batch("strong", 4) == 6
    for given, ranks, mode, says in (
        (recipe(), (4, 8), "weak", "cannot be divided among 4 ranks"),
        (recipe(), (2, 8), "strong", "less than one a rank"),
        (recipe(), (1, 16), "weak", "the train set has only 64"),
        (
            recipe(**{"global": 6, "growth": {"kind": "late", "batch": 12}}),
            (1,),
            "weak",
            "growth",
        ),
    ):
        with pytest.raises(InputError, match=says):
            make_base(given, Settings(ranks, (mode,)))  # type: ignore[arg-type]


def test_no_share_of_a_single_sample_is_measured() -> None:
    settings = Settings((1, 2), repeats=1)
    first, *others = planned(make_base(recipe(**{"global": 8}), settings), settings)
    assert first.asked.shares == (2, 4, 8)  # 8 ranks have a single one, which batch norm refuses
    assert [launch.asked.shares for launch in others] == [(), ()]


def test_a_directory_is_that_of_one_scaling(tmp_path: Path) -> None:
    settings, place = Settings((1, 2)), tmp_path / "scaling"
    open_scaling(place, recipe(), settings)
    open_scaling(place, recipe(), Settings((1, 2, 4), repeats=5))
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    for given, asked, says in (
        (recipe(**{"global": 8}), settings, "batch.global: 6 -> 8"),
        (recipe(), Settings((1, 2), seconds=1.0), "--seconds: 0.05 -> 1.0"),
        (recipe(), Settings((2, 4)), "beginning with 1 -> 2"),
    ):
        with pytest.raises(InputError, match=says):
            open_scaling(place, given, asked)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before
    (place / "settings.json").write_text(json.dumps({"format": 9, "disttrain": "9.0"}))
    with pytest.raises(InputError, match=r"of disttrain 9\.0"):
        open_scaling(place, recipe(), settings)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no scaling"):
        open_scaling(tmp_path / "other", recipe(), settings)


def test_hosts_that_are_none() -> None:
    for hosts, says in (
        (("-oProxyCommand=x",), "is no host"),
        (("a", "a"), "twice"),
        (("no.such.host.invalid",), "cannot be used"),
    ):
        with pytest.raises(InputError, match=says):
            check_hosts(hosts)


def test_ranks_elsewhere_are_told_what_torchrun_would_tell_them() -> None:
    at = Place.of(3, 4, ["me@a", "b"])
    own = torch_variables(at, "29500")
    assert own == {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "1",
        "MASTER_ADDR": "a",
        "MASTER_PORT": "29500",
    }
    *ssh, host, line = at.command(["python", "-c", "a b"], {"PATH": "/bin", "SECRET": "x", "NCCL_DEBUG": "INFO"}, own)
    assert (ssh[0], host) == ("ssh", "b")
    assert "RANK=3" in line
    assert "NCCL_DEBUG=INFO" in line
    assert line.endswith("python -c 'a b'")
    assert "SECRET" not in line


def test_what_ranks_are_told_and_say_survives() -> None:
    asked = Asked(3, 0.1, (1, 2))
    word = said(recipe(), asked, "ddp", "cpu")
    assert understood(word) == (recipe(), asked, "ddp", "cpu")
    assert heard(f"noise\n[0]<stdout>:{answer({'ranks': 2})}\r\nmore") == {"ranks": 2}


def run(place: Path, ranks: int, batch: int, rates: list[float], **changes: object) -> Path:
    """A run directory as far as a scaling reads it."""
    from disttrain.rundir.rundir import write_recipe

    place.mkdir()
    write_recipe(place, recipe(**{"global": batch}).model_copy(update=changes))
    lines = [{"event": "start", "step": 0, "ranks": ranks, "global_batch": batch}]
    lines += [{"step": i, "samples_per_second": rate} for i, rate in enumerate(rates)]
    (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (place / "environment.jsonl").write_text(
        json.dumps({"step": 0, "machine": {"ranks": ranks, "engine": "ddp"}}) + "\n"
    )
    return place


def test_runs_made_elsewhere_give_throughput(tmp_path: Path) -> None:
    one = run(tmp_path / "one", 1, 8, [1.0, 100.0, 104.0, 102.0])
    two = run(tmp_path / "two", 2, 8, [1.0, 150.0, 160.0, 155.0])
    wide = run(tmp_path / "wide", 2, 16, [1.0, 190.0, 191.0, 192.0])
    found = read_runs([two, one, wide], ("weak", "strong"))
    assert [(r.mode, r.ranks, r.samples_per_second.median, r.split) for r in found.runs] == [
        ("weak", 1, 102.0, None),
        ("weak", 2, 191.0, None),
        ("strong", 1, 102.0, None),
        ("strong", 2, 155.0, None),
    ]
    assert found.forecast == ()
    assert "no parts of a step" in found.words[-1]
    for runs, says in (
        ([one, run(tmp_path / "seed", 2, 8, [1.0] * 5, seed=7)], "seed: 1 -> 7|seed: 0 -> 7"),
        ([one, run(tmp_path / "short", 2, 8, [1.0, 2.0])], "1 lines say how fast"),
        ([one, run(tmp_path / "odd", 4, 24, [1.0] * 5)], "neither the global batch"),
        ([one, run(tmp_path / "again", 1, 8, [1.0] * 5)], "both have 1 ranks"),
    ):
        with pytest.raises(InputError, match=says):
            read_runs(runs, ("weak", "strong"))
