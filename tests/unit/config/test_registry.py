"""Names to objects, and what is said when there is none."""

from __future__ import annotations

import json
import os.path
import subprocess
import sys
from pathlib import Path

import pytest

from disttrain.errors import InputError
from disttrain.registry import resolve

BUILTINS = {"join": "posixpath:join", "decoder": "json:decoder.JSONDecoder"}


def test_short_names_and_full_names() -> None:
    assert resolve("join", BUILTINS) is os.path.join
    assert resolve("decoder", BUILTINS) is json.decoder.JSONDecoder
    assert resolve("json:dumps", {}) is json.dumps


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory that is not on the path, and modules that are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    (tmp_path / "own_tasks.py").write_text("import json\n\nclass MyTask:\n    best = 7\n")
    (tmp_path / "own_needy.py").write_text("import a_package_that_is_not_there\n")
    (tmp_path / "own_syntax.py").write_text("\nx = (\n")
    (tmp_path / "own_failing.py").write_text("def f():\n    return 1 / 0\n\nf()\n")
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").touch()
    (tmp_path / "own_package" / "tasks.py").write_text("import json\nfrom own_tasks import MyTask\n")
    return tmp_path


def test_modules_in_the_current_directory(folder: Path) -> None:
    assert resolve("own_tasks:MyTask.best", {}) == 7
    assert resolve("own_package.tasks:MyTask", {}) is resolve("own_tasks:MyTask", {})
    assert resolve("own_package:tasks.MyTask", {}) is resolve("own_tasks:MyTask", {})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("jion", "'jion' is unknown; expected one of join, decoder, pkg.mod:Object; did you mean join?"),
        ("own_tasks:MyTsk", "'own_tasks:MyTsk': own_tasks has no 'MyTsk'; did you mean MyTask?"),
        ("own_tasks:MyTask.bst", "'own_tasks:MyTask.bst': own_tasks has no 'MyTask.bst'; did you mean best?"),
        (
            "own_taks:MyTask",
            "'own_taks:MyTask': there is no module 'own_taks', neither installed nor in the current directory; "
            "did you mean own_tasks?",
        ),
        (
            "own_package.taks:MyTask",
            "'own_package.taks:MyTask': there is no module 'own_package.taks', neither installed nor in the current "
            "directory; did you mean tasks?",
        ),
        (
            "own_needy:X",
            "'own_needy:X': module 'own_needy' cannot be imported: ModuleNotFoundError: No module named "
            "'a_package_that_is_not_there' ({folder}/own_needy.py, line 1)",
        ),
        (
            "own_failing:X",
            "'own_failing:X': module 'own_failing' cannot be imported: ZeroDivisionError: division by zero "
            "({folder}/own_failing.py, line 2)",
        ),
        (
            "own_syntax:X",
            "'own_syntax:X': module 'own_syntax' cannot be imported: SyntaxError: '(' was never closed "
            "(own_syntax.py, line 2)",
        ),
        (
            "own_tasks:json.dumps",
            "'own_tasks:json.dumps': own_tasks only imports json; name the object where it is defined, json:dumps",
        ),
        (
            "own_package.tasks:json.decoder.JSONDecoder",
            "'own_package.tasks:json.decoder.JSONDecoder': own_package.tasks only imports json; name the object where it is "
            "defined, json:decoder.JSONDecoder",
        ),
        ("own_tasks:MyTask.__init__", "'own_tasks:MyTask.__init__' reaches behind the object by '__init__'"),
        ("builtins:__import__", "'builtins:__import__' reaches behind the object by '__import__'"),
        *((spec, f"{spec!r} is no name of an object; expected pkg.mod:Object") for spec in (":", "a:", ":b", ".a:b")),
        *((spec, f"{spec!r} is no name of an object; expected pkg.mod:Object") for spec in ("a:b:c", "a b:c", "a:b.")),
    ],
)
def test_what_is_wrong_with_a_name(folder: Path, spec: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve(spec, BUILTINS)
    assert str(caught.value) == message.replace("{folder}", str(folder))


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    code = "import sys, disttrain.registry as r; assert 'decimal' not in sys.modules; r.resolve('decimal:Decimal', {})"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'decimal' in sys.modules"], check=True)
