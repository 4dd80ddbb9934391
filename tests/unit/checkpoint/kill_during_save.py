"""Kill a save after each change it makes to the disk, and check what is left each time.

``python kill_during_save.py DIR SCENARIO`` prints the number of kills, or a traceback if one lost anything.
The kill is ``os._exit`` in a forked child: no ``finally`` runs and no buffer is flushed, as with SIGKILL.
A tracer looks at the directory at every line of Python that runs, so that a kill comes after every change.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from checkpoint_cases import make_checkpoint, same_checkpoint

from disttrain.checkpoint import Checkpoint, load_latest, save_checkpoint

KILLED = 137


def snapshot(directory: Path) -> list[tuple[str, int]]:
    found = []
    for root, names, files in os.walk(directory):
        found += [(os.path.join(root, name), -1) for name in names]
        for name in files:
            path = os.path.join(root, name)
            found.append((path, os.stat(path).st_size))
    return sorted(found)


def save_and_die(run_dir: Path, checkpoint: Checkpoint, keep: int, changes: int) -> None:
    """Save ``checkpoint`` in this process, and end it once the directory has changed ``changes`` times."""
    last, count = snapshot(run_dir), 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal last, count
        if "checkpoint" not in frame.f_code.co_filename and not frame.f_code.co_filename.endswith("shutil.py"):
            return None
        now = snapshot(run_dir)
        if now != last:
            last, count = now, count + 1
            if count == changes:
                os._exit(KILLED)
        return trace

    sys.settrace(trace)
    save_checkpoint(run_dir, checkpoint, keep=keep)
    sys.settrace(None)


def kill_everywhere(base: Path, before: list[Checkpoint], new: Checkpoint, keep: int) -> int:
    """Number of kills. ``before`` are saved first; the last of them, or ``new``, must load after every kill."""
    template = base / "template"
    template.mkdir()
    for checkpoint in before:
        save_checkpoint(template, checkpoint, keep=keep)
    finished, changes = False, 0
    outcomes = set()
    while not finished:
        changes += 1
        run_dir = base / "run"
        shutil.copytree(template, run_dir)
        child = os.fork()
        if child == 0:
            save_and_die(run_dir, new, keep, changes)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, KILLED), f"the child ended with {status}"
        finished = status == 0

        loaded = load_latest(run_dir)
        assert loaded.refused == [], loaded.refused
        is_new = same_checkpoint(loaded.checkpoint, new)
        assert is_new or same_checkpoint(loaded.checkpoint, before[-1]), f"lost after change {changes}"
        assert is_new or not finished
        outcomes.add(is_new)

        later = make_checkpoint(1000)
        save_checkpoint(run_dir, later, keep=1)
        assert os.listdir(run_dir / "checkpoints") == ["step-00001000"], "litter is left"
        shutil.rmtree(run_dir)
    assert outcomes == {False, True}
    return changes - 1


SCENARIOS: dict[str, tuple[list[Checkpoint], Checkpoint, int]] = {
    "next": ([make_checkpoint(1), make_checkpoint(2)], make_checkpoint(3), 2),
    "keep one": ([make_checkpoint(1)], make_checkpoint(2), 1),
    "same step": ([make_checkpoint(2)], make_checkpoint(2, seed=5), 1),
}

if __name__ == "__main__":
    print(kill_everywhere(Path(sys.argv[1]), *SCENARIOS[sys.argv[2]]))
