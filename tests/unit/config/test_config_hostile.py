"""Recipes made to do harm: nothing is executed, and time and memory stay small."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from config_cases import GOOD, mistakes

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
HOSTILE = {
    "python object": ("x: !!python/object/apply:os.system ['touch MARKER']\n", "recipes hold plain values only"),
    "python name": ("name: !!python/name:os.system\n", "recipes hold plain values only"),
    "new object": ("!!python/object/new:subprocess.Popen [[touch, MARKER]]\n", "recipes hold plain values only"),
    "tag directive": (
        "%TAG ! tag:yaml.org,2002:python/object/apply:\n---\nx: !os.system ['touch MARKER']\n",
        "recipes hold plain values only",
    ),
    "alias bomb": (BOMB, "recipes have no references"),
    "an alias to itself": ("x: &x [*x]\n", "recipes have no references"),
    "200 000 aliases": ("x: [&a 1" + ", *a" * 200_000 + "]\n", "more than 50,000 keys and values"),
    "10 000 lists": ("x: " + "[" * 10_000, "nested deeper than 32 levels"),
    "10 000 mappings": ("x: " + "{a: " * 10_000, "nested deeper than 32 levels"),
    "10 000 sections": ("".join(" " * i + "a:\n" for i in range(1_400)), "nested deeper than 32 levels"),
    "10 000 dashes": ("x:\n  " + "- " * 10_000, "nested deeper than 32 levels"),
    "80 000 unknown keys": ("".join(f"k{i}: 1\n" for i in range(80_000)), "more than 50,000 keys and values"),
    "10 000 unknown keys": (GOOD + "".join(f"k{i}: 1\n" for i in range(10_000)), "unknown key"),
    "a key of a megabyte": ("? " + "k" * 1_000_000 + "\n: 1\n", "is required"),
    "a number of a megabyte": (GOOD + "seed: " + "9" * 1_000_000 + "\n", "it does not fit into 64 bits"),
    "text of a megabyte": (GOOD + "precision: " + "x" * 1_000_000 + "\n", "expected fp64"),
    "5 MB": ("# " + "x" * 5_000_000 + "\n", "is larger than 1,048,576 bytes"),
    "5 MB of brackets": ("[" * 5_000_000, "is larger than 1,048,576 bytes"),
}
PROGRAM = """
import sys
from pathlib import Path
from disttrain.config import RecipeError, load_recipe
try:
    load_recipe(Path(sys.argv[1]))
except RecipeError as error:
    print(error)
    raise SystemExit(2)
"""


def _small() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
    resource.setrlimit(resource.RLIMIT_CPU, (10, 10))


@pytest.mark.parametrize(("text", "expected"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_recipe_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    path, marker = tmp_path / "r.yaml", tmp_path / "MARKER"
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)],
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=_small,
        check=False,
    )
    assert done.returncode == 2, done.stderr[-2000:]
    assert done.stderr == ""
    assert expected in done.stdout
    assert len(done.stdout) < 50_000
    assert not marker.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.yaml"]


def test_messages_do_not_steer_the_terminal(tmp_path: Path) -> None:
    text = GOOD + '"\\e[31mkey": 1\nprecision: "\\e]0;title\\a\\u202E\\u009B"\nseed: !<!\\x1b> "\\e[2J"\n'
    for line in mistakes(tmp_path, text):
        assert line.isprintable(), line
    text = GOOD + '"\\e[31mkey": "\\e[2J"\ntask: "\\e"\nmodel: {"name": "a\\e:b"}\nlog: {"\\eevery": 1}\n'
    found = mistakes(tmp_path, text, ["\x1b=1", "name=\x1b", "a.\x1bb=1"])
    assert len(found) >= 5
    for line in found:
        assert line.isprintable(), line
