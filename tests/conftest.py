"""Fixtures shared by all tests: where the real data is, and a guard against leaked process groups and variables."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run, so that a change passes or fails by its own merits; --hypothesis-profile=explore looks
# for new ones. No deadline: other processes may hold the cores.
settings.register_profile("explore", deadline=None, max_examples=500)
settings.register_profile("fixed", deadline=None, derandomize=True)
settings.load_profile("fixed")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder that holds ``fashion-mnist/`` and ``tinyshakespeare/``; named by ``DISTTRAIN_DATA``."""
    root = os.environ.get("DISTTRAIN_DATA")
    if not root:
        pytest.fail("set DISTTRAIN_DATA to the folder that holds fashion-mnist/ and tinyshakespeare/")
    path = Path(root).resolve()
    if not (path / "fashion-mnist").is_dir():
        pytest.fail(f"DISTTRAIN_DATA={root} holds no fashion-mnist/")
    return path


@pytest.fixture(autouse=True)
def _no_leaks() -> Iterator[None]:
    """Fail a test that leaves the environment changed."""
    ours = _ours()
    yield
    now = _ours()
    changed = sorted(k for k in ours.keys() | now.keys() if ours.get(k) != now.get(k))
    for name in changed:
        if name in ours:
            os.environ[name] = ours[name]
        else:
            del os.environ[name]
    assert not changed, f"the test changed environment variables: {changed}"


def _ours() -> dict[str, str]:
    """The environment but for what pytest, torch's compiler and scikit-learn write into it on their own."""
    own = (
        "PYTEST_CURRENT_TEST",
        "TORCHINDUCTOR_CACHE_DIR",
        "TRITON_CACHE_DIR",
        "KMP_DUPLICATE_LIB_OK",
        "KMP_INIT_AT_FORK",
    )
    return {k: v for k, v in os.environ.items() if k not in own}
