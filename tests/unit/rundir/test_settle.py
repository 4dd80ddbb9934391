"""Where a run lives, and whether a start continues or begins: every state a directory can be found in."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from disttrain.config import load_recipe
from disttrain.engine.environment import Job, read_job
from disttrain.errors import DisttrainError, InputError, NoCheckpointError
from disttrain.rundir import rundir
from disttrain.rundir.rundir import check_place, note_job, write_recipe
from disttrain.rundir.settle import Request, settle

RECIPE = load_recipe(None, ["checkpoint.every_steps=10"])
JOB = Job("1", "key-1", restarts=True)


def ask(path: Path | None, resume: Any = "no", *, recipe: Any = RECIPE, job: Job | None = None) -> Request:
    return Request(recipe, [], resume, path, job)


def attempt(path: Path, *steps: int, checkpoint: bool = False) -> Path:
    """What a killed attempt leaves behind."""
    path.mkdir()
    write_recipe(path, RECIPE)
    lines = [{"event": "start", "step": 0}, *({"step": step, "loss": 1.0} for step in steps)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 99')
    if checkpoint:
        (path / "checkpoints/step-00000010").mkdir(parents=True)
    return path


def files(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("resume", ["no", "auto"])
def test_nothing_there_begins_and_writes_nothing(resume: str, tmp_path: Path) -> None:
    found = settle(ask(tmp_path / "run", resume), 2)
    assert (found.goes_on, found.lost) == (False, 0)
    assert list(tmp_path.iterdir()) == []


def test_nothing_there_is_an_error_for_a_bare_resume(tmp_path: Path) -> None:
    with pytest.raises(NoCheckpointError, match="holds no run"):
        settle(ask(tmp_path / "run", "must"), 2)


@pytest.mark.parametrize("steps", [(), (1, 2, 3)])
def test_before_the_first_checkpoint_auto_begins_anew(steps: tuple[int, ...], tmp_path: Path) -> None:
    found = settle(ask(attempt(tmp_path / "run", *steps), "auto"), 2)
    assert (found.goes_on, found.lost) == (False, max(steps, default=0))


def test_a_run_without_an_update_blocks_nothing(tmp_path: Path) -> None:
    assert not settle(ask(attempt(tmp_path / "run")), 2).goes_on


@pytest.mark.parametrize("checkpoint", [True, False])
def test_a_run_with_progress_is_not_begun_again_unasked(checkpoint: bool, tmp_path: Path) -> None:
    path = attempt(tmp_path / "run", 1, 2, checkpoint=checkpoint)
    before = files(path)
    with pytest.raises(InputError, match="already holds a run: pass --resume"):
        settle(ask(path), 2)
    assert files(path) == before


def test_auto_continues_where_there_is_a_checkpoint_even_a_damaged_one(tmp_path: Path) -> None:
    path = attempt(tmp_path / "run", 1, 12, checkpoint=True)
    assert settle(ask(path, "auto"), 2).goes_on


def test_auto_does_not_begin_anew_where_checkpoints_have_gone(tmp_path: Path) -> None:
    with pytest.raises(NoCheckpointError, match="had made 12 updates and a checkpoint every 10"):
        settle(ask(attempt(tmp_path / "run", 1, 12), "auto"), 2)


def test_another_recipe_is_refused_under_auto_too(tmp_path: Path) -> None:
    path = attempt(tmp_path / "run", 12, checkpoint=True)
    with pytest.raises(InputError, match=r"optimizer.lr: 0.2 -> 0.5"):
        settle(ask(path, "auto", recipe=load_recipe(None, ["optimizer.lr=0.5"])), 2)


def test_auto_without_a_recipe_takes_that_of_the_run(tmp_path: Path) -> None:
    path = attempt(tmp_path / "run", 12, checkpoint=True)
    write_recipe(path, load_recipe(None, ["seed=7"]))
    assert settle(Request(None, ["log.every_steps=3"], "auto", path), 2).recipe.seed == 7
    assert settle(Request(None, ["seed=9"], "auto", tmp_path / "new"), 2).recipe.seed == 9


def test_directories_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(settle(ask(None, "auto"), 1).path) == "runs/digits"
    assert settle(ask(None), 1).path.match("runs/digits-????????-??????")
    keyed = settle(ask(None, job=JOB), 1).path
    assert (
        keyed == settle(ask(None, job=JOB), 1).path != settle(ask(None, job=Job("2", "key-2", restarts=True)), 1).path
    )
    assert settle(ask(None, job=Job("1", "key-1", restarts=False)), 1).path.match("runs/digits-????????-??????")
    for number, name in enumerate(("digits", keyed.name, "digits-20260101-000000")):
        (tmp_path / "runs").mkdir(exist_ok=True)
        path = attempt(tmp_path / "runs" / name, 12, checkpoint=True)
        os.utime(path / "recipe.yaml", (number, number))
        assert settle(ask(None, "must"), 1).path == Path("runs") / name


def test_a_restarted_job_continues_its_own_run_and_no_other(tmp_path: Path) -> None:
    path = attempt(tmp_path / "run", 12, checkpoint=True)
    note_job(path, JOB)
    assert settle(ask(path, job=JOB), 2).goes_on
    with pytest.raises(InputError, match="already holds a run"):
        settle(ask(path, job=Job("2", "key-2", restarts=True)), 2)


def test_the_same_id_is_not_the_same_job(tmp_path: Path) -> None:
    """People give one rendezvous id to every job: the directory is the same, and then it is refused."""
    first, second = Job("train host 1", "train", restarts=True), Job("train host 2", "train", restarts=True)
    assert first.short == second.short
    path = attempt(tmp_path / "run", 12, checkpoint=True)
    note_job(path, first)
    with pytest.raises(InputError, match="already holds a run"):
        settle(ask(path, job=second), 2)


def test_a_job_is_known_by_its_id_and_its_process() -> None:
    assert read_job({}) is None
    for run_id in ("none", "train"):
        env = {"TORCHELASTIC_RUN_ID": run_id, "TORCHELASTIC_MAX_RESTARTS": "2"}
        found = read_job(env)
        assert found is not None
        assert found == read_job(env)
        assert found.restarts
        assert found.name.startswith(f"{run_id} ")
        assert str(os.getppid()) in found.name
        assert found.key == (found.name if run_id == "none" else run_id)
    assert read_job({"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_MAX_RESTARTS": "0"}).restarts is False  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["recipe.yaml", "metrics.jsonl", ".lock", "log", ".job"])
def test_links_are_not_followed(name: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="is a symbolic link"):
        check_place(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "said"), [("a" * 300, "too long"), ("file/run", "is not a directory"), ("x\0y", "null byte")]
)
def test_impossible_directories(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=said):
        check_place(tmp_path / name)


def test_the_recipe_is_written_only_when_it_changes(tmp_path: Path) -> None:
    write_recipe(tmp_path, RECIPE)
    before = (tmp_path / "recipe.yaml").stat()
    write_recipe(tmp_path, RECIPE)
    assert (tmp_path / "recipe.yaml").stat() == before
    write_recipe(tmp_path, load_recipe(None, ["seed=5"]))
    assert load_recipe(tmp_path / "recipe.yaml").seed == 5


def test_a_full_disk_leaves_the_old_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_recipe(tmp_path, RECIPE)
    before = files(tmp_path)

    def full(path: Path, pieces: list[bytes]) -> None:
        path.write_bytes(pieces[0][:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(rundir, "write_file", full)
    with pytest.raises(DisttrainError, match="No space left"):
        write_recipe(tmp_path, load_recipe(None, ["seed=5"]))
    assert files(tmp_path) == before
