"""From requests to tensors: gathers in this process, or worker processes; then, on CUDA, copies that run
ahead.

The tensors come in the order of the requests and do not depend on the number of workers.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from disttrain.data.collate import Collate, stack
from disttrain.data.dataset import Dataset, Ids, InMemory, MapStyle, PerSample, read
from disttrain.data.tree import Tensors, leaves, map_leaves, split
from disttrain.errors import DataError, InputError, RankError

Request = tuple[int, Ids]
"""(epoch, ids) of one micro-batch."""
_BURST, _BURST_BYTES = 64, 1 << 20


def fetch(
    dataset: Dataset,
    requests: Iterable[Request],
    *,
    seed: int,
    workers: int,
    prefetch: int,
    device: torch.device,
    collate: Collate = stack,
) -> Generator[Tensors, None, None]:
    """The tensors of each request, on ``device``, in the order of the requests.

    Args:
        seed: what plain torch datasets are seeded from, together with epoch and id.
        workers: processes that read samples. Datasets in memory are gathered in this process whatever it
            says: sending a batch between processes costs more than gathering it.
        prefetch: requests that each worker works ahead, and that are copied ahead to a CUDA device.
        collate: makes a batch of samples, in the workers where there are some.

    Raises:
        InputError: a ``collate`` for a dataset in memory, which makes batches itself.
        DataError: a sample could not be read.
        RankError: a worker process died.
    """
    if isinstance(dataset, InMemory):
        require_stack(dataset, collate)
        together = getattr(dataset, "rowwise", False)
        one_by_one = (dataset.gather(ids, epoch) for epoch, ids in requests)
        source = _gathered(dataset, iter(requests)) if together else one_by_one
    elif workers == 0:
        source = (read(dataset, epoch, ids, seed, collate) for epoch, ids in requests)
    else:
        source = _from_workers(_Reader(dataset, seed, collate), requests, workers, prefetch, pin=device.type == "cuda")
    with closing(source):
        if device.type == "cuda":
            yield from _copied_ahead(source, device, prefetch)
        elif device.type == "cpu":
            yield from source
        else:
            for tensors in source:
                yield map_leaves(lambda tensor: tensor.to(device), tensors)


def require_stack(dataset: Dataset, collate: Collate) -> None:
    """Raise InputError if a function of one's own would be passed over because the dataset is in memory."""
    if isinstance(dataset, InMemory) and collate is not stack:
        raise InputError(
            f"collate() is not used for {type(dataset).__name__}, whose gather() makes the batches itself: leave one of the two "
            "out"
        )


def _gathered(dataset: InMemory, requests: Iterator[Request]) -> Generator[Tensors, None, None]:
    """Small requests are gathered several at once: between two updates the processor's caches are cold for the code that
    reads data, and what it does for a few dozen samples takes no longer for a few hundred."""
    burst = list(islice(requests, 1))
    while burst:
        size = 0
        for epoch, same_epoch in groupby(burst, key=itemgetter(0)):
            ids = [ids for _, ids in same_epoch]
            tensors = dataset.gather(np.concatenate(ids) if len(ids) > 1 else ids[0], epoch)
            yield from split(tensors, [len(i) for i in ids])
            size = max(size, sum(tensor.nbytes for tensor in leaves(tensors)) // len(ids))
        burst = list(islice(requests, max(1, min(_BURST, _BURST_BYTES // max(size, 1)))))


class _Reader(TorchDataset[Any]):
    """What the workers hold. A failure travels as a value: raised there, it would arrive wrapped in text."""

    def __init__(self, dataset: PerSample | MapStyle, seed: int, collate: Collate) -> None:
        self.dataset = dataset
        self.seed = seed
        self.collate = collate

    def __getitem__(self, request: Request) -> Tensors | DataError:
        epoch, ids = request
        try:
            return read(self.dataset, epoch, ids, self.seed, self.collate)
        except DataError as error:
            return error


def _from_workers(
    reader: _Reader, requests: Iterable[Request], workers: int, prefetch: int, *, pin: bool
) -> Generator[Tensors, None, None]:
    waiting: deque[Request] = deque()

    def remembered() -> Iterator[Request]:
        for request in requests:
            waiting.append(request)
            yield request

    loader: DataLoader[Any] = DataLoader(
        reader,
        batch_size=None,
        sampler=remembered(),
        num_workers=workers,
        prefetch_factor=prefetch,
        collate_fn=_as_it_is,
        worker_init_fn=_start_worker,
        pin_memory=pin,
        # A generator of its own: a DataLoader draws a seed when it starts, and from the global generator that
        # draw would make dropout depend on how often a run was resumed.
        generator=torch.Generator(),
    )
    iterator = iter(loader)
    try:
        while True:
            try:
                result = next(iterator)
            except StopIteration:
                return
            except RuntimeError as error:
                epoch, ids = waiting[0]
                raise RankError(
                    f"the data workers failed while {len(ids)} samples of epoch {epoch}, from sample "
                    f"{ids[0]} on, were awaited: {error}. Often the machine ran out of memory or "
                    "of /dev/shm; with workers=0 the samples are read in the main process"
                ) from error
            waiting.popleft()
            if isinstance(result, DataError):
                raise result
            yield result
    finally:
        # Dropping the iterator would do the same, but only once nothing refers to it any more, tracebacks
        # included.
        iterator._shutdown_workers()  # type: ignore[attr-defined]


def _as_it_is(value: Any) -> Any:
    return value


def _start_worker(_: int) -> None:
    # Control-C reaches the whole process group; the main process decides what happens and ends the workers. What it has
    # made of other signals (finish the update, save) is not meant for them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)


def _copied_ahead(source: Iterator[Tensors], device: torch.device, ahead: int) -> Iterator[Tensors]:
    """Copy to a CUDA device from pinned memory on a stream of its own, ``ahead`` requests before they are
    needed."""
    copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ready: deque[tuple[Tensors, torch.cuda.Event]] = deque()

    def next_ready() -> Tensors:
        tensors, copied = ready.popleft()
        compute = torch.cuda.current_stream(device)
        compute.wait_event(copied)
        for tensor in leaves(tensors):
            # The memory belongs to the copy stream; without this it could be reused while compute still reads
            # it.
            tensor.record_stream(compute)
        return tensors

    for tensors in source:
        with torch.cuda.stream(copies):
            moved = map_leaves(
                lambda tensor: (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True),
                tensors,
            )
            ready.append((moved, copies.record_event()))
        if len(ready) > ahead:
            yield next_ready()
    while ready:
        yield next_ready()
