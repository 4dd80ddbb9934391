"""Which checkpoint is the latest, which are kept, and that a damaged one never costs a good one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from checkpoint_cases import make_checkpoint, same_checkpoint

from disttrain.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    load_latest,
    prune,
    save_checkpoint,
)
from disttrain.checkpoint.format import hidden_name, parse_hidden_name, parse_step_name, step_name
from disttrain.errors import CheckpointError, NoCheckpointError


def save(run_dir: Path, *steps: int, keep: int = 100, protect: tuple[int, ...] = ()) -> list[Path]:
    return [save_checkpoint(run_dir, make_checkpoint(step), keep=keep, protect=protect) for step in steps]


def damage(path: Path) -> None:
    with open(path / "model.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")


def shorten(path: Path) -> None:
    os.truncate(path / "model.safetensors", 10)


def steps_in(run_dir: Path) -> list[int]:
    hidden = [path.name for path in (run_dir / "checkpoints").iterdir() if path.name.startswith(".")]
    assert hidden == []
    return sorted(list_checkpoints(run_dir))


def test_the_newest_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 1, 5, 10, 100, keep=2)
    assert steps_in(tmp_path) == [10, 100]
    assert load_latest(tmp_path)[1:] == (tmp_path / "checkpoints" / "step-00000100", [])


def test_protected_steps_are_kept_beyond_the_number(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3, 4, 5, keep=2, protect=(2, 77))
    assert steps_in(tmp_path) == [2, 4, 5]
    save(tmp_path, 6, keep=1, protect=(4,))
    assert steps_in(tmp_path) == [4, 6]


def test_prune_tells_what_it_deleted(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3)
    assert prune(tmp_path, keep=2) == [1]
    assert prune(tmp_path, keep=2) == []
    for keep in (0, -1):
        with pytest.raises(ValueError, match="at least one"):
            prune(tmp_path, keep=keep)
        with pytest.raises(ValueError, match="at least one"):
            save(tmp_path, 4, keep=keep)
    assert steps_in(tmp_path) == [2, 3]


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    save(tmp_path, 99_999_999, 100_000_000, 999_999_999_999, keep=2)
    assert steps_in(tmp_path) == [100_000_000, 999_999_999_999]
    assert load_latest(tmp_path).checkpoint.step == 999_999_999_999


@pytest.mark.parametrize("harm", [damage, shorten, shutil.rmtree])
def test_a_damaged_newest_falls_back_and_is_replaced_later(harm: object, tmp_path: Path) -> None:
    _, middle, newest = save(tmp_path, 1, 2, 3, keep=3)
    harm(newest)  # type: ignore[operator]
    newest.mkdir(exist_ok=True)
    loaded = load_latest(tmp_path)
    assert same_checkpoint(loaded.checkpoint, make_checkpoint(2))
    assert (loaded.path, [path for path, _ in loaded.refused]) == (middle, [newest])
    assert str(newest) in loaded.refused[0][1]
    save(tmp_path, 3, keep=3)
    assert load_latest(tmp_path).refused == []
    assert same_checkpoint(load_checkpoint(newest), make_checkpoint(3))


def test_a_damaged_one_does_not_take_the_place_of_a_good_one(tmp_path: Path) -> None:
    paths = save(tmp_path, 1, 2, 3, 4)
    shorten(paths[2])
    shorten(paths[3])
    assert prune(tmp_path, keep=2) == []
    assert prune(tmp_path, keep=1) == [1]
    assert steps_in(tmp_path) == [2, 3, 4]
    save(tmp_path, 5, keep=2)
    assert steps_in(tmp_path) == [2, 3, 4, 5]
    save(tmp_path, 6, keep=2)
    assert steps_in(tmp_path) == [5, 6]


def test_none_at_all_and_none_valid(tmp_path: Path) -> None:
    with pytest.raises(NoCheckpointError, match="there is no checkpoint"):
        load_latest(tmp_path)
    paths = save(tmp_path, 1, 2)
    damage(paths[0])
    shorten(paths[1])
    with pytest.raises(NoCheckpointError, match="none of the 2 checkpoints is valid") as raised:
        load_latest(tmp_path)
    lines = str(raised.value).splitlines()
    assert str(paths[1]) in lines[1]
    assert str(paths[0]) in lines[2]
    assert raised.value.exit_code == 3


def test_the_same_step_again_replaces(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    path = save_checkpoint(tmp_path, make_checkpoint(2, seed=9), keep=2)
    assert same_checkpoint(load_checkpoint(path), make_checkpoint(2, seed=9))
    assert steps_in(tmp_path) == [1, 2]


@pytest.mark.parametrize("kind", ["file", "symlink", "empty"])
def test_whatever_stands_in_the_place_is_replaced(kind: str, tmp_path: Path) -> None:
    save(tmp_path, 1)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    place = tmp_path / "checkpoints" / "step-00000002"
    if kind == "file":
        place.write_text("x")
    elif kind == "symlink":
        place.symlink_to(outside)
    else:
        place.mkdir()
    assert load_latest(tmp_path).checkpoint.step == 1
    save(tmp_path, 2)
    assert load_latest(tmp_path).checkpoint.step == 2
    assert steps_in(tmp_path) == [1, 2]
    assert (outside / "precious").exists()


def test_old_links_are_deleted_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    save(outside, 1)
    save(tmp_path, 2)
    (tmp_path / "checkpoints" / "step-00000001").symlink_to(outside / "checkpoints" / "step-00000001")
    save(tmp_path, 3, keep=2)
    assert steps_in(tmp_path) == [2, 3]
    assert load_latest(outside).checkpoint.step == 1


def test_a_replaced_one_counts_until_the_new_one_is_there(tmp_path: Path) -> None:
    (path,) = save(tmp_path, 2)
    aside = path.rename(path.with_name(hidden_name("old", 2)))
    assert load_latest(tmp_path).path == aside
    assert prune(tmp_path, keep=1) == []
    assert aside.exists()
    save(tmp_path, 3)
    assert list(list_checkpoints(tmp_path)) == [3, 2]
    save(tmp_path, 2)
    assert not aside.exists()
    assert steps_in(tmp_path) == [2, 3]


def test_litter_of_killed_saves_goes_and_other_files_stay(tmp_path: Path) -> None:
    save(tmp_path, 1)
    directory = tmp_path / "checkpoints"
    litter = [directory / hidden_name(kind, step) for kind, step in (("tmp", 2), ("del", 1), ("old", 1))]
    for path in litter:
        path.mkdir()
        (path / "model.safetensors").write_text("x")
    foreign = [directory / name for name in (".tmp-notes", "step-1", "step-000000001", "notes.txt", ".snapshot")]
    for path in foreign:
        path.write_text("x")
    assert load_latest(tmp_path).refused == []
    save(tmp_path, 2)
    assert not any(path.exists() for path in litter)
    assert all(path.exists() for path in foreign)
    assert list(list_checkpoints(tmp_path)) == [2, 1]


def test_what_cannot_be_deleted_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    save(tmp_path, 1)
    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(CheckpointError, match=r"cannot delete old checkpoints: .*Permission denied"):
        save(tmp_path, 2, keep=1)
    assert load_latest(tmp_path).checkpoint.step == 2


def test_a_directory_that_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("x")
    with pytest.raises(CheckpointError, match="cannot be listed"):
        load_latest(tmp_path)


def test_names() -> None:
    assert step_name(1234) == "step-00001234"
    for step in (0, 1, 99_999_999, 100_000_000, 2**63 - 1):
        assert parse_step_name(step_name(step)) == step
        assert parse_hidden_name(hidden_name("old", step)) == ("old", step)
    for name in (
        "step-1",
        "step-000000001",
        "step-0000000a",
        "step-00000001 ",
        "step--0000001",
        "step-00000001\n",
    ):
        assert parse_step_name(name) is None
    for name in (f"step-{2**63}", "step-" + "\u0660" * 8, ".step-00000001", ""):
        assert parse_step_name(name) is None
    for name in (".tmp-step-00000001", f".new-step-00000001-{'0' * 32}", f".tmp-step-1-{'0' * 32}"):
        assert parse_hidden_name(name) is None
