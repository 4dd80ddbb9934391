"""Transforms of images as people write them."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor


def augment(image: Any) -> Tensor:
    """Random in every way that libraries are, with all three generators."""
    image = image.rotate(random.uniform(-10, 10)).resize((8, 8))
    noise = torch.randn(3, 8, 8) + float(np.random.rand())
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 + noise


def centre(image: Any) -> Tensor:
    """Not random."""
    return torch.from_numpy(np.array(image.resize((8, 8)))).permute(2, 0, 1) / 255


def whole(image: Any) -> Tensor:
    """Of another size than the model's."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
