"""Tensors in the safetensors format: written in one pass, and read only after the header has been checked.

The file is 8 bytes of header length (little-endian), a JSON header that gives each tensor's dtype, shape and
byte range, and the bytes. Reference: https://huggingface.co/docs/safetensors, "Format".

Writing is ours because the library's ``save_file`` brings every tensor to the CPU at once, refuses tensors that share
memory, and creates the file with mode 0600 whatever the umask. Reading is the library's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from disttrain.checkpoint.strict_json import parse_json
from disttrain.errors import CheckpointError

MAX_HEADER = 8 * 2**20
"""Largest header in bytes, enough for about 80 000 tensors. The library's own limit is 100 MB."""

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ITEM_SIZES = {name: dtype.itemsize for dtype, name in _DTYPES.items()}


def encode_tensors(tensors: Mapping[str, Tensor], what: str) -> list[bytes | Tensor]:
    """The pieces of a safetensors file, in order: the header, then each tensor as it is.

    Equal tensors give equal bytes, in whatever order the mapping holds them. Tensors may be on any device,
    share memory, and have gaps in memory; each is stored whole. `as_bytes` turns a piece into bytes when it
    is its turn.

    Raises:
        CheckpointError: a name or a tensor that the format cannot hold; the message names ``what`` and the
            tensor.
    """
    for name, tensor in tensors.items():
        if not isinstance(name, str) or name == "__metadata__":
            raise CheckpointError(f"{what}: a tensor cannot be stored under the name {name!r}")
        if tensor.dtype not in _DTYPES or tensor.layout is not torch.strided or tensor.is_meta:
            raise CheckpointError(
                f"{what}: {name} is a {tensor.dtype} tensor ({tensor.layout}, on {tensor.device}), which "
                f"cannot be stored; use a dense tensor of one of {', '.join(str(d) for d in _DTYPES)}"
            )
    # Wide elements first, so that every tensor starts at a multiple of its element size.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    header, end = {}, 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.numel() * tensor.dtype.itemsize
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise CheckpointError(f"{what}: {len(tensors)} tensors need a header of {len(text)} bytes, over {MAX_HEADER}")
    return [len(text).to_bytes(8, "little") + text, *(tensor for _, tensor in ordered)]


def as_bytes(piece: bytes | Tensor) -> bytes | memoryview:
    """The bytes of one piece; a tensor on the CPU without gaps is not copied."""
    if isinstance(piece, bytes):
        return piece
    dense = piece.detach().resolve_conj().resolve_neg().cpu().contiguous()
    return dense.reshape(-1).view(torch.uint8).numpy().data


def size_of(piece: bytes | Tensor) -> int:
    """Number of bytes that `as_bytes` gives."""
    return len(piece) if isinstance(piece, bytes) else piece.numel() * piece.dtype.itemsize


def decode_tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file whose content is ``data``, on the CPU, each with memory of its own.

    Raises:
        CheckpointError: `check_header` or the library refuses it.
    """
    check_header(data, path)
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not a valid safetensors file: {error}") from error


def check_header(data: bytes, path: Path) -> None:
    """Check that the header describes exactly the bytes that follow it. Allocates nothing the header asks
    for.

    Raises:
        CheckpointError: the header is too long, not strict JSON, or names an unknown dtype; a size is not the
            product of the shape; or the byte ranges overlap, leave a gap, or do not end where the file ends.
    """
    if len(data) < 8:
        raise CheckpointError(f"{path}: {len(data)} bytes are too few for a safetensors file")
    length = int.from_bytes(data[:8], "little")
    if length > min(MAX_HEADER, len(data) - 8):
        raise CheckpointError(
            f"{path}: the header claims {length} bytes; the file has {len(data) - 8} after its length, "
            f"and at most {MAX_HEADER} are allowed"
        )
    header = parse_json(data[8 : 8 + length], path)
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: the header is not a JSON object")
    position = 0
    for begin, end, name in sorted((*_byte_range(name, entry, path), name) for name, entry in header.items()):
        if begin != position:
            problem = "overlap" if begin < position else "leave a gap"
            raise CheckpointError(f"{path}: the bytes of tensor {name[:100]!r} {problem} at {begin}")
        position = end
    if position != len(data) - 8 - length:
        raise CheckpointError(
            f"{path}: the tensors take {position} bytes, but {len(data) - 8 - length} follow the header"
        )


def _byte_range(name: str, entry: Any, path: Path) -> tuple[int, int]:
    """Where the tensor begins and ends, counted from the end of the header."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{path}: tensor {name[:100]!r} must have dtype, shape and data_offsets, and no more")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_SIZES:
        raise CheckpointError(f"{path}: tensor {name[:100]!r} has the unknown dtype {str(dtype)[:40]!r}")
    if not (_are_sizes(shape) and len(shape) <= 64 and _are_sizes(offsets) and len(offsets) == 2):
        raise CheckpointError(f"{path}: tensor {name[:100]!r} has an impossible shape or byte range")
    begin, end = offsets
    if end - begin != math.prod(shape) * _ITEM_SIZES[dtype]:
        raise CheckpointError(
            f"{path}: tensor {name[:100]!r} has {end - begin} bytes, which is not what {dtype} {shape} takes"
        )
    return begin, end


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)
