"""Reading the JSON files that commands leave beside or above runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disttrain.errors import InputError
from disttrain.version import __version__


def read_json(path: Path, cure: str = "") -> Any:
    """The value in ``path``.

    Args:
        cure: what to do about it, for the message.

    Raises:
        InputError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read: {error}{cure and f'; {cure}'}") from None


def read_settings(path: Path, form: int, option: str) -> Mapping[str, Any]:
    """What a command of several trainings was asked when its directory was made, as plain data.

    Args:
        form: of such files, as this version writes them.
        option: of the command: where its directory is named.

    Raises:
        InputError: it cannot be read, or another version of disttrain has written it in another form.
    """
    saved = read_json(path)
    if not isinstance(saved, dict) or saved.get("format") != form:
        version = saved.get("disttrain", "unknown") if isinstance(saved, dict) else "unknown"
        raise InputError(
            f"{path} is of disttrain {version} and not in the form of {__version__}: go on with that version, or choose "
            f"another {option}"
        )
    return saved
