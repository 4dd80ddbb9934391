"""Signals in one dimension, made from a seed: ten shapes at random places, as in MNIST-1D (arXiv:2011.14439).

By Greydanus and Kobak. The shapes are not the paper's digits, and there are more samples; what is done to them is of the
paper's kind and strength.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from disttrain.data import ArrayDataset
from disttrain.data.dataset import Dataset
from disttrain.tasks.classification import Classification

Floats = NDArray[np.float64]
POINTS = 40
_PAPER = {"width": (12 / 72, 12 / 48), "scale": 0.4, "shear": 0.75, "smooth_noise": 0.25, "noise": 0.02}


class Signals(Classification):
    """Which of ten shapes hides in a signal of 40 points.

    Each signal has one shape, stretched to a sixth to a quarter of it, scaled by up to a fifth, and put anywhere; smooth noise
    around it, a random slope and a little noise over all. Shapes are four random sine waves each.
    """

    in_shape = (POINTS,)
    num_classes = 10
    default_model = ("mlp", {})

    def __init__(self, train: int = 20000, test: int = 10000, seed: int = 1) -> None:
        super().__init__()
        self.counts, self.seed = (train, test), seed

    def load(self) -> tuple[Dataset, Dataset]:
        shapes, *parts = (default_rng([self.seed, i]) for i in range(3))
        waves = shapes.normal(size=(self.num_classes, 4))
        train, test = (_made(waves, count, rng) for count, rng in zip(self.counts, parts, strict=True))
        return train, test


def _made(waves: Floats, count: int, rng: Generator) -> ArrayDataset:
    labels = rng.integers(len(waves), size=count)
    width = rng.uniform(*_PAPER["width"], size=(count, 1))
    begin = rng.uniform(size=(count, 1)) * (1 - width)
    place = np.linspace(0, 1, POINTS)
    inside = (place - begin) / width
    shape = np.einsum("nk,nkp->np", waves[labels], np.sin(np.pi * np.arange(1, 5)[:, None] * inside[:, None]))
    shape *= 1 + _PAPER["scale"] * rng.uniform(-0.5, 0.5, size=(count, 1))
    around = _PAPER["smooth_noise"] * _smooth(rng.normal(size=(count, POINTS)))
    signal = np.where((inside > 0) & (inside < 1), shape, around)
    signal += _PAPER["shear"] * rng.uniform(-0.5, 0.5, size=(count, 1)) * (place - 0.5)
    signal += _PAPER["noise"] * rng.normal(size=signal.shape)
    return ArrayDataset(torch.from_numpy(signal).float(), torch.from_numpy(labels))


def _smooth(noise: Floats, width: float = 1.2) -> Floats:
    """With a Gaussian window, in points; the standard deviation stays 1."""
    distance = np.subtract.outer(np.arange(POINTS), np.arange(POINTS))
    window = np.exp(-0.5 * (distance / width) ** 2)
    return noise @ (window / np.sqrt((window**2).sum(0)))
