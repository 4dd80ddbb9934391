"""Every number of a plan, by hand and against brute force."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disttrain.plan.lengths import EpochLength


@given(st.integers(1, 400), st.integers(1, 120), st.integers(0, 60))
def test_samples_after_updates_equals_counting(samples: int, batch: int, updates: int) -> None:
    epoch = EpochLength(samples, batch)
    seen = offset = 0
    for _ in range(updates):
        taken = min(batch, samples - offset)
        seen += taken
        offset = (offset + taken) % samples
    assert epoch.samples_after(updates) == seen
    assert epoch.updates_after(seen) == updates


@pytest.mark.parametrize(("length", "samples"), [({"epochs": 1.5}, 1500), ({"samples": 7}, 7), ({"updates": 12}, 1512)])
def test_lengths_in_samples(length: dict[str, float], samples: int) -> None:
    """An epoch is seven batches of 128 and one of 104; the last four of twelve updates are of the second epoch."""

    class Length:
        epochs = length.get("epochs")
        samples = length.get("samples")
        updates = length.get("updates")

    assert EpochLength(1000, 128).in_samples(Length()) == samples
