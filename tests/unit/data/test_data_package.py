"""What the package as a whole promises: light imports, and no format that can run code (rows 49, 50 and 52)."""

from __future__ import annotations

import ast
import io
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import disttrain.data
from disttrain.data.idx import read_idx
from disttrain.data.mnist import load_mnist_like
from disttrain.errors import DataError

PACKAGE = Path(disttrain.data.__file__).parent


def test_checks_and_plans_need_no_torch() -> None:
    modules = ["disttrain.data"] + [
        f"disttrain.data.{name}" for name in ("order", "shares", "position", "idx", "mnist", "fetch", "randomness")
    ]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parents[1], check=False).returncode == 0


def test_the_public_names() -> None:
    for name in disttrain.data.__all__:
        assert getattr(disttrain.data, name) is not None
    assert callable(disttrain.data.loader)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = disttrain.data.nothing


def test_rows_49_50_and_52_no_archive_is_unpacked_and_nothing_is_unpickled() -> None:
    """The package has no code for either, so links, ``../`` names and pickled code have nothing to act on."""
    forbidden = {"pickle", "cloudpickle", "marshal", "shelve", "dill", "tarfile", "zipfile", "shutil"}
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & forbidden, path
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in forbidden, path
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in ("torch.load", "np.load", "numpy.load"), path


def archive(kind: str) -> bytes:
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w") as file:
            file.writestr("../outside", "x")
    else:
        with tarfile.open(fileobj=out, mode="w:gz" if kind == "tar.gz" else "w") as file:
            file.addfile(tarfile.TarInfo("../outside"))
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            file.addfile(link)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_rows_49_and_50_an_archive_instead_of_data(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "set"
    root.mkdir()
    (root / "train-images-idx3-ubyte").write_bytes(archive(kind))
    (root / "train-labels-idx1-ubyte").write_bytes(archive(kind))
    with pytest.raises(DataError, match="train-images-idx3-ubyte: begins with"):
        load_mnist_like(root)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "set",
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
    ]


class Payload:
    """Creates a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_row_52_a_pickled_batch_instead_of_data(tmp_path: Path) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps(Payload(tmp_path / "marker")))
    with pytest.raises(DataError, match="data_batch_1: begins with 80 04"):
        read_idx(path)
    assert not (tmp_path / "marker").exists()
