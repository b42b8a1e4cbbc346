"""Images of any number of bands: arrays, multi-band TIFFs, infrared stored as alpha; a model from data to maps."""

import runpy
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vitrail
from vitrail.cli import main
from vitrail.data.bands import BandImage, to_bytes
from vitrail.data.datasets import open_dataset
from vitrail.data.image_io import ImageDecodeError, open_image
from vitrail.data.transform import EvalTransform
from vitrail.preprocess import Preprocess

TIFF = runpy.run_path(str(Path(__file__).parent / "test_tiff.py"))["tiff"]
BANDS = np.random.default_rng(0).integers(0, 256, (20, 24, 13), dtype=np.uint8)


def planes(content, mode="13 bands"):
    image = open_image(content, mode)
    assert isinstance(image, BandImage) and image.size == (24, 20)
    return np.asarray(image)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_multi_band_tiffs(separate, order):
    assert np.array_equal(planes(TIFF(BANDS, 1, order, separate)), BANDS)
    deep = BANDS.astype(np.uint16) * 257
    assert np.array_equal(planes(TIFF(deep, 1, order, separate)), BANDS)


def test_arrays_of_both_orders(tmp_path):
    for values in (BANDS, BANDS.transpose(2, 0, 1), BANDS / np.float32(255)):
        np.save(tmp_path / "a.npy", values)
        assert np.array_equal(planes(tmp_path / "a.npy"), BANDS)


def test_infrared_stored_as_alpha(tmp_path):
    Image.fromarray(BANDS[..., :4]).save(tmp_path / "a.png")
    assert np.array_equal(planes(tmp_path / "a.png", "4 bands"), BANDS[..., :4])


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (BANDS[..., :5], "has 5 bands; the model takes 13"),
        (BANDS.astype(np.int32), "bands of type int32 with values 0 to 255"),
        (BANDS * 1000.0, "floats in 0..1 or 0..255 are read"),
        (np.zeros((2, 3, 4, 5), np.uint8), "4 axes is no image"),
    ],
)
def test_unsupported_band_files_are_refused(values, reason, tmp_path):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(ImageDecodeError, match=reason):
        open_image(tmp_path / "a.npy", "13 bands")


def test_bands_are_resized_one_by_one():
    transform = EvalTransform(Preprocess(16, 0.8, mean=(0.5,) * 13, std=(0.5,) * 13))
    whole = transform(BandImage(BANDS.transpose(2, 0, 1)))
    one = EvalTransform(Preprocess(16, 0.8, mean=(0.5,), std=(0.5,)))
    for band in (0, 7, 12):
        assert (whole[band] == one(Image.fromarray(BANDS[..., band]))[0]).all()
    assert to_bytes(BANDS) is not None


def fold(root, count=5):
    for number, name in enumerate(("crop", "wood")):
        (root / name).mkdir(parents=True)
        for k in range(6):
            values = np.random.default_rng(10 * number + k).integers(0, 200, (20, 20, count), dtype=np.uint8)
            values[..., 4] += np.uint8(50 * number)
            np.save(root / name / f"{k}.npy", values)
    return root


def test_five_band_images_through_every_verb(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fold(tmp_path / "fields")
    assert main(["data", "check", "fields"]) == 0
    assert "12 images checked" in capsys.readouterr().out
    tiny = ["--set", "in_channels=5", "depth=2", "dim=24", "num_heads=2", "patch_size=8", "--imgsz", "16"]
    words = ["train", "fields", "--model", "vit_tiny_patch16_224", *tiny, "--epochs", "1", "--batch", "4"]
    assert main([*words, "--out", "run"]) == 0 and Path("run/report.html").is_file()
    assert main(["evaluate", "run", "fields", "--split", "val"]) == 0
    results = vitrail.predict("run", "fields")
    assert len(results) == 12 and all(result.error is None for result in results)
    assert main(["explain", "run", "fields/crop/0.npy", "--out", "looks"]) == 0
    [wrong] = vitrail.predict("run", save(tmp_path / "rgb.png"))
    assert "the model takes 5" in wrong.error
    assert main([*words, "--augment", "photo-strong", "--out", "no"]) == 2
    assert "for 1 or 3 channels, not 5 bands" in capsys.readouterr().err


def save(path):
    Image.new("RGB", (20, 20), (200, 0, 0)).save(path)
    return str(path)


def test_arrays_in_an_image_folder_are_ignored(tmp_path):
    root = fold(tmp_path / "d")
    for name in ("crop", "wood"):
        for k in range(3):
            save(root / name / f"{k}.png")
    data = open_dataset(root)
    assert sum(len(part) for _, part in data) == 6 and data.ignored[".npy"] == 12


def test_data_check_tells_how_many_bands_images_have(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "train" / name / f"{number}.tif").write_bytes(TIFF(BANDS + number, 1))
    assert main(["data", "check", str(tmp_path)]) == 0
    assert "all images have 13 bands: train with --set in_channels=13" in capsys.readouterr().out.replace("\n", " ")
    (tmp_path / "train" / "b" / "0.tif").write_bytes(TIFF(BANDS[..., :5], 1))
    Image.new("LA", (24, 20)).save(tmp_path / "train" / "b" / "1.png")
    main(["data", "check", str(tmp_path)])
    told = capsys.readouterr().out
    for part in ("1 of 5 bands", "0.tif", "5 of 13 bands", "1 read as RGB", "one number of them"):
        assert part in told


def test_deflated_strips():
    plain = TIFF(BANDS)
    start = plain.index(BANDS.tobytes())
    packed = zlib.compress(BANDS.tobytes())
    changed = plain[:start] + packed
    changed = changed.replace(len(BANDS.tobytes()).to_bytes(4, "little"), len(packed).to_bytes(4, "little"), 1)
    entry = (259).to_bytes(2, "little") + (3).to_bytes(2, "little") + (1).to_bytes(4, "little")
    at = changed.index(entry) + len(entry)
    assert np.array_equal(planes(changed[:at] + (8).to_bytes(2, "little") + changed[at + 2 :]), BANDS)
