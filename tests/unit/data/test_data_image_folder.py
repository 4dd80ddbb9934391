"""Images in folders (rows 40, 47 and 54 for this format, and corrupt images)."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from data_cases import unprivileged

from disttrain.data.decode import decode
from disttrain.data.image_folder import ImageFolder, _random_box, load_image_folder
from disttrain.data.loader import Loader
from disttrain.data.order import Sequential
from disttrain.data.randomness import uniform
from disttrain.errors import DataError, InputError

Image = pytest.importorskip("PIL.Image", reason="needs Pillow, an optional dependency")


def picture(seed: int, height: int = 20, width: int = 30) -> np.ndarray:
    """A smooth random picture, so that JPEG does not change it much."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, count in (("train", 3), ("val", 2)):
        for label, name in enumerate(("cat", "ant", "Bee")):
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(picture(10 * label + i)).save(folder / f"{i}.{'PNG' if i else 'jpeg'}")
    return tmp_path / "set"


def refused(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_image_folder(root, size=8)
    return str(caught.value)


def test_layout(root: Path) -> None:
    train, test = load_image_folder(root, size=8)
    assert train.classes == test.classes == ["Bee", "ant", "cat"]
    assert (len(train), len(test)) == (9, 6)
    assert train.files[:3] == ["Bee/0.jpeg", "Bee/1.PNG", "Bee/2.PNG"]
    assert [train[i][1] for i in range(9)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    image, _ = train.sample(0, 0)
    assert (image.shape, image.dtype) == ((3, 8, 8), torch.uint8)
    (root / "val").rename(root / "test")
    assert len(load_image_folder(root, size=8)[1]) == 6


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (9, 64)])
def test_testing_resizes_and_cuts_out_the_centre(root: Path, shape: tuple[int, int]) -> None:
    """Against Pillow's own antialiased resizing."""
    height, width = shape
    pixels = picture(1, height, width)
    Image.fromarray(pixels).save(root / "val" / "Bee" / "1.PNG")
    found = ImageFolder(root / "val", size=7).sample(1, 0)[0]
    scale = 8 / min(shape)
    new = (round(width * scale), round(height * scale))
    resized = np.array(Image.fromarray(pixels).resize(new, Image.Resampling.BILINEAR)).astype(int)
    top, left = (new[1] - 7) // 2, (new[0] - 7) // 2
    wanted = resized[top : top + 7, left : left + 7].transpose(2, 0, 1)
    assert np.abs(found.numpy().astype(int) - wanted).max() <= 1


def test_augmentation_depends_on_seed_epoch_and_id_only(root: Path) -> None:
    folder = root / "train"
    dataset = ImageFolder(folder, size=8, augment=True, seed=1)
    first = dataset.sample(4, 2)[0]
    assert torch.equal(ImageFolder(folder, size=8, augment=True, seed=1).sample(4, 2)[0], first)
    assert not torch.equal(dataset.sample(4, 3)[0], first)
    assert not torch.equal(ImageFolder(folder, size=8, augment=True, seed=2).sample(4, 2)[0], first)
    plain = ImageFolder(folder, size=8)
    assert torch.equal(plain.sample(4, 2)[0], plain.sample(4, 3)[0])


def test_crops_lie_within_the_image_and_keep_area_and_ratio() -> None:
    areas = []
    for i, u in enumerate(uniform(0, 0, np.arange(3000), stream="t", draws=23)):
        height, width = (200, 300) if i % 2 else (240, 200)
        top, left, h, w = _random_box(height, width, u)
        assert 0 <= top <= top + h <= height
        assert 0 <= left <= left + w <= width
        assert 0.07 < h * w / (height * width) <= 1.0
        assert 0.74 < w / h < 1.35
        areas.append(h * w / (height * width))
    assert min(areas) < 0.1
    assert max(areas) > 0.9


@pytest.mark.parametrize(("height", "width"), [(10, 1000), (1000, 10), (1, 1)])
def test_crops_of_extreme_images(height: int, width: int) -> None:
    for u in uniform(0, 0, np.arange(300), stream="t", draws=23):
        top, left, h, w = _random_box(height, width, u)
        assert 0 <= top < top + h <= height
        assert 0 <= left < left + w <= width


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture(0)).convert(mode).save(path)
    image = decode(path)
    assert (image.shape, image.dtype) == ((3, 20, 30), torch.uint8)
    if mode == "L":
        assert torch.equal(image[0], image[2])


def test_sixteen_bits_a_channel_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.full((4, 4), 1000, np.uint16)).save(path)
    with pytest.raises(DataError, match="expected 8 bits a channel"):
        decode(path)


def test_pixels_are_right(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture(0)).save(path)
    assert np.array_equal(decode(path).numpy(), picture(0).transpose(2, 0, 1))


