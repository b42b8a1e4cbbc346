"""TIFFs that Pillow scrambles, calls broken or does not know: read with a stated meaning, or refused with a reason."""

from struct import pack

import numpy as np
import pytest
from PIL import Image

from vitrail.cli import main
from vitrail.data.image_io import ImageDecodeError, open_image
from vitrail.data.mask_io import open_mask
from vitrail.data.stored_image import read_stored

RAW = np.arange(6 * 4, dtype=np.uint32).reshape(4, 6)


def tiff(
    pixels: np.ndarray,
    photometric: int = 1,
    order: str = "<",
    separate: bool = False,
    compression: int = 1,
    extra: int | None = None,
) -> bytes:
    """Write an uncompressed TIFF: pixels `(Y, X)` or `(Y, X, C)` of any type."""
    values = pixels.reshape(*pixels.shape[:2], -1)
    height, width, channels = values.shape
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    stored = values.astype(values.dtype.newbyteorder(order))
    strips = [stored[..., k].tobytes() for k in range(channels)] if separate else [stored.tobytes()]
    tags = {256: (4, [width]), 257: (4, [height]), 258: (3, [8 * values.itemsize] * channels), 259: (3, [compression])}
    tags |= {262: (3, [photometric]), 273: (4, [0] * len(strips)), 277: (3, [channels]), 278: (4, [height])}
    tags |= {279: (4, [len(s) for s in strips]), 284: (3, [2 if separate else 1]), 339: (3, [kind] * channels)}
    tags |= {} if extra is None else {338: (3, [extra])}
    end = 8 + 2 + 12 * len(tags) + 4
    outside = b""
    offsets = []
    data_at = end + sum(len(v) * {3: 2, 4: 4}[k] for k, v in tags.values() if len(v) * {3: 2, 4: 4}[k] > 4)
    for strip in strips:
        offsets.append(data_at)
        data_at += len(strip)
    tags[273] = (4, offsets)
    entries = b""
    for tag, (code, numbers) in sorted(tags.items()):
        packed = pack(f"{order}{len(numbers)}{'H' if code == 3 else 'I'}", *numbers)
        if len(packed) > 4:
            entries += pack(f"{order}HHII", tag, code, len(numbers), end + len(outside))
            outside += packed
        else:
            entries += pack(f"{order}HHI", tag, code, len(numbers)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + pack(order + "I", 8) + pack(order + "H", len(tags))
    return head + entries + b"\0" * 4 + outside + b"".join(strips)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [3, 4])
def test_deep_separate_planes_are_refused(order, channels):
    pixels = np.random.default_rng(0).integers(0, 65536, (4, 6, channels), dtype=np.uint16)
    with pytest.raises(ImageDecodeError, match="separate planes"):
        open_image(tiff(pixels, 2, order, separate=True))


def test_other_planes_are_read():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(open_image(tiff(pixels, 2, separate=True))), pixels)
    assert np.array_equal(np.asarray(open_image(tiff(pixels.astype(np.uint16) * 257, 2))), pixels)


def test_a_single_deep_plane_is_not_called_broken():
    with pytest.raises(ImageDecodeError) as raised:
        open_image(tiff(RAW.astype(np.uint16), separate=True))
    assert raised.value.kind == "format" and "broken" not in raised.value.reason


@pytest.mark.parametrize(
    ("pixels", "what"),
    [
        (np.zeros((4, 6, 13), np.uint8), "13 channels of 8-bit"),
        (np.zeros((4, 6, 3), np.float32), "3 channels of 32-bit floats"),
        (np.zeros((4, 6), np.float64), "1 channel of 64-bit floats"),
        (np.zeros((4, 6), np.float16), "1 channel of 16-bit floats"),
    ],
)
def test_unreadable_tiffs_are_described(pixels, what):
    with pytest.raises(ImageDecodeError, match=what):
        open_image(tiff(pixels))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (RAW.astype(np.int32), RAW),  # 0..255 is kept
        (RAW * 257 * 10, RAW * 10),  # as 16-bit
        (RAW * (2**32 // 24), RAW / 23 * 255),  # unsigned, stretched
    ],
)
def test_32_bit_integers(values, expected):
    got = np.asarray(open_image(tiff(values), "L")).astype(float)
    assert np.abs(got - expected).max() <= 0.51


@pytest.mark.parametrize("read", [open_image, read_stored, open_mask])
def test_messages_of_libtiff_are_logged(read, capfd, caplog, tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(RAW.astype(np.uint8), compression=5))  # LZW that is none
    with pytest.raises(ImageDecodeError):
        read(tmp_path / "a.tif")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("read", [open_image, read_stored])
def test_every_reader_refuses_deep_separate_planes(read, tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(np.zeros((4, 6, 3), np.uint16), 2, separate=True))
    with pytest.raises(ImageDecodeError, match="separate planes"):
        read(tmp_path / "a.tif")


def test_premultiplied_grey_is_read():
    grey, alpha = RAW.astype(np.uint8) // 2, np.full((4, 6), 128, np.uint8)
    values = np.asarray(open_image(tiff(np.stack([grey, alpha], -1), extra=1), "L")).astype(int)
    assert np.abs(values - (grey + 127.0)).max() <= 2  # grey of alpha 1/2 over white


def test_twelve_bits_in_sixteen_are_called_dark(tmp_path, capsys):
    for name in "ab":
        (tmp_path / name).mkdir()
        for k in range(4):
            pixels = np.random.default_rng(k).integers(0, 4096, (32, 32), dtype=np.uint16)
            Image.fromarray(pixels).save(tmp_path / name / f"{k}{name}.png")
    main(["data", "check", str(tmp_path)])
    assert "have no value above 32 of 255" in " ".join(capsys.readouterr().out.split())


def test_broken_pixels_are_told_from_a_missing_codec():
    """LZW and deflate are in every libtiff: if one of them fails, the file is at fault, not the installation."""
    for compression, words in ((5, "the file is broken"), (50001, "is not built into Pillow|broken|a TIFF of")):
        with pytest.raises(ImageDecodeError, match=words):
            open_image(tiff(RAW.astype(np.uint8), compression=compression))


def test_pillow_does_not_log_what_becomes_an_error(caplog):
    with pytest.raises(ImageDecodeError, match="13 channels"):
        open_image(tiff(np.zeros((4, 6, 13), np.uint8)))
    assert not [record for record in caplog.records if record.name.startswith("PIL")]
