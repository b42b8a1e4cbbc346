"""Files are read and written with all they hold: 16 bits, alpha, colour profile, metadata."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from vitrail.data.image_io import ImageDecodeError
from vitrail.data.png_file import png_bytes
from vitrail.data.stored_image import StoredImage, read_stored

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()  # type: ignore[arg-type]


def exif() -> bytes:
    block = Image.Exif()
    block[0x0112], block[0x010F] = 6, "Camera"
    return block.tobytes()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("transparent", [False, True])
def test_a_written_file_is_read_back_whole(tmp_path: Path, kind: type, channels: int, transparent: bool) -> None:
    draw = np.random.default_rng(0)
    top = np.iinfo(kind).max + 1
    pixels = draw.integers(0, top, (300, 7, channels)).astype(kind)
    alpha = draw.integers(0, top, (300, 7)).astype(kind) if transparent else None
    given = StoredImage(pixels, alpha, PROFILE, exif(), (300.0, 300.0), {"Author": "Zoë"})
    (tmp_path / "x.png").write_bytes(png_bytes(given))
    found = read_stored(tmp_path / "x.png")
    if (kind, channels, transparent) == (np.uint16, 1, True):
        assert found.notes == ("16-bit grey with alpha is read as 8 bits",)  # not in silence
        return
    assert found.pixels.dtype == kind and np.array_equal(found.pixels, pixels)
    assert np.array_equal(found.alpha, alpha) if transparent else found.alpha is None
    assert found.profile == PROFILE and found.text == {"Author": "Zoë"} and not found.notes
    assert found.dpi == pytest.approx((300, 300), abs=0.1)
    assert found.exif is not None and b"Camera" in found.exif


def test_pillow_reads_what_is_written(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    (tmp_path / "x.png").write_bytes(png_bytes(StoredImage(pixels, profile=PROFILE)))
    with Image.open(tmp_path / "x.png") as image:
        assert np.array_equal(np.asarray(image), pixels) and image.info["icc_profile"] == PROFILE


def test_sixteen_bit_tiff_keeps_its_low_bytes(tmp_path: Path) -> None:
    values = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100 + 7
    Image.fromarray(values).save(tmp_path / "x.tif")
    assert np.array_equal(read_stored(tmp_path / "x.tif").pixels[..., 0], values)


def test_palette_with_transparency_and_cmyk(tmp_path: Path) -> None:
    Image.new("P", (4, 3), 0).save(tmp_path / "p.png", transparency=0)
    assert (read_stored(tmp_path / "p.png").alpha == 0).all()
    Image.new("CMYK", (8, 8), (10, 20, 30, 40)).save(tmp_path / "c.jpg", icc_profile=PROFILE)
    found = read_stored(tmp_path / "c.jpg")
    assert found.pixels.shape == (8, 8, 3) and found.profile is None and len(found.notes) == 2


def test_floats_are_refused_with_the_reason(tmp_path: Path) -> None:
    Image.fromarray(np.ones((3, 3), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(ImageDecodeError, match="range is unknown"):
        read_stored(tmp_path / "f.tif")
