"""Keeping back what exporters log about themselves."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """No log lines below errors and no notices of deprecation or of names while this is entered: torch and torchao report each
    package that is not installed, each library that is built for another machine, and their own calls that will go."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.filterwarnings("ignore", "# The axis name")  # torch.onnx, of two inputs of as many samples
            yield
    finally:
        logging.disable(before)
