"""A few processes that run trials one after the other, and end with whoever started them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Self

from disttrain import errors
from disttrain.engine.blame import headline, short_trace
from disttrain.engine.stop import StopRequest, stop_request
from disttrain.errors import DisttrainError, RankError, StopRequested
from disttrain.study.trials import Outcome, Trial, read_outcome, run_trial

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 60.0
"""How long a worker may take to save what it trains, when asked to stop."""
STOPPED = "stopped on request; what was trained is saved, and the same command goes on"

Done = Callable[[Trial, Outcome], None]


class Pool:
    """Runs trials, ``jobs`` at a time; used in a ``with`` statement.

    One job on one rank trains in this process. Otherwise each job has a process, started at the first trial and kept for
    all later ones, so torch is loaded once for each. Such a process imports the main script again: a script of one's own
    needs the usual ``if __name__ == "__main__":``.

    Args:
        jobs: trials at once.
        ranks, engine: of each trial; see :func:`disttrain.study.trials.run_trial`.
    """

    def __init__(self, jobs: int = 1, *, ranks: int = 1, engine: str = "ddp") -> None:
        self._jobs, self._ranks, self._engine = jobs, ranks, engine
        self._workers: list[_Worker] = []
        self._leave = ExitStack()
        self._stop = StopRequest()

    def __enter__(self) -> Self:
        self._stop = self._leave.enter_context(stop_request())
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        with self._leave:
            for worker in self._workers:
                worker.interrupt()
            for worker in self._workers:
                worker.end()
            if failed is None:
                self._go_on()

    def run(self, trials: Sequence[Trial], done: Done = lambda trial, outcome: None) -> list[Outcome]:
        """The outcomes of all trials, in order; only those are run that have none yet.

        Args:
            done: called after each that was run, in the order in which they end.

        Raises:
            StopRequested: on SIGTERM, SIGUSR1 or Control-C, also since the pool was entered; what was trained is saved, and the
                same call goes on.
            DisttrainError: a trial cannot be trained, or a process was lost.
        """
        todo = [trial for trial in trials if read_outcome(trial.run_dir) is None]
        if self._jobs == 1 and self._ranks == 1:
            for trial in todo:
                self._go_on()
                self._train(trial)
                done(trial, _outcome(trial))
        else:
            self._share_out(todo, done)
        return [_outcome(trial) for trial in trials]

    def _train(self, trial: Trial) -> None:
        try:
            run_trial(trial)
        except StopRequested as stopped:  # speaks of the one training
            raise StopRequested(STOPPED) from stopped

    def _share_out(self, todo: Sequence[Trial], done: Done) -> None:
        waiting = list(todo)
        while len(self._workers) < min(self._jobs, len(todo)):
            self._workers.append(_Worker(self._jobs, self._ranks, self._engine))
        while waiting or any(worker.trial for worker in self._workers):
            for worker in self._workers:
                if worker.idle and waiting:
                    worker.give(waiting.pop(0))
            listening = {worker.connection: worker for worker in self._workers if not worker.idle}
            for connection in wait(list(listening), POLL_SECONDS):
                trial = listening[connection].heard()  # type: ignore[index]
                if trial is not None:
                    done(trial, _outcome(trial))
            self._go_on()

    def _go_on(self) -> None:
        if self._stop:
            raise StopRequested(STOPPED)


def _outcome(trial: Trial) -> Outcome:
    found = read_outcome(trial.run_dir)
    if found is None:
        raise RankError(f"{trial.run_dir}: the training is over, and its last line does not say so")
    return found


class _Worker:
    """A process and the trial that it is at.

    Attributes:
        trial: what it trains.
        idle: it waits for a trial.
    """

    def __init__(self, jobs: int, ranks: int, engine: str) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.trial: Trial | None = None
        self.idle = False
        threads = None if "OMP_NUM_THREADS" in os.environ else max(1, (os.cpu_count() or 1) // jobs)
        self._process: BaseProcess = context.Process(target=_work, args=(theirs, threads, ranks, engine))
        with _deaf():
            self._process.start()
        theirs.close()

    def give(self, trial: Trial) -> None:
        self.trial, self.idle = trial, False
        with suppress(OSError):  # it has ended: so says the pipe when it is read
            self.connection.send(trial)

    def heard(self) -> Trial | None:
        """The trial that has ended by now; None: it has told that it is ready for the first.

        Raises:
            DisttrainError: as the process raised it, or because the process is lost.
        """
        trial, self.trial, self.idle = self.trial, None, True
        try:
            failed: tuple[str, str] | None = self.connection.recv()
        except EOFError:
            self._process.join()
            what = "a process that runs trials" if trial is None else f"{trial.run_dir}: its process"
            raise RankError(f"{what} ended with {self._process.exitcode}; the same command goes on") from None
        if failed is not None:
            kind: type[DisttrainError] = getattr(errors, failed[0], RankError)
            raise kind(failed[1])
        return trial

    def interrupt(self) -> None:
        self.connection.close()
        if self.trial is not None and self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, signal.SIGINT)

    def end(self) -> None:
        self._process.join(PATIENCE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._process.close()


@contextmanager
def _deaf() -> Iterator[None]:
    """A process that is started now ignores Control-C until it says otherwise: it is not to die of it while it imports."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(connection: Connection, threads: int | None, ranks: int, engine: str) -> None:
    """A worker: it says that it is ready, trials come, and after each None goes back, or what failed."""
    os.setpgid(0, 0)  # Control-C reaches who started us, who passes it on once
    if threads is not None and ranks == 1:
        import torch

        torch.set_num_threads(threads)
    with suppress(EOFError, OSError, KeyboardInterrupt, StopRequested):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        connection.send(None)
        while True:
            connection.send(_failed(connection.recv(), ranks, engine))


def _failed(trial: Trial, ranks: int, engine: str) -> tuple[str, str] | None:
    try:
        run_trial(trial, ranks=ranks, engine=engine)
    except StopRequested:
        raise
    except DisttrainError as error:
        return type(error).__name__, str(error)
    except Exception as error:
        return RankError.__name__, f"{trial.run_dir}: {headline(error)}\n{short_trace(error)}"
    return None


def _end_with_parent() -> None:
    """Ask for a stop when the process that started this one is gone, whatever ended it."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    while True:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(PATIENCE_SECONDS)
