"""Whose code an exception comes from, and the part of its traceback that helps whoever wrote that code."""

from __future__ import annotations

import traceback
from pathlib import Path
from sysconfig import get_paths

_OURS = str(Path(__file__).resolve().parent.parent)
_FUNCTIONS = str(Path(_OURS, "tasks", "supervised.py"))
_LIBRARIES = tuple(get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames from the first one that belongs to the user's own code on; empty where none does.

    The user's own is what we called and is neither ours, nor Python's, nor an installed library's.
    """
    frames = list(traceback.extract_tb(error.__traceback__))
    calls = next((i for i, frame in enumerate(frames) if _is_ours(frame)), len(frames))
    first = next((i for i in range(calls, len(frames)) if _is_own(frames[i])), len(frames))
    return frames[first:]


def own_place(error: BaseException) -> str:
    """``file:line`` of the innermost frame of the user's own code; empty where there is none."""
    frames = [frame for frame in own_frames(error) if _is_own(frame)]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def short_trace(error: BaseException) -> str:
    """The traceback from the user's own code on, or from where a task calls what it was given; all of it where the fault is
    in neither."""
    found = traceback.TracebackException.from_exception(error)
    if frames := own_frames(error) or _called_for_a_task(error):
        found.stack = traceback.StackSummary.from_list(frames)
    return "".join(found.format())


def _called_for_a_task(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames from the model's call on, of a task that is made of functions: all of them may be torch's."""
    frames = list(traceback.extract_tb(error.__traceback__))
    calls = [i for i, frame in enumerate(frames) if frame.filename == _FUNCTIONS and frame.name == "outputs"]
    return frames[calls[-1] :] if calls else []


def headline(error: BaseException) -> str:
    """``ValueError: what it says``."""
    try:
        text = str(error).strip()
    except Exception:  # somebody's own class, and the least of its mistakes
        text = "its text cannot be made"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(_OURS)


def _is_own(frame: traceback.FrameSummary) -> bool:
    return not (_is_ours(frame) or frame.filename.startswith(("<", *_LIBRARIES)))
