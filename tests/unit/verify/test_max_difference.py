"""What counts as a difference between two models."""

from __future__ import annotations

import torch

from disttrain.verify.verify import max_difference


def test_each_tensor_is_held_against_its_own_size() -> None:
    reference = {"large": torch.full((3,), 10.0), "small": torch.full((3,), 0.5), "count": torch.tensor(3)}
    found = {**reference, "small": torch.tensor([0.5, 0.5, 0.6])}
    assert max_difference(reference, reference) == (0.0, "")
    difference, where = max_difference(found, reference)
    assert where == "small"
    assert abs(difference - 0.2) < 1e-6
    assert max_difference({**found, "small": torch.tensor([0.5, float("nan"), 0.5])}, reference)[0] == float("inf")


def test_a_tensor_of_nothing_but_rounding_is_no_difference() -> None:
    """The key bias of attention: its gradient is 0 but for rounding."""
    reference = {"weight": torch.ones(3, dtype=torch.float64), "bias": torch.full((3,), 2e-18, dtype=torch.float64)}
    found = {**reference, "bias": torch.full((3,), -3e-18, dtype=torch.float64)}
    assert max_difference(found, reference)[0] < 1e-15
