"""Names to objects: a short name of ours, or ``pkg.mod:Object`` of anybody's. Imported only when asked for."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any

from disttrain.errors import InputError


def resolve(spec: str, builtins: Mapping[str, str]) -> Any:
    """The object that ``spec`` names.

    Args:
        spec: a key of ``builtins``, or ``pkg.mod:Object`` (dots in ``Object`` reach into it). Modules beside the current
            directory are found, however the program was started.
        builtins: short name -> ``pkg.mod:Object``.

    Raises:
        InputError: no such name, module or object; the message says which.
    """
    if ":" not in spec:
        if spec not in builtins:
            close = difflib.get_close_matches(spec, builtins, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise InputError(f"{spec!r} is unknown{hint}; expected one of {', '.join(builtins)}, or pkg.mod:Object")
        spec = builtins[spec]
    module_name, _, attribute = spec.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(f"{spec!r}: module {module_name!r} cannot be imported: {error}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, dir(found), 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise InputError(f"{spec!r}: {module_name} has no {attribute!r}{hint}")
        found = getattr(found, part)
    return found
