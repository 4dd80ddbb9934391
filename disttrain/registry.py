"""Names to objects: a short name of ours, or ``pkg.mod:Object`` of anybody's. Imported only when asked for."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from sysconfig import get_paths
from types import MappingProxyType, ModuleType
from typing import Any

from disttrain.errors import InputError
from disttrain.names import did_you_mean

_LIBRARIES = tuple(get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
PASSED = "python:"
"""Begins the name of an object that was passed in Python; ``config`` has the same word."""
_passed: ContextVar[Mapping[str, Any]] = ContextVar("passed", default=MappingProxyType({}))


@contextmanager
def passed(objects: Mapping[str, Any]) -> Iterator[None]:
    """Inside, the names of ``objects`` (each begins with ``PASSED``) stand for them, in this thread alone."""
    token = _passed.set({**_passed.get(), **objects})
    try:
        yield
    finally:
        _passed.reset(token)


def resolve(spec: str, builtins: Mapping[str, str]) -> Any:
    """The object that ``spec`` names.

    Args:
        spec: a key of ``builtins``, or ``pkg.mod:Object`` (dots in ``Object`` reach into it). Modules beside the current
            directory are found, however the program was started.
        builtins: short name -> ``pkg.mod:Object``.

    A name is taken for what it says: it does not lead on into another package that the module happens to import
    (``own.tasks:os.system``), nor to names with two underscores. Whether the object may be made at all is asked before, of
    the recipe (:mod:`disttrain.config.reading.trust`).

    Raises:
        InputError: no such name, module or object, the module fails while it is imported, or the name leads elsewhere; the
            message says which.
    """
    if ":" not in spec:
        if spec not in builtins:
            allowed = ", ".join([*builtins, "pkg.mod:Object"])
            raise InputError(f"{spec!r} is unknown; expected one of {allowed}{did_you_mean(spec, builtins, 0.7)}")
        spec = builtins[spec]
    if spec.startswith(PASSED):
        if spec not in _passed.get():
            raise InputError(
                f"{spec!r} was passed in Python, and its name alone makes nothing: pass it again, as task= or model= of "
                "disttrain.train, evaluate or load_model"
            )
        return _passed.get()[spec]
    module_name, _, attribute = spec.partition(":")
    parts = attribute.split(".")
    if not all(part.isidentifier() for part in (*module_name.split("."), *parts)):
        raise InputError(f"{spec!r} is no name of an object; expected pkg.mod:Object")
    if hidden := next((part for part in parts if part.startswith("__")), None):
        raise InputError(f"{spec!r} reaches behind the object by {hidden!r}")
    found: Any = _module(spec, module_name)
    for place, part in enumerate(parts):
        if not hasattr(found, part):
            hint = did_you_mean(part, dir(found), 0.7) or _defined(found)
            raise InputError(f"{spec!r}: {module_name} has no {attribute!r}{hint}")
        found = getattr(found, part)
        if isinstance(found, ModuleType) and found.__name__.partition(".")[0] != module_name.partition(".")[0]:
            there = f"{found.__name__}:{'.'.join(parts[place + 1 :]) or 'Object'}"
            raise InputError(
                f"{spec!r}: {module_name} only imports {part}; name the object where it is defined, {there}"
            )
    return found


def _module(spec: str, name: str) -> ModuleType:
    # ``python -m`` puts the current directory on the path, a console script does not.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if f"{name}.".startswith(f"{missing}."):
            hint = did_you_mean(missing.rpartition(".")[2], _neighbours(missing), 0.7)
            raise InputError(
                f"{spec!r}: there is no module {missing!r}, neither installed nor in the current directory{hint}"
            ) from error
        raise _failed(spec, name, error) from error
    except Exception as error:
        raise _failed(spec, name, error) from error


def _failed(spec: str, name: str, error: Exception) -> InputError:
    every = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in every if not frame.filename.startswith(("<", *_LIBRARIES))] or every
    # A syntax error names its own place; the innermost frame is then importlib's.
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if not isinstance(error, SyntaxError) else ""
    return InputError(f"{spec!r}: module {name!r} cannot be imported: {type(error).__name__}: {error}{place}")


def _neighbours(module: str) -> list[str]:
    """The modules that stand beside the place where ``module`` was looked for."""
    package = sys.modules.get(module.rpartition(".")[0])
    path = list(package.__path__) if package is not None and hasattr(package, "__path__") else None
    return [found.name for found in pkgutil.iter_modules(path)]


def _defined(owner: Any) -> str:
    """What a module has of its own, one of which may be meant."""
    if not isinstance(owner, ModuleType):
        return ""
    own = [name for name, value in vars(owner).items() if getattr(value, "__module__", "") == owner.__name__]
    return f"; it defines {', '.join(own[:10])}" if own else ""
