"""What a loader delivers does not depend on the ranks, nor on where it was resumed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from data_cases import EpochAware
from hypothesis import given
from hypothesis import strategies as st

from disttrain.data import (
    ArrayDataset,
    Batch,
    GlobalShuffle,
    Loader,
    Order,
    Partition,
    Position,
    Sequential,
    WithReplacement,
    loader,
)
from disttrain.errors import InputError

EPOCHS = 2


def numbers(n: int) -> ArrayDataset:
    return ArrayDataset(torch.arange(n) * 10)


def make_order(kind: str, n: int, seed: int) -> Order:
    orders: dict[str, Callable[[], Order]] = {
        "global": lambda: GlobalShuffle(n, seed),
        "partition": lambda: Partition(n, seed, 3),
        "replacement": lambda: WithReplacement(n, seed),
        "sequential": lambda: Sequential(n),
    }
    return orders[kind]()


class Setting:
    """One recipe; ``run`` executes it on a number of ranks from a position and checks each batch on the way."""

    def __init__(
        self, n: int, batch: int, most: int | None, seed: int, last: Literal["keep", "drop"], kind: str, growing: bool
    ) -> None:
        self.n = n
        self.batch = (lambda passed: 1 + (batch - 1) * (passed + n) // (3 * n)) if growing else batch
        self.most = most
        self.last = last
        self.seed = seed
        self.kind = kind

    def run(self, world: int, start: Position) -> list[tuple[Position, list[int], Position]]:
        """(position before, ids of the global batch in order, position after) of each batch."""
        streams = [
            iter(
                Loader(
                    numbers(self.n),
                    make_order(self.kind, self.n, self.seed),
                    rank=rank,
                    size=world,
                    batch_size=self.batch,
                    per_rank_max=self.most,
                    last=self.last,
                    position=start,
                    stop_samples=EPOCHS * self.n,
                )
            )
            for rank in range(world)
        ]
        position = start
        steps = []
        for shares in zip(*streams, strict=True):
            for batch in shares:
                self.check(batch, shares[0])
            ids = [id for batch in shares for id in batch.ids.tolist()]
            assert len(ids) == shares[0].size
            lengths = [len(batch.ids) for batch in shares]
            assert max(lengths) - min(lengths) <= 1
            after = position.advanced(shares[0])
            steps.append((position, ids, after))
            position = after
        return steps

    def check(self, batch: Batch, first: Batch) -> None:
        head = (batch.epoch, batch.offset, batch.size, batch.ends_epoch)
        assert head == (first.epoch, first.offset, first.size, first.ends_epoch)
        assert len(batch.micro_batches) >= 1
        for micro in batch:
            assert micro.tensors[0].tolist() == [10 * id for id in micro.ids]
            assert self.most is None or len(micro.ids) <= self.most
        if len(batch.ids):
            assert [micro.weight for micro in batch] == [1.0] * len(batch.micro_batches)
            assert [id for micro in batch for id in micro.ids] == batch.ids.tolist()
        else:
            (borrowed,) = batch.micro_batches
            assert borrowed.weight == 0.0
            assert len(borrowed.ids) == 1


settings = st.builds(
    Setting,
    n=st.integers(1, 30),
    batch=st.integers(1, 40),
    most=st.one_of(st.none(), st.integers(1, 7)),
    seed=st.integers(0, 5),
    last=st.just("keep"),
    kind=st.sampled_from(["global", "partition", "replacement", "sequential"]),
    growing=st.booleans(),
)


@given(settings, st.integers(1, 6), st.integers(1, 6), st.data())
def test_ids_do_not_depend_on_the_ranks_or_on_resuming(
    setting: Setting, world: int, resumed: int, data: st.DataObject
) -> None:
    whole = setting.run(1, Position())
    assert setting.run(world, Position()) == whole
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert setting.run(resumed, whole[cut][2] if cut else Position()) == whole[cut + 1 if cut else 0 :]
    last = whole[-1][2]
    assert (last.epoch, last.offset, last.samples, last.updates) == (EPOCHS, 0, EPOCHS * setting.n, len(whole))
    if setting.kind != "replacement":
        for epoch in range(EPOCHS):
            ids = [id for before, batch, _ in whole for id in batch if before.epoch == epoch]
            assert sorted(ids) == list(range(setting.n))


@given(settings, st.integers(1, 6), st.data())
def test_dropping_the_last_batch(setting: Setting, world: int, data: st.DataObject) -> None:
    setting.last = "drop"
    sizes = setting.batch if callable(setting.batch) else (lambda passed, size=setting.batch: size)
    wanted = []
    for epoch in range(EPOCHS):
        offset = 0
        if sizes(epoch * setting.n) > setting.n:
            with pytest.raises(InputError, match="no batch would ever be made"):
                setting.run(world, Position())
            return
        while setting.n - offset >= sizes(epoch * setting.n + offset):
            size = sizes(epoch * setting.n + offset)
            wanted.append((epoch, offset, size))
            offset += size
    whole = setting.run(world, Position())
    assert [(before.epoch, before.offset, len(ids)) for before, ids, _ in whole] == wanted
    order = make_order(setting.kind, setting.n, setting.seed)
    for before, ids, _ in whole:
        assert ids == order.batch(before.epoch, before.offset, before.offset + len(ids)).tolist()
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert setting.run(1, whole[cut][0]) == whole[cut:]


def test_a_batch_size_that_changed_between_runs() -> None:
    """What is left of the epoch is too little for the new batch, so the next one begins."""
    rest = Loader(numbers(10), Sequential(10), rank=0, size=1, batch_size=4, last="drop", position=Position(0, 8, 8, 4))
    assert [(batch.epoch, batch.offset) for batch in islice(rest, 3)] == [(1, 0), (1, 4), (2, 0)]


def test_goes_on_for_ever_without_a_stop() -> None:
    endless = Loader(numbers(3), Sequential(3), rank=0, size=1, batch_size=2)
    assert [(batch.epoch, batch.size) for batch in islice(endless, 5)] == [(0, 2), (0, 1), (1, 2), (1, 1), (2, 2)]


def test_no_batch_begins_at_the_stop_and_none_is_cut_by_it() -> None:
    short = Loader(numbers(10), Sequential(10), rank=0, size=1, batch_size=4, stop_samples=5)
    assert [batch.size for batch in short] == [4, 4]


def test_a_loader_can_be_iterated_again() -> None:
    twice = Loader(numbers(5), GlobalShuffle(5, 1), rank=0, size=1, batch_size=2, stop_samples=10)
    assert [batch.ids.tolist() for batch in twice] == [batch.ids.tolist() for batch in twice]


def test_the_epoch_reaches_a_dataset_in_memory() -> None:
    class Aware(ArrayDataset):
        def gather(self, ids: Any, epoch: int = 0) -> tuple[torch.Tensor, ...]:
            return (*super().gather(ids), torch.tensor(epoch))

    batches = Loader(Aware(torch.arange(3)), Sequential(3), rank=0, size=1, batch_size=2, stop_samples=6)
    assert [batch.tensors[1].item() for batch in batches] == [0, 0, 1, 1]


class Counted(ArrayDataset):
    """Counts its gathers."""

    rowwise: bool = False
    gathers = 0

    def gather(self, ids: Any, epoch: int = 0) -> tuple[torch.Tensor, ...]:
        self.gathers += 1
        return (*super().gather(ids), torch.full((len(ids),), epoch))


@pytest.mark.parametrize("per_rank_max", [None, 3])
def test_small_requests_gathered_together_are_the_same(per_rank_max: int | None) -> None:
    def delivered(rowwise: bool) -> tuple[list[list[list[int]]], int]:
        data = Counted(torch.arange(50) * 10)
        data.rowwise = rowwise
        loader = Loader(
            data, GlobalShuffle(50, 7), rank=1, size=2, batch_size=16, stop_samples=150, per_rank_max=per_rank_max
        )
        found = [[t.tolist() for t in micro.tensors] for batch in loader for micro in batch]
        return found, data.gathers

    (together, few), (alone, many) = delivered(True), delivered(False)
    assert together == alone
    assert {epoch for _, epochs in together for epoch in epochs} == {0, 1, 2}
    assert few < many == len(alone)


def test_a_large_request_is_gathered_alone() -> None:
    data = Counted(torch.zeros(40, 1 << 17))
    data.rowwise = True
    list(Loader(data, Sequential(40), rank=0, size=1, batch_size=4, stop_samples=40))
    assert data.gathers == 10


def test_the_epoch_reaches_a_dataset_of_samples() -> None:
    batches = Loader(EpochAware(3), Sequential(3), rank=0, size=1, batch_size=3, stop_samples=6)
    values = [batch.tensors[0][:, 0].tolist() for batch in batches]
    assert values == [pytest.approx([0.0, 1.0, 2.0]), pytest.approx([0.1, 1.1, 2.1])]


WORLD = SimpleNamespace(rank=1, size=2)


def test_the_function_for_loops_of_your_own() -> None:
    batches = list(loader(numbers(10), WORLD, global_batch=4, seed=3, epochs=2))
    assert [batch.size for batch in batches] == [4, 4, 2, 4, 4, 2]
    ids = GlobalShuffle(10, 3).batch(0, 0, 4).tolist()
    assert batches[0].ids.tolist() == ids[2:]
    assert batches[0].tensors[0].tolist() == [10 * id for id in ids[2:]]
    assert [batch.size for batch in loader(numbers(10), WORLD, global_batch=4, last="drop", epochs=2)] == [4] * 4
    assert list(loader(numbers(10), WORLD, global_batch=4, epochs=0)) == []


@pytest.mark.parametrize(
    ("order", "wanted"),
    [
        ("sequential", Sequential(10)),
        ("replacement", WithReplacement(10, 3)),
        (Partition(10, 5, 2), Partition(10, 5, 2)),
    ],
)
def test_the_orders_of_that_function(order: Any, wanted: Order) -> None:
    (batch,) = loader(numbers(10), SimpleNamespace(rank=0, size=1), global_batch=10, seed=3, order=order)
    assert batch.ids.tolist() == wanted.batch(0, 0, 10).tolist()


def test_tensors_is_refused_where_it_would_mislead() -> None:
    (batch,) = loader(numbers(10), WORLD, global_batch=10, per_rank_max=2)
    with pytest.raises(ValueError, match="3 micro-batches; iterate over the batch"):
        _ = batch.tensors
    (batch,) = loader(numbers(1), SimpleNamespace(rank=0, size=2), global_batch=1)
    with pytest.raises(ValueError, match="share of the batch is empty"):
        _ = batch.tensors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 2}, "rank is 2 of 2; it must be from 0 to 1"),
        ({"rank": -1}, "rank is -1"),
        ({"batch_size": 0}, "the global batch is 0 after 0 samples"),
        ({"batch_size": lambda passed: passed - 1}, "the global batch is -1 after 0 samples"),
        ({"per_rank_max": 0}, "per_rank_max is 0"),
        ({"last": "pad"}, "last is 'pad'; it must be 'keep' or 'drop'"),
        ({"workers": -1}, "workers is -1"),
        ({"prefetch": 0}, "prefetch is 0"),
        ({"order": Sequential(9)}, "the dataset has 10 samples but the order is over 9"),
        ({"position": Position(0, 10, 10, 1)}, "position: offset is 10, but an epoch of this dataset has 10 samples"),
    ],
)
def test_arguments_out_of_range(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"order": Sequential(10), "rank": 0, "size": 2, "batch_size": 4}
    with pytest.raises(InputError, match=message):
        Loader(numbers(10), **(given | change))


def test_unknown_orders_and_epochs_are_refused() -> None:
    with pytest.raises(InputError, match="order is 'partition'; it must be"):
        loader(numbers(10), WORLD, global_batch=4, order="partition")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="epochs is -1"):
        loader(numbers(10), WORLD, global_batch=4, epochs=-1)