def test_a_cut_off_image_is_refused_and_named(tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.fromarray(picture(0)).save(whole, "PNG")
    path = tmp_path / "a.png"
    # What ends a PNG file, after its last chunk of pixels: checksums of 4 and 4 bytes and an empty chunk of 12.
    for length in range(0, len(whole.getvalue()) - 20, 7):
        path.write_bytes(whole.getvalue()[:length])
        with pytest.raises(DataError, match=r"a\.png: cannot be decoded as an image"):
            decode(path)


def test_a_corrupt_image_names_its_file_and_index(root: Path) -> None:
    (root / "train" / "ant" / "1.PNG").write_bytes(b"not an image")
    train, _ = load_image_folder(root, size=8)
    loader = Loader(train, Sequential(9), rank=0, size=1, batch_size=9, stop_samples=9)
    with pytest.raises(DataError, match=r"sample 4: .*ant/1\.PNG: cannot be decoded as an image"):
        list(loader)


def test_an_image_that_claims_an_absurd_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture(0)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(DataError, match="DecompressionBomb"):
        decode(path)


def test_row_40_missing_folders(root: Path, tmp_path: Path) -> None:
    assert "no such folder; expected root/train/<class>/<images>" in refused(tmp_path / "none")
    (root / "val").rename(root / "valid")
    assert "holds neither val nor test" in refused(root)
    (root / "train").rename(root / "training")
    assert f"{root / 'train'}: no such folder" in refused(root)


def test_row_47_nothing_in_a_folder(root: Path) -> None:
    (root / "train" / "dog").mkdir()
    assert f"{root / 'train' / 'dog'}: holds no image" in refused(root)
    (root / "empty" / "train").mkdir(parents=True)
    assert "holds no class folder" in refused(root / "empty")


def test_classes_must_agree(root: Path) -> None:
    (root / "val" / "ant").rename(root / "val" / "ape")
    message = refused(root)
    assert "1 only in train ['ant'], 1 only in val ['ape']" in message


def test_nothing_is_left_out_unseen(root: Path) -> None:
    (root / "train" / ".hidden").write_text("")
    (root / "train" / "ant" / ".hidden").write_text("")
    (root / "train" / "labels.txt").write_text("")
    assert len(load_image_folder(root, size=8)[0]) == 9
    (root / "train" / "ant" / "notes.txt").write_text("")
    assert "notes.txt: is not an image" in refused(root)
    (root / "train" / "ant" / "notes.txt").unlink()
    (root / "train" / "ant" / "more").mkdir()
    assert "more: is no file" in refused(root)


def test_row_54_link_loops_and_links_to_nothing(root: Path) -> None:
    loop = root / "train" / "ant" / "loop.png"
    loop.symlink_to("loop.png")
    assert "loop.png" in refused(root)
    loop.unlink()
    loop = root / "train" / "zebra"
    loop.symlink_to("zebra")
    assert str(root / "train") in refused(root)
    loop.unlink()
    loop.symlink_to("nowhere")
    assert "zebra: is neither a folder nor a file, or a link to nothing" in refused(root)


def test_row_54_no_permission(root: Path) -> None:
    for folder in (root, *root.parents[:3]):
        os.chmod(folder, 0o755)
    os.chmod(root / "train" / "ant", 0)
    with unprivileged():
        assert "Permission denied" in refused(root)
    os.chmod(root / "train" / "ant", 0o755)
    os.chmod(root / "train" / "ant" / "1.PNG", 0)
    with unprivileged(), pytest.raises(DataError, match=r"1\.PNG: Permission denied"):
        load_image_folder(root, size=8)[0].sample(4, 0)


def test_fingerprint_is_of_paths_and_sizes(root: Path) -> None:
    base = load_image_folder(root, size=8)[0].fingerprint()
    assert load_image_folder(root, size=9)[0].fingerprint() == base
    file = root / "train" / "ant" / "1.PNG"
    file.write_bytes(file.read_bytes() + b"\0")
    grown = load_image_folder(root, size=8)[0].fingerprint()
    file.rename(file.with_name("9.PNG"))
    assert len({base, grown, load_image_folder(root, size=8)[0].fingerprint()}) == 3


def test_size_out_of_range(root: Path) -> None:
    with pytest.raises(InputError, match="size is 0"):
        load_image_folder(root, size=0)


def test_neither_decoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from disttrain.data import decode as module

    module._decoder.cache_clear()
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="need Pillow or torchvision"):
        decode(tmp_path / "a.png")
    module._decoder.cache_clear()


def test_torchvision_gives_the_same_pixels(tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="torchvision is an optional dependency")
    from disttrain.data.decode import _by_pillow, _by_torchvision

    for mode in ("RGB", "L", "RGBA"):
        whole = io.BytesIO()
        Image.fromarray(picture(0)).convert(mode).save(whole, "PNG")
        assert torch.equal(_by_torchvision(whole.getvalue()), _by_pillow(whole.getvalue()))
