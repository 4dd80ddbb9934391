"""Classification of images: normalisation, and the sets that come with it."""

from __future__ import annotations

import builtins
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from disttrain.data.mnist import load_mnist_like
from disttrain.errors import DataError, InputError
from disttrain.tasks.classification import Classification
from disttrain.tasks.digits import Digits, in_test_set
from disttrain.tasks.image_folder import ImageFolder
from disttrain.tasks.mnist import FashionMnist, Mnist
from disttrain.tasks.synthetic import Synthetic


class Colours(Classification):
    in_shape, num_classes = (2, 3, 3), 4
    mean, std = (0.25, 0.75), (0.5, 0.125)

    def load(self) -> Any:
        raise AssertionError("not needed")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bytes_are_normalised_per_channel(dtype: torch.dtype) -> None:
    images = torch.randint(256, (5, 2, 3, 3), dtype=torch.uint8)
    labels = torch.arange(5)
    x, y = Colours().prepare((images, labels), dtype)
    pixels = images.numpy().astype(np.float64) / 255
    expected = np.stack([(pixels[:, 0] - 0.25) / 0.5, (pixels[:, 1] - 0.75) / 0.125], 1)
    assert x.dtype == dtype
    np.testing.assert_allclose(x.numpy(), expected, atol=2e-6 if dtype == torch.float32 else 1e-14)
    assert torch.equal(y, labels)


def test_floats_are_taken_as_they_are() -> None:
    images = torch.randn(5, 2, 3, 3)
    x, _ = Colours().prepare((images, torch.arange(5)), torch.float64)
    assert torch.equal(x, images.double())


def test_training_after_a_first_batch_in_inference_mode() -> None:
    task, images = Colours(), torch.randint(256, (5, 2, 3, 3), dtype=torch.uint8)
    # A dtype that no other test uses, as what is under test is kept for each.
    with torch.inference_mode():
        task.prepare((images, torch.arange(5)), torch.bfloat16)
    model = nn.Sequential(nn.Flatten(), nn.Linear(18, 4)).bfloat16()
    losses = task.losses(model, task.prepare((images, torch.arange(5) % 4), torch.bfloat16))
    losses.sum().backward()
    assert losses.shape == (5,)
    assert losses.dtype == torch.float32


def test_label_smoothing_is_for_training_only() -> None:
    batch = torch.randn(6, 2, 3, 3), torch.arange(6) % 4
    model = nn.Sequential(nn.Flatten(), nn.Linear(18, 4))
    plain, smooth = Colours(), Colours(label_smoothing=0.2)
    expected = nn.functional.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.2)
    torch.testing.assert_close(smooth.losses(model, batch).mean(), expected)
    assert not torch.allclose(smooth.losses(model, batch), plain.losses(model, batch))
    assert smooth.evaluate(model, batch)["loss"] == plain.evaluate(model, batch)["loss"]


def test_digits() -> None:
    sklearn = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn, an optional dependency")
    task = Digits()
    train, test = task.train_dataset(), task.test_dataset()
    assert train is task.train_dataset()
    assert (task.sizes().train, task.sizes().test) == (len(train), len(test)) == (1437, 360)
    (x, y), (xt, yt) = train.tensors, test.tensors
    assert x.shape[1:] == task.in_shape
    assert (x.min(), x.max()) == (0, 1)
    pixels, labels = sklearn.load_digits(return_X_y=True)
    both = torch.cat([x, xt]).flatten(1).numpy() * 16
    order = np.lexsort([*both.T, torch.cat([y, yt]).numpy()])
    np.testing.assert_array_equal(both[order], pixels[np.lexsort([*pixels.T, labels])])
    for digit in range(10):
        assert abs(int((yt == digit).sum()) - int((labels == digit).sum()) * 360 / 1797) < 1
    # Pinned: the split must not change from one version to another.
    assert hashlib.sha256(yt.numpy().tobytes() + xt.numpy().tobytes()).hexdigest()[:16] == DIGITS_TEST_SET


DIGITS_TEST_SET = "fa48c245513d2cee"


@pytest.mark.parametrize("size", [0, 1, 50, 99, 100])
def test_the_test_set_has_its_share_of_every_label(size: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [10, 30, 60]))
    chosen = in_test_set(labels, size).numpy()
    assert chosen.sum() == size
    for label, count in enumerate((10, 30, 60)):
        assert abs(int(chosen[labels == label].sum()) - count * size / 100) < 1


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("sklearn"):
            raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert Digits().sizes().train == 1437
    with pytest.raises(InputError, match=r"pip install 'disttrain\[quickstart\]'"):
        Digits().train_dataset()


def test_fashion_mnist(data_root: Path) -> None:
    task = FashionMnist(str(data_root / "fashion-mnist"))
    assert (task.sizes().train, task.sizes().test) == (60_000, 10_000)
    assert "_datasets" not in vars(task)  # sizes come from headers alone
    images = task.train_dataset().tensors[0]
    pixels = images.double() / 255
    assert task.mean[0] == pytest.approx(pixels.mean().item(), abs=5e-5)
    assert task.std[0] == pytest.approx(pixels.std().item(), abs=5e-5)
    x, _ = task.prepare((images, task.train_dataset().tensors[1]), torch.float32)
    assert x.mean().item() == pytest.approx(0, abs=1e-3)
    assert x.std().item() == pytest.approx(1, abs=1e-3)
    assert task.model_hints() == {"in_shape": (1, 28, 28), "num_classes": 10}
    assert len(task.fingerprint()) == 16


