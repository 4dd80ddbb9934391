"""Attacks: the manifest fits, but the content means harm. Nothing runs, nothing grows, the error names the file."""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_cases import make_checkpoint, read_manifest_json, reseal, same_checkpoint, write_manifest_json

from disttrain.checkpoint import load_checkpoint, save_checkpoint, verify_checkpoint
from disttrain.errors import CheckpointError


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path, make_checkpoint(7), keep=3)


@contextmanager
def little_memory(extra: int = 512 * 2**20) -> Iterator[None]:
    """Let the address space grow by no more than ``extra`` bytes."""
    with open("/proc/self/statm") as statm:
        now = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + extra, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def refuse(saved: Path, message: str) -> None:
    with little_memory(), pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved)


def header(entries: Any, data: bytes = b"") -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4), **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


EIGHT = bytes(8)
SAFETENSORS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "too few"),
    "seven bytes": (bytes(7), "too few"),
    "no header": (bytes(8), "not valid JSON"),
    "header of 2**63": (struct.pack("<Q", 2**63) + b"{}", "claims 9223372036854775808 bytes"),
    "header of 2**64-1": (b"\xff" * 8 + b"{}", "claims 18446744073709551615 bytes"),
    "header one too long": (struct.pack("<Q", 3) + b"{}", "claims 3 bytes"),
    "header is a list": (header([]), "not a JSON object"),
    "header is a number": (header(3), "not a JSON object"),
    "tensor is a list": (header({"w": []}), "dtype, shape and data_offsets"),
    "no dtype": (
        header({"w": {"shape": [1], "data_offsets": [0, 4]}}, EIGHT),
        "dtype, shape and data_offsets",
    ),
    "extra key": (header({"w": tensor(x=1)}, EIGHT[:4]), "dtype, shape and data_offsets"),
    "metadata": (header({"__metadata__": {"a": "b"}}), "dtype, shape and data_offsets"),
    "unknown dtype": (header({"w": tensor("F31")}, EIGHT[:4]), "unknown dtype 'F31'"),
    "dtype is a list": (header({"w": tensor(["F32"])}, EIGHT[:4]), "unknown dtype"),
    "negative size": (header({"w": tensor(shape=[-1])}, EIGHT[:4]), "impossible shape"),
    "two negative sizes": (header({"w": tensor(shape=[-1, -1])}, EIGHT[:4]), "impossible shape"),
    "size is true": (header({"w": tensor(shape=[True])}, EIGHT[:4]), "impossible shape"),
    "size is a float": (header({"w": tensor(shape=[1.0])}, EIGHT[:4]), "impossible shape"),
    "shape is a number": (header({"w": tensor(shape=1)}, EIGHT[:4]), "impossible shape"),
    "65 dimensions": (header({"w": tensor(shape=[1] * 65)}, EIGHT[:4]), "impossible shape"),
    "product overflows to 0": (header({"w": tensor(shape=[2**32, 2**32], offsets=[0, 0])}), "not what F32"),
    "product overflows to 4": (header({"w": tensor(shape=[2**62 + 1, 4])}, EIGHT[:4]), "not what F32"),
    "huge size": (header({"w": tensor(shape=[2**63])}, EIGHT[:4]), "impossible shape"),
    "huge tensor": (
        header({"w": tensor(shape=[2**40], offsets=[0, 2**42])}),
        "take 4398046511104 bytes, but 0",
    ),
    "size and bytes differ": (header({"w": tensor(shape=[2])}, EIGHT[:4]), "not what F32"),
    "offsets are reversed": (header({"w": tensor(offsets=[4, 0])}, EIGHT[:4]), "not what F32"),
    "negative offset": (header({"w": tensor(offsets=[-4, 0])}, EIGHT[:4]), "byte range"),
    "three offsets": (header({"w": tensor(offsets=[0, 4, 8])}, EIGHT[:4]), "byte range"),
    "outside the file": (header({"w": tensor()}, b"abc"), "take 4 bytes, but 3"),
    "hole at the start": (header({"w": tensor(offsets=[4, 8])}, EIGHT), "leave a gap at 4"),
    "hole in between": (header({"a": tensor(), "b": tensor(offsets=[8, 12])}, bytes(12)), "leave a gap at 8"),
    "overlap": (header({"a": tensor(), "b": tensor(offsets=[2, 6])}, bytes(6)), "overlap at 2"),
    "the same bytes twice": (header({"a": tensor(), "b": tensor()}, EIGHT[:4]), "overlap at 0"),
    "trailing bytes": (header({"w": tensor()}, EIGHT), "take 4 bytes, but 8"),
    "the same name twice": (
        header(b'{"w":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"w":{"dtype":"U8"}}', b"a"),
        "twice",
    ),
    "NaN": (header(b'{"w":NaN}'), "not valid JSON"),
    "huge number": (header(b'{"w":' + b"9" * 10_000 + b"}"), "not valid JSON"),
    "deep": (header(b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "not valid JSON"),
    "not UTF-8": (header(b'{"\xff":{}}'), "not valid JSON"),
    "a long bad name": (header({"w" * 100_000: 3}), "dtype, shape and data_offsets"),
    "160 000 entries": (
        header({f"{i:x}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(160_000)}),
        "claims",
    ),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_hostile_safetensors(name: str, saved: Path) -> None:
    data, message = SAFETENSORS[name]
    for file in ("model.safetensors", "optimizer.safetensors"):
        original = (saved / file).read_bytes()
        (saved / file).write_bytes(data)
        reseal(saved)
        verify_checkpoint(saved)
        refuse(saved, f"{file}: .*{message}")
        (saved / file).write_bytes(original)


@pytest.mark.parametrize("size", [10 * 2**30, 2**43])
def test_a_sparse_giant_costs_no_memory(size: int, saved: Path) -> None:
    """The manifest and the real size agree on 10 GB and more that take no room on the disk."""
    for file in ("model.safetensors", "state.json"):
        original, manifest = (saved / file).read_bytes(), read_manifest_json(saved)
        os.truncate(saved / file, size)
        changed = read_manifest_json(saved)
        changed["files"][file]["size"] = size
        write_manifest_json(saved, changed)
        refuse(saved, f"{file}: .*(do not fit into memory|allowed)")
        (saved / file).write_bytes(original)
        write_manifest_json(saved, manifest)


class Payload:
    """Runs a shell command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def _pickles(marker: Path) -> dict[str, bytes]:
    zipped, legacy, tarred, bomb = io.BytesIO(), io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"w": Payload(marker)}, zipped)
    torch.save({"w": Payload(marker)}, legacy, _use_new_zipfile_serialization=False)
    plain = pickle.dumps(Payload(marker))
    with tarfile.open(fileobj=tarred, mode="w") as archive:
        info = tarfile.TarInfo("../pickle")
        info.size = len(plain)
        archive.addfile(info, io.BytesIO(plain))
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive_zip:
        archive_zip.writestr("archive/data.pkl", plain)
        archive_zip.writestr("archive/data/0", bytes(50 * 2**20))
    return {
        "zip": zipped.getvalue(),
        "legacy": legacy.getvalue(),
        "tar": tarred.getvalue(),
        "bomb": bomb.getvalue(),
        "plain": plain,
    }


@pytest.mark.parametrize("kind", ["zip", "legacy", "tar", "bomb", "plain"])
@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json", "rng-1.json"])
def test_no_pickle_is_ever_read(kind: str, file: str, saved: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (saved / file).write_bytes(_pickles(marker)[kind])
    reseal(saved)
    refuse(saved, file)
    assert not marker.exists()


def test_the_payload_would_have_worked(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    pickle.loads(_pickles(marker)["plain"])
    assert marker.exists()


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


MANIFESTS: dict[str, tuple[Any, str]] = {
    "version 0": (_set("version", value=0), "version 0; this disttrain reads version 1"),
    "version 99": (_set("version", value=99), "version 99; this disttrain reads version 1"),
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
    "manifest in itself": (_rename_entry("rng-1.json", "MANIFEST.json"), "unexpected"),
    "rank skipped": (_rename_entry("rng-1.json", "rng-2.json"), "rng-1.json' is missing"),
    "rank padded": (_rename_entry("rng-1.json", "rng-01.json"), "unexpected"),
    "file of no rank": (_drop("files", "rng-1.json"), "rng-1.json: does not belong"),
    "rank too many": (
        _set("files", "rng-2.json", value={"size": 3, "sha256": "0" * 64}),
        "rng-2.json: is missing",
    ),
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


@pytest.mark.parametrize(
    ("file", "value", "message"),
    [
        ("state.json", {"step": 8, "optimizer": {}, "state": {}}, "is of step 8; the manifest says 7"),
        ("state.json", {"step": True, "optimizer": {}, "state": {}}, "is of step True"),
        ("state.json", {"step": 7, "optimizer": {}}, "not the JSON object"),
        ("state.json", {"step": 7, "optimizer": {}, "state": {}, "x": 1}, "not the JSON object"),
        ("state.json", {"step": 7, "optimizer": {}, "state": []}, "not the JSON object"),
        ("state.json", {"step": 7, "optimizer": {}, "state": {}}, "nothing refers to"),
        ("state.json", {"step": 7, "optimizer": {"$tensor": "x"}, "state": {}}, "not something"),
        ("state.json", {"step": 7, "optimizer": {}, "state": {"$tensor": "state.0.m"}}, "not something"),
        ("rng-0.json", [], "not the JSON object"),
        ("rng-0.json", {"$tuple": [1]}, "not the JSON object"),
    ],
)
def test_hostile_json(file: str, value: Any, message: str, saved: Path) -> None:
    (saved / file).write_text(json.dumps(value))
    reseal(saved)
    refuse(saved, f"{file}: .*{message}")


def test_any_flipped_bit_under_a_fitting_manifest_gives_a_checkpoint_or_one_error(saved: Path) -> None:
    """Whoever can fit the manifest can change values, but cannot provoke anything but a CheckpointError."""
    messages, loaded = [], 0
    for file in ("model.safetensors", "optimizer.safetensors", "state.json", "rng-0.json"):
        original = (saved / file).read_bytes()
        for position, byte in enumerate(original):
            for bit in range(8):
                (saved / file).write_bytes(original[:position] + bytes([byte ^ 1 << bit]) + original[position + 1 :])
                reseal(saved)
                try:
                    load_checkpoint(saved)
                    loaded += 1
                except CheckpointError as error:
                    messages.append(str(error))
        (saved / file).write_bytes(original)
    reseal(saved)
    assert same_checkpoint(load_checkpoint(saved), make_checkpoint(7))
    assert len(messages) > 1000
    assert all(str(saved) in message for message in messages)
    assert loaded > 100
