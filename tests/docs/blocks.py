"""The code blocks of a page, and how they are run: a page is one program, its blocks run in order in one directory."""

from __future__ import annotations

import copy
import os
import re
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from disttrain.config import load_recipe
from tests.harness import ROOT, environment, warm, where

PATIENCE = 240.0
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w+)(?P<rest>[^\n]*)\n(?P<code>.*?)^(?P=indent)```$", re.M | re.S)
TITLE = re.compile(r'title="([^"]*)"')
RUNNABLE = ("python", "yaml", "bash")
NOT_RUN = ("needs a cluster", "needs a new machine")
EXCERPT = "excerpt"


@dataclass(frozen=True)
class Block:
    """A fenced block: ``title`` names a file to write, or is ``excerpt`` or one of ``NOT_RUN``."""

    language: str
    title: str
    code: str
    line: int


def blocks(text: str) -> Iterator[Block]:
    for found in FENCE.finditer(text):
        title = TITLE.search(found["rest"])
        line = text.count("\n", 0, found.start()) + 1
        yield Block(found["language"], title[1] if title else "", textwrap.dedent(found["code"]), line)


def run(block: Block, directory: Path, page: str) -> None:
    """Do what the block says a reader does."""
    about = f"{page}:{block.line}"
    if block.title in NOT_RUN or block.language not in RUNNABLE:
        return
    if block.title == EXCERPT:
        check_excerpt(block.code, directory, about)
        return
    if block.title:
        target = directory / block.title
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(block.code)
    if block.language == "yaml":
        check_recipe(block.code, directory, about)
    elif block.language == "bash":
        execute(["bash", "-euo", "pipefail", "-c", block.code], directory, about)
    elif not block.title:
        program = directory / f"block_{block.line}.py"
        program.write_text(block.code)
        execute([*warm(), program.name], directory, about)


def check_recipe(text: str, directory: Path, about: str) -> None:
    recipe = directory / "checked.yaml"
    recipe.write_text(text)
    try:
        load_recipe(recipe)
    except Exception as error:
        pytest.fail(f"{about}: {error}")
    recipe.unlink()


def check_excerpt(text: str, directory: Path, about: str) -> None:
    """A part of a recipe: right if a small recipe is still one with that part laid over it."""
    whole: dict[str, Any] = {
        "task": {"name": "digits"},
        "batch": {"global": 64},
        "epochs": 100,
        "optimizer": {"name": "sgd", "lr": 0.1},
    }
    part = yaml.safe_load(text)
    assert isinstance(part, dict), f"{about}: an excerpt of a recipe is a mapping"
    units = {"epochs", "samples", "updates"}
    if units & part.keys():
        del whole["epochs"]
    check_recipe(yaml.safe_dump(laid_over(whole, part)), directory, about)


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    found = copy.deepcopy(dict(below))
    for key, value in above.items():
        inner = found.get(key)
        same = isinstance(inner, dict) and isinstance(value, dict) and ("name" not in value or value == inner)
        if key == "optimizer" and isinstance(value, dict):
            found[key] = {"lr": 0.1, **({} if "name" in value else dict(inner or {})), **value}
        elif key == "batch" and isinstance(value, dict):
            found[key] = value if {"global", "per_rank"} & value.keys() else {**dict(inner or {}), **value}
        else:
            found[key] = laid_over(inner or {}, value) if same else value
    return found


def execute(command: list[str], directory: Path, about: str) -> None:
    commands = tools(directory)
    found_first = {
        "PATH": f"{commands}{os.pathsep}{environment()['PATH']}",
        "DISTTRAIN_TEST_PYTHON": str(commands / "python"),
    }
    done = subprocess.run(
        command,
        cwd=directory,
        env=environment(found_first),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, f"{about}: exit code {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}"


def tools(directory: Path) -> Path:
    """Commands of the names that readers type, which fork from the warm process: a page starts dozens of them."""
    folder = directory / ".commands"
    if folder.is_dir():
        return folder
    folder.mkdir()
    (directory / "examples").symlink_to(ROOT / "examples")  # readers start in the repository
    python = " ".join(warm())
    scripts = {
        "python": f'case "$1" in -m | *.py) exec {python} "$@" ;; esac; exec {sys.executable} "$@"',
        "disttrain": f'exec {python} -m disttrain "$@"',
        "torchrun": (
            'size=1; while [ $# -gt 0 ]; do case "$1" in --nproc[-_]per[-_]node=*) size="${1#*=}" ;; --standalone) ;; '
            f'*) break ;; esac; shift; done; exec {" ".join(warm()[:-1])} "$size" "$@"'
        ),
        "horovodrun": f'exec {python} {where("horovodrun")} --gloo "$@"',
        "mpirun": f'exec {where("mpirun")} --oversubscribe --bind-to none "$@"',
    }
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(stat.S_IRWXU)
    return folder


def pages() -> list[Path]:
    """README and every page of the site."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
