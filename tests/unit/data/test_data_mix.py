"""Mixup and cutmix: draws that belong to the sample, and images and losses that follow them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from disttrain.config import load_recipe
from disttrain.data.arrays import ArrayDataset
from disttrain.data.mix import MixedInMemory, MixedPerSample, MixSettings, mix, symmetric_beta
from disttrain.errors import InputError
from disttrain.tasks.make import make_task
from disttrain.tasks.mnist import Mnist


def dataset(size: int = 50) -> ArrayDataset:
    generator = torch.Generator().manual_seed(0)
    return ArrayDataset(
        torch.randint(0, 256, (size, 1, 9, 7), generator=generator, dtype=torch.uint8), torch.arange(size) % 10
    )


class OneByOne:
    """The same set, one sample at a time."""

    def __init__(self) -> None:
        self.inner = dataset()

    def __len__(self) -> int:
        return len(self.inner)

    def sample(self, id: int, epoch: int) -> tuple[torch.Tensor, int]:
        image, label = self.inner[id]
        return image, int(label)


@pytest.mark.parametrize("settings", [MixSettings(0.4), MixSettings(cutmix=1.0), MixSettings(0.4, 1.0)])
def test_a_sample_is_mixed_alike_whatever_batch_it_is_in(settings: MixSettings) -> None:
    mixed, single = MixedInMemory(dataset(), settings, seed=3), MixedPerSample(OneByOne(), settings, seed=3)
    ids = np.array([7, 3, 41, 0, 7])
    together = mixed.gather(ids, 2)
    for i, id in enumerate(ids):
        alone = mixed.gather(np.array([id]), 2)
        other = single.sample(int(id), 2)
        for a, b, c in zip(together, alone, other, strict=True):
            torch.testing.assert_close(a[i], b[0], equal_nan=True)
            torch.testing.assert_close(torch.as_tensor(c, dtype=a.dtype), a[i], equal_nan=True)
    assert len(mixed) == 50
    assert not torch.equal(together[4], mixed.gather(ids, 3)[4])


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 8.0])
def test_shares_are_beta_distributed(alpha: float) -> None:
    """Kolmogorov and Smirnov's distance to numpy's own draws: 2.3 standard deviations of it at most."""
    n = 20000
    mine, theirs = symmetric_beta(alpha, 1, 0, np.arange(n)), np.random.default_rng(0).beta(alpha, alpha, n)
    grid = np.sort(np.concatenate([mine, theirs]))
    distance = np.abs(
        np.searchsorted(np.sort(mine), grid, "right") - np.searchsorted(np.sort(theirs), grid, "right")
    ).max()
    assert distance / n < 2.3 * np.sqrt(2 / n)
    assert mine.mean() == pytest.approx(0.5, abs=0.01)
    assert mine.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)


@pytest.mark.parametrize("alpha", [0.2, 0.6, 2.5])
def test_a_share_is_the_same_to_the_bit_whatever_is_drawn_with_it(alpha: float) -> None:
    """A resumed run reads ahead from another position, and draws other samples together."""
    ids = np.arange(200)
    alone = np.concatenate([symmetric_beta(alpha, 7, 2, ids[i : i + 1]) for i in ids])
    np.testing.assert_array_equal(symmetric_beta(alpha, 7, 2, ids), alone)


def test_the_quantile_function_is_exact() -> None:
    """Beta(1, 1) is uniform, and Beta(1/2, 1/2) has the quantile sin^2(pi u / 2)."""
    from disttrain.data.randomness import uniform

    ids = np.arange(1000)
    for alpha, quantile in ((1.0, lambda u: u), (0.5, lambda u: np.sin(np.pi * u / 2) ** 2)):
        u = uniform(5, 1, ids, stream=f"beta {alpha}")[:, 0]
        np.testing.assert_allclose(symmetric_beta(alpha, 5, 1, ids), quantile(u), rtol=1e-9, atol=1e-15)


def test_partners_come_from_the_whole_set_evenly() -> None:
    mixed = MixedInMemory(dataset(50), MixSettings(1.0), seed=1)
    partners, _, _ = mixed.draws(np.arange(50000), 0)
    counts = np.bincount(partners, minlength=50)
    assert abs(((counts - 1000.0) ** 2 / 1000.0).sum() - 49) < 5 * np.sqrt(2 * 49)


def test_each_kind_for_half_of_the_samples() -> None:
    mixed = MixedInMemory(dataset(), MixSettings(0.4, 1.0), seed=1)
    _, _, centres = mixed.draws(np.arange(10000), 0)
    assert float(centres[:, 0].isnan().double().mean()) == pytest.approx(0.5, abs=0.03)


def test_mixing_by_hand() -> None:
    images, others = torch.zeros(3, 2, 8, 10), torch.ones(3, 2, 8, 10)
    share = torch.tensor([0.75, 0.75, 0.0])
    centres = torch.tensor([[torch.nan] * 2, [0.5, 0.0], [0.5, 0.5]])
    mixed, kept = mix(images, others, share, centres)
    assert mixed[0].unique().tolist() == [0.25]
    # A box of half the sides, 4 x 5, around row 4 of 8 and column 0 of 10: rows 2 to 5, columns 0 and 1.
    assert mixed[1, 0].sum().item() == mixed[1, 1].sum().item()
    rows, columns = mixed[1, 0].nonzero(as_tuple=True)
    assert (rows.min().item(), rows.max().item()) == (2, 5)
    assert columns.min().item() == 0
    for i in range(3):
        assert kept[i].item() == pytest.approx(1.0 - mixed[i].mean().item())
    assert kept[2].item() == 0.0


def test_the_loss_is_mixed_as_the_image_is() -> None:
    task = make_task(load_recipe(None, ["task.name=mnist", "loss.mixup=0.4", "loss.label_smoothing=0.1"]))
    assert isinstance(task, Mnist)
    model = nn.Sequential(nn.Flatten(), nn.Linear(63, 10)).double()
    tensors = MixedInMemory(dataset(), MixSettings(0.4), seed=3).gather(np.arange(20), 0)
    inputs = task.prepare(tensors, torch.float64)
    image, label, other, other_label, share, _ = tensors
    lam = share.view(-1, 1, 1, 1)
    normalise = lambda x: (x.double() / 255 - 0.1307) / 0.3081  # noqa: E731
    logits = model(lam * normalise(image) + (1 - lam) * normalise(other))
    own, its = (F.cross_entropy(logits, y, reduction="none", label_smoothing=0.1) for y in (label, other_label))
    torch.testing.assert_close(task.losses(model, inputs), share * own + (1 - share) * its)


def test_what_cannot_be_mixed_is_refused() -> None:
    with pytest.raises(InputError, match="mixup is -1"):
        MixSettings(-1)
    with pytest.raises(InputError, match="are for image classification"):
        make_task(load_recipe(None, ["task={name: text, root: x}", "loss.mixup=0.4", "model=null"]))
    with pytest.raises(InputError, match="mix images"):
        make_task(load_recipe(None, ["task={name: synthetic, shape: [5]}", "loss.cutmix=1", "model=null"]))
