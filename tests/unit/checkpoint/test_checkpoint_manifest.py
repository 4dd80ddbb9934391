"""Attacks on the manifest, and manifests of other versions: one error that names the file and what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkpoint_cases import make_checkpoint, read_manifest_json, refuse, write_manifest_json

from disttrain.checkpoint import load_checkpoint, load_latest, save_checkpoint
from disttrain.errors import CheckpointError, NoCheckpointError


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path, make_checkpoint(7), keep=3)


def _rename_entry(old: str, new: str) -> Any:
    def change(manifest: dict[str, Any]) -> None:
        manifest["files"][new] = manifest["files"].pop(old)

    return change


def _set(*path: str, value: Any) -> Any:
    def change(manifest: dict[str, Any]) -> None:
        inner = manifest
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value

    return change


def _drop(*path: str) -> Any:
    def change(manifest: dict[str, Any]) -> None:
        inner = manifest
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]

    return change


ADVICE = (
    "which disttrain 0.1 wrote; .*version 2: go on with the disttrain that wrote it, or take its weights from model"
)
MANIFESTS: dict[str, tuple[Any, str]] = {
    "version 0": (_set("version", value=0), "version 0, which another disttrain wrote; this one reads version 2"),
    "version 99": (_set("version", value=99), "version 99, which another disttrain wrote; this one reads version 2"),
    "version 1": (_set("version", value=1), f"version 1, {ADVICE}"),
    "version true": (_set("version", value=True), "version True"),
    "version 1.0": (_set("version", value=1.0), "version 1.0"),
    "version huge": (_set("version", value=10**4000), "version 1000"),
    "no version": (_drop("version"), "version None"),
    "another format": (_set("format", value="x"), "not the manifest"),
    "extra key": (_set("more", value=1), "no more"),
    "step negative": (_set("step", value=-7), "step -7"),
    "step 2**63": (_set("step", value=2**63), "not a number of updates"),
    "step true": (_set("step", value=True), "not a number of updates"),
    "step text": (_set("step", value="7"), "not a number of updates"),
    "step other": (_set("step", value=8), "is of step 8, not of step 7"),
    "files a list": (_set("files", value=[]), "files is not an object"),
    "files empty": (_set("files", value={}), "is missing in the list"),
    "parent directory": (_rename_entry("model.safetensors", "../model.safetensors"), "unexpected"),
    "absolute": (_rename_entry("model.safetensors", "/etc/passwd"), "unexpected"),
    "manifest in itself": (_rename_entry("state.json", "MANIFEST.json"), "unexpected"),
    "another case": (_rename_entry("state.json", "State.json"), "unexpected"),
    "a file of version 1": (_rename_entry("state.safetensors", "optimizer.safetensors"), "unexpected"),
    "one too few": (_drop("files", "state.safetensors"), "'state.safetensors' is missing"),
    "one too many": (_set("files", "rng-0.json", value={"size": 3, "sha256": "0" * 64}), "'rng-0.json' is unexpected"),
    "size negative": (_set("files", "state.json", "size", value=-1), "state.json needs a size"),
    "size 2**63": (_set("files", "state.json", "size", value=2**63), "state.json needs a size"),
    "size text": (_set("files", "state.json", "size", value="3"), "state.json needs a size"),
    "size float": (_set("files", "state.json", "size", value=3.0), "state.json needs a size"),
    "hash short": (_set("files", "state.json", "sha256", value="0" * 63), "sha256"),
    "hash upper case": (_set("files", "state.json", "sha256", value="A" * 64), "sha256"),
    "hash newline": (_set("files", "state.json", "sha256", value="a" * 64 + "\n"), "sha256"),
    "hash wrong": (_set("files", "state.json", "sha256", value="a" * 64), "state.json: is damaged"),
    "no hash": (_drop("files", "state.json", "sha256"), "state.json needs a size"),
    "extra in entry": (_set("files", "state.json", "mode", value=1), "state.json needs a size"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_hostile_manifest(name: str, saved: Path) -> None:
    change, message = MANIFESTS[name]
    manifest = read_manifest_json(saved)
    change(manifest)
    write_manifest_json(saved, manifest)
    refuse(saved, message)


def test_a_checkpoint_of_version_1_is_refused_in_one_clear_line(saved: Path) -> None:
    """With the very files that disttrain 0.1 wrote."""
    (saved / "state.safetensors").rename(saved / "optimizer.safetensors")
    (saved / "rng-0.json").write_text("{}")
    manifest = read_manifest_json(saved)
    manifest["files"] |= dict.fromkeys(("optimizer.safetensors", "rng-0.json"), manifest["files"]["state.json"])
    del manifest["files"]["state.safetensors"]
    write_manifest_json(saved, manifest | {"version": 1})
    with pytest.raises(CheckpointError, match=ADVICE) as raised:
        load_checkpoint(saved)
    assert len(str(raised.value).splitlines()) == 1
    assert str(saved) in str(raised.value)
    with pytest.raises(NoCheckpointError, match=ADVICE) as nothing:
        load_latest(saved.parents[1])
    assert nothing.value.exit_code == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not valid JSON"),
        (b"[]", "not the manifest"),
        (b"\x80\x04N.", "not valid JSON"),
        (b'{"version": 1, "version": 1}', "twice"),
        (b"[" * 1_000_000, "not valid JSON"),
        (b'{"format": NaN}', "not valid JSON"),
        (bytes(70 * 2**20), "at most"),
    ],
)
def test_manifest_that_is_none(data: bytes, message: str, saved: Path) -> None:
    (saved / "MANIFEST.json").write_bytes(data)
    refuse(saved, f"MANIFEST.json: .*{message}")
