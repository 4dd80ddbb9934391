"""Image files to tensors: by torchvision where it is installed, else by Pillow. One of the two for a whole
process."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from disttrain.data.files import file_size, reading
from disttrain.errors import DataError, InputError

SUFFIXES = (".gif", ".jpeg", ".jpg", ".png", ".webp")
"""The endings, in lower case, of the files that count as images."""


def decode(path: Path) -> Tensor:
    """An image file as (3, height, width) uint8 RGB; grey is repeated, transparency dropped.

    Raises:
        DataError: the file cannot be read, is damaged, or is no image; the message names it.
        InputError: neither torchvision nor Pillow is installed.
    """
    decoder = _decoder()
    size = file_size(path)
    try:
        with reading(path):
            encoded = path.read_bytes()
        return decoder(encoded)
    except DataError:
        raise
    # The libraries raise anything from SyntaxError to struct.error on damaged files.
    except Exception as error:
        raise DataError(
            f"{path}: cannot be decoded as an image ({type(error).__name__}: {error}); "
            f"the file of {size} bytes is damaged or no image"
        ) from error


@lru_cache(maxsize=1)
def _decoder() -> Callable[[bytes], Tensor]:
    if find_spec("torchvision") is not None:
        return _by_torchvision
    if find_spec("PIL") is not None:
        return _by_pillow
    raise InputError("image files need Pillow or torchvision: pip install 'disttrain[images]'")


def _by_torchvision(encoded: bytes) -> Tensor:
    from torchvision.io import ImageReadMode, decode_image

    image: Tensor = decode_image(torch.frombuffer(bytearray(encoded), dtype=torch.uint8), mode=ImageReadMode.RGB)
    # An animated image has one dimension more; its first frame counts, as with Pillow.
    return image if image.dim() == 3 else image[0]


def _by_pillow(encoded: bytes) -> Tensor:
    import io

    from PIL import Image

    with warnings.catch_warnings():
        # Pillow only warns of a picture that claims an absurd size and would fill the memory.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(encoded), formats=("GIF", "JPEG", "PNG", "WEBP")) as image:
            if image.mode.startswith(("I", "F")):
                # convert() would cut 16-bit values off at 255 without a word.
                raise ValueError(f"pixels of type {image.mode!r}, expected 8 bits a channel")
            pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
