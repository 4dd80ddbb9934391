"""Images without classes: all of a folder, in the order of their paths, cut as test images are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from disttrain.data.image_files import ImageFiles
from disttrain.data.image_folder import ImageFolder
from disttrain.errors import DataError

Image = pytest.importorskip("PIL.Image", reason="needs Pillow, an optional dependency")


def test_files_are_seen_as_the_test_set_sees_them(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    (tmp_path / "b").mkdir()
    (tmp_path / "notes.txt").write_text("no image")
    for name in ("b/2.png", "b/1.png"):
        Image.fromarray(generator.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / name)
    by_class = ImageFolder(tmp_path, size=16)
    found = ImageFiles(tmp_path, by_class.change)
    assert found.names == ["b/1.png", "b/2.png"]
    assert all(torch.equal(found.sample(i, 0)[0], by_class.sample(i, 0)[0]) for i in range(2))
    alone = ImageFiles(tmp_path / "b/2.png", by_class.change)
    assert (len(alone), alone.names) == (1, ["2.png"])
    assert torch.equal(alone.sample(0, 0)[0], found.sample(1, 0)[0])
    with pytest.raises(DataError, match="there is no image"):
        ImageFiles(tmp_path / "notes.txt", by_class.change)
