"""Worker processes deliver what this process would, say what went wrong, and leave nothing behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from data_cases import EpochAware, Noisy
from torch import Tensor

from disttrain.data import ArrayDataset, Batch, GlobalShuffle, Loader, Sequential
from disttrain.data.augment import Augmented, RandomFlip, RandomShift
from disttrain.data.dataset import Dataset
from disttrain.data.evaluation import evaluation_batches
from disttrain.errors import DataError, RankError


def no_children_left() -> bool:
    deadline = time.monotonic() + 60
    while multiprocessing.active_children():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture(autouse=True)
def _clean() -> Any:
    yield
    assert no_children_left()


def batches(dataset: Dataset, workers: int, **options: Any) -> list[Batch]:
    n = len(dataset)
    defaults: dict[str, Any] = {"rank": 1, "size": 2, "batch_size": 5, "per_rank_max": 2, "stop_samples": 2 * n}
    return list(Loader(dataset, GlobalShuffle(n, 4), workers=workers, seed=6, **(defaults | options)))


def flat(found: list[Batch]) -> list[tuple[Any, ...]]:
    return [
        (
            (batch.epoch, batch.offset, batch.ids.tolist(), micro.ids.tolist(), micro.weight),
            *(tensor.tolist() for tensor in micro.tensors),
        )
        for batch in found
        for micro in batch
    ]


@pytest.mark.parametrize("dataset", [Noisy(13), EpochAware(13)], ids=["plain", "per sample"])
def test_the_number_of_workers_changes_nothing(dataset: Dataset) -> None:
    alone = flat(batches(dataset, 0))
    assert flat(batches(dataset, 2)) == alone
    assert flat(batches(dataset, 2, prefetch=1)) == alone


def test_augmented_data_in_memory(data_root: Path) -> None:
    from disttrain.data.mnist import load_mnist_like

    _, test = load_mnist_like(data_root / "fashion-mnist")
    some = ArrayDataset(*(tensor[:50] for tensor in test.tensors))
    dataset = Augmented(some, [RandomShift(2), RandomFlip()], seed=1)
    assert flat(batches(dataset, 0)) == flat(batches(dataset, 2))


def test_images_in_folders(tmp_path: Path) -> None:
    Image = pytest.importorskip("PIL.Image", reason="needs Pillow, an optional dependency")
    from disttrain.data.image_folder import ImageFolder

    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(4):
            noise = torch.randint(0, 256, (20, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(i))
            Image.fromarray(noise.numpy()).save(tmp_path / name / f"{i}.png")
    dataset = ImageFolder(tmp_path, size=8, augment=True, seed=2)
    assert flat(batches(dataset, 0)) == flat(batches(dataset, 2))


def test_evaluation_with_workers() -> None:
    def read(workers: int) -> list[Any]:
        stream = evaluation_batches(Noisy(11), rank=0, size=1, batch=3, workers=workers)
        return [(micro.ids.tolist(), [tensor.tolist() for tensor in micro.tensors]) for micro in stream]

    assert read(2) == read(0)


def test_the_global_generator_is_not_touched() -> None:
    """Otherwise dropout would depend on how often a run was resumed."""
    before = torch.get_rng_state()
    batches(Noisy(6), 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_closing_early_ends_the_workers() -> None:
    stream = iter(Loader(EpochAware(12), Sequential(12), rank=0, size=1, batch_size=4, workers=2))
    next(stream)
    assert len(multiprocessing.active_children()) == 2
    stream.close()
    assert no_children_left()


class Failing(EpochAware):
    """Sample 7 cannot be made."""

    def __init__(self, error: BaseException | int) -> None:
        super().__init__(12)
        self.error = error

    def sample(self, id: int, epoch: int) -> tuple[Tensor, int]:
        if id == 7:
            if isinstance(self.error, int):
                os.kill(os.getpid(), self.error)
            else:
                raise self.error
        return super().sample(id, epoch)


@pytest.mark.parametrize("workers", [0, 2])
def test_row_28_a_failing_sample_is_named_and_what_came_before_is_delivered(workers: int) -> None:
    failing = Failing(KeyError("k"))
    stream = iter(Loader(failing, Sequential(12), rank=0, size=1, batch_size=3, workers=workers))
    assert [batch.ids.tolist() for batch in islice(stream, 2)] == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(
        DataError, match=r"(?s)^sample 7 could not be read in epoch 0: KeyError: 'k'\n.*in sample"
    ) as caught:
        next(stream)
    # Also while somebody still holds the exception, and with it the frames that know the workers.
    assert no_children_left()
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_data_errors_keep_their_message(workers: int) -> None:
    failing = Failing(DataError("a.png: damaged"))
    with pytest.raises(DataError, match=r"^sample 7: a\.png: damaged$"):
        list(Loader(failing, Sequential(12), rank=0, size=1, batch_size=3, workers=workers, stop_samples=12))


def test_row_27_a_killed_worker_is_reported_with_what_it_worked_on() -> None:
    killed = Failing(int(signal.SIGKILL))
    stream = iter(Loader(killed, Sequential(12), rank=0, size=1, batch_size=3, workers=1, prefetch=1))
    with pytest.raises(RankError, match=r"the data workers failed while 3 samples of epoch 0, from sample \d on"):
        list(stream)
