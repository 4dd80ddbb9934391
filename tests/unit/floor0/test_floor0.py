"""``optim``, ``schedules``, ``nn`` and ``grads``: usable alone, documented, and with examples that run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

PACKAGES = ("optim", "schedules", "nn", "grads")
MODULES = [
    module.name
    for package in PACKAGES
    for module in pkgutil.iter_modules(
        importlib.import_module(f"disttrain.{package}").__path__, f"disttrain.{package}."
    )
]


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module)).failed == 0


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_a_docstring(package: str) -> None:
    module = importlib.import_module(f"disttrain.{package}")
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert (thing.__doc__ or "").strip(), name
        if inspect.isclass(thing):
            methods = [m for n, m in vars(thing).items() if inspect.isfunction(m) and not n.startswith("_")]
            assert all(inspect.getdoc(m) or inspect.getdoc(getattr(thing, m.__name__)) for m in methods), name


@pytest.mark.parametrize("package", PACKAGES)
def test_import_needs_torch_and_nothing_else(package: str) -> None:
    code = (
        f"import sys, torch; before = set(sys.modules); import disttrain.{package}\n"
        "new = {m for m in set(sys.modules) - before if not m.startswith('torch')}\n"
        f"ours = {{'disttrain', 'disttrain.version', 'disttrain.errors', 'disttrain.names', 'disttrain.{package}'}}\n"
        f"odd = {{m for m in new if m.startswith('disttrain') and m not in ours and not m.startswith('disttrain.{package}.')}}\n"
        "assert not odd, odd\n"
        "assert not {'horovod', 'mpi4py', 'pydantic', 'yaml', 'scipy', 'sympy.core'} & new, new\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_schedules_do_not_even_need_torch() -> None:
    code = "import sys, disttrain.schedules; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