def test_fashion_mnist_is_found_below_the_data_folder(data_root: Path) -> None:
    assert os.environ["DISTTRAIN_DATA"]
    assert FashionMnist().sizes().test == 10_000


def test_where_the_files_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("DISTTRAIN_DATA", "somewhere")
        assert Mnist().root == Path("somewhere/mnist")
        assert FashionMnist().root == Path("somewhere/fashion-mnist")
        assert Mnist("here").root == Path("here")
        for unset in (lambda: patch.delenv("DISTTRAIN_DATA"), lambda: patch.setenv("DISTTRAIN_DATA", "")):
            unset()
            assert Mnist().root == Path("data/mnist")


def test_files_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="disttrain data fetch"):
        Mnist(str(tmp_path)).sizes()


def write_mnist(folder: Path, images: np.ndarray, labels: np.ndarray) -> str:
    """The four IDX files, both splits alike."""
    folder.mkdir()
    for split in ("train", "t10k"):
        head = b"\0\0\x08\x03" + np.array(images.shape, ">i4").tobytes()
        (folder / f"{split}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        head = b"\0\0\x08\x01" + np.array(labels.shape, ">i4").tobytes()
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())
    return str(folder)


def test_augmentation(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(1, 256, (9, 28, 28), dtype=np.uint8), np.arange(9, dtype=np.uint8)
    root = write_mnist(tmp_path / "a", images, labels)
    ids = np.arange(9)
    plain = Mnist(root, {"shift": 0, "flip": False}, seed=1).train_dataset()
    flipped = Mnist(root, {"shift": 0, "flip": True}, seed=1)
    both = Mnist(root, {"shift": 2, "flip": True}, seed=1)
    original = plain.gather(ids, 0)[0]
    assert torch.equal(original, load_mnist_like(root)[0].tensors[0])
    x = flipped.train_dataset().gather(ids, 0)[0]
    mirrored = [i for i in ids if torch.equal(x[i], original[i].flip(-1))]
    assert 0 < len(mirrored) < 9
    assert all(torch.equal(x[i], original[i]) for i in ids if i not in mirrored)
    assert (both.train_dataset().gather(ids, 0)[0] == 0).any()  # the rim that is shifted in
    assert torch.equal(both.test_dataset().gather(ids, 0)[0], original)
    other = Mnist(write_mnist(tmp_path / "b", images[::-1].copy(), labels), {"shift": 2, "flip": True}, seed=1)
    assert other.fingerprint() != both.fingerprint() == Mnist(root, {"shift": 2, "flip": True}, seed=1).fingerprint()
    with pytest.raises(TypeError, match="flipped"):
        Mnist(root, {"flipped": True})


def test_image_folder(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow, an optional dependency")
    for split, count in (("train", 3), ("val", 2)):
        for name in ("ant", "bee"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                image.new("RGB", (20, 30), (i, 2 * i, 3 * i)).save(tmp_path / split / name / f"{i}.png")
    task = ImageFolder(str(tmp_path), image_size=16, seed=3)
    assert task.model_hints() == {"in_shape": (3, 16, 16), "num_classes": 2}
    assert (task.sizes().train, task.sizes().test) == (6, 4)
    sample, label = task.train_dataset().sample(4, 0)
    x, y = task.prepare((sample[None], torch.tensor([label])), torch.float32)
    pixels = np.array([1, 2, 3]) / 255
    expected = (pixels - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(x[0, :, 8, 8].numpy(), expected, rtol=1e-5)
    assert y.tolist() == [1]


def test_synthetic_samples_are_functions_of_their_id() -> None:
    task = Synthetic((2, 4, 4), classes=10, train_samples=1000, test_samples=300)
    assert (task.sizes().train, task.sizes().test) == (1000, 300)
    assert "_datasets" not in vars(task)
    train, test = task.train_dataset(), task.test_dataset()
    assert (len(train), len(test)) == (1000, 300)
    ids = np.array([5, 999, 5, 0])
    x, y = train.gather(ids, 0)
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((4, 2, 4, 4), torch.float32, (4,), torch.int64)
    again = Synthetic((2, 4, 4), classes=10, train_samples=2000).train_dataset().gather(ids[:2], 3)
    assert torch.equal(x[:2], again[0])
    assert torch.equal(x[0], x[2])
    assert not torch.equal(x, test.gather(np.array([5, 299, 5, 0]), 0)[0])
    x, y = train.gather(np.arange(1000), 0)
    assert set(y.tolist()) == set(range(10))
    assert torch.corrcoef(torch.stack([x.mean((1, 2, 3)), y.float()]))[0, 1] > 0.9
    assert task.fingerprint() != Synthetic((2, 4, 4), classes=10, train_samples=1001, test_samples=300).fingerprint()


@pytest.mark.parametrize(("shape", "model"), [((3, 8, 8), "resnet50"), ((1, 8, 8), "mlp"), ((64,), "mlp")])
def test_default_model_of_synthetic(shape: tuple[int, ...], model: str) -> None:
    task = Synthetic(shape, classes=1000)
    assert task.default_model[0] == model
    assert task.train_dataset().gather(np.arange(2), 0)[0].shape == (2, *shape)
