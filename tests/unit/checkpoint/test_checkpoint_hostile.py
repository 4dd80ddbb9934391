"""Attacks: the manifest fits, but the content means harm. Nothing runs, nothing grows, the error names the file."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_cases import make_checkpoint, read_manifest_json, refuse, reseal, same_checkpoint, write_manifest_json

from disttrain.checkpoint import load_checkpoint, save_checkpoint, verify_checkpoint
from disttrain.errors import CheckpointError


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path, make_checkpoint(7), keep=3)


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
    for file in ("model.safetensors", "state.safetensors"):
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
@pytest.mark.parametrize("file", ["model.safetensors", "state.safetensors", "state.json"])
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


BOTH = [{"$tensor": "optimizer.state.0.m"}, {"$tensor": "ranks.1.left"}]  # all the tensors that the file holds


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"step": 8, "state": {}}, "is of step 8; the manifest says 7"),
        ({"step": True, "state": {}}, "is of step True"),
        ({"step": 7}, "not the JSON object"),
        ({"step": 7, "state": {}, "x": 1}, "not the JSON object"),
        ([], "not the JSON object"),
        ({"$tuple": [1]}, "not the JSON object"),
        ({"step": 7, "state": []}, "nothing refers to"),
        ({"step": 7, "state": BOTH}, "not the JSON object"),
        ({"step": 7, "state": {"$tuple": BOTH}}, "not the JSON object"),
        ({"step": 7, "state": {}}, "nothing refers to"),
        ({"step": 7, "state": {"a": {"$tensor": "x"}}}, "not something"),
        ({"step": 7, "state": {"a": BOTH, "b": BOTH[0]}}, "not something"),
    ],
)
def test_hostile_json(value: Any, message: str, saved: Path) -> None:
    (saved / "state.json").write_text(json.dumps(value))
    reseal(saved)
    refuse(saved, f"state.json: .*{message}")


def test_any_flipped_bit_under_a_fitting_manifest_gives_a_checkpoint_or_one_error(saved: Path) -> None:
    """Whoever can fit the manifest can change values, but cannot provoke anything but a CheckpointError."""
    messages, loaded = [], 0
    for file in ("model.safetensors", "state.safetensors", "state.json"):
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
