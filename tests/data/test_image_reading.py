"""An image is decoded with a stated meaning, or refused with a reason; nothing else happens."""

import os
import pickle
import random
import resource
import struct
import time
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from drawn_images import encoded, smooth_image
from PIL import Image, ImageFile

from vitrail.data.image_io import FORMATS, MAX_PIXELS, ImageDecodeError, open_image, printable, read_size
from vitrail.errors import DataError

RAMP = np.linspace(0, 65535, 64 * 48).reshape(48, 64)


def refused(source, **options) -> ImageDecodeError:
    with pytest.raises(ImageDecodeError) as caught:
        open_image(source, **options)
    return caught.value


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


# Meaning of pixels


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(format):
    deep = RAMP.round().astype(np.uint16)
    image = open_image(encoded(Image.fromarray(deep), format), "L")
    assert np.abs(np.asarray(image).astype(float) - deep / 257).max() <= 0.5


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (RAMP / 65535, RAMP / 257),  # 0..1
        (RAMP / 257, RAMP / 257),  # 0..255
        (RAMP, RAMP / 257),  # 0..65535
        (RAMP * 3 - 1000, RAMP / 257),  # beyond: stretched
    ],
)
def test_floats_follow_the_documented_rule(values, expected):
    image = open_image(encoded(Image.fromarray(values.astype(np.float32)), "TIFF"), "L")
    assert np.abs(np.asarray(image) - expected).max() <= 0.51


def test_integers_of_32_bits_are_stretched_when_they_need_it():
    deep = (RAMP * 30000).astype(np.int32)
    image = open_image(encoded(Image.fromarray(deep), "TIFF"), "L")
    assert np.abs(np.asarray(image) - RAMP / 257).max() <= 0.51


def test_a_constant_deep_image_does_not_divide_by_zero():
    flat = np.full((4, 4), -7.0, dtype=np.float32)
    assert np.asarray(open_image(encoded(Image.fromarray(flat), "TIFF"), "L")).max() == 0


def test_values_that_are_not_numbers_are_refused():
    hole = np.full((4, 4), np.nan, dtype=np.float32)
    assert "finite" in refused(encoded(Image.fromarray(hole), "TIFF")).reason


def _half(mode: str) -> bytes:
    """Left half opaque red (or black), right half transparent."""
    image = Image.new("RGBA", (8, 4), (255, 0, 0, 255))
    image.paste((0, 0, 255, 0), (4, 0, 8, 4))
    if mode == "P":
        palette = Image.new("P", (8, 4), 0)
        palette.putpalette([255, 0, 0, 0, 0, 255])
        palette.paste(1, (4, 0, 8, 4))
        return encoded(palette, transparency=1)
    if mode == "GIF":
        palette = Image.new("P", (8, 4), 0)
        palette.putpalette([255, 0, 0, 0, 0, 255])
        palette.paste(1, (4, 0, 8, 4))
        return encoded(palette, "GIF", transparency=1)
    if mode == "RGB":
        return encoded(image.convert("RGB"), transparency=(0, 0, 255))
    return encoded(
        image.convert(mode), "WEBP" if mode == "RGBA" else "PNG", **({"lossless": True} if mode == "RGBA" else {})
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "GIF", "RGB"])
@pytest.mark.parametrize("background", [(255, 255, 255), (0, 128, 0)])
def test_transparency_is_composited_over_the_given_colour(mode, background):
    image = open_image(_half(mode), background=background)
    assert image.getpixel((6, 2)) == background
    assert image.getpixel((1, 2)) == ((76, 76, 76) if mode == "LA" else (255, 0, 0))


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_and_its_inverted_kind_show_the_same_colours(format):
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), format)  # red
    assert (b"Adobe" in data) == (format == "JPEG")  # a JPEG holds inverted inks, and Adobe's marker
    assert np.abs(np.asarray(open_image(data)).reshape(-1, 3).mean(0) - [255, 0, 0]).max() < 12


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "YCbCr"])
def test_plain_modes_keep_their_colours(mode):
    source = smooth_image(3).convert(mode)
    image = open_image(encoded(source, "TIFF" if mode == "YCbCr" else "PNG"))
    assert (image.mode, image.size, image.info) == ("RGB", source.size, {})
    assert np.array_equal(np.asarray(image), np.asarray(source.convert("RGB")))


def test_one_channel_is_the_luma_of_the_colours():
    source = smooth_image(4)
    assert np.array_equal(np.asarray(open_image(encoded(source), "L")), np.asarray(source.convert("L")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_shows_the_same_image(orientation, format):
    upright = smooth_image(5, (64, 48))
    # Stored as a camera would: the inverse of the tag.
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(inverse[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, format, exif=exif, **({"lossless": True} if format == "WEBP" else {}))
    image = open_image(data)
    assert image.size == upright.size
    assert np.abs(np.asarray(image).astype(int) - np.asarray(upright)).mean() < (6 if format == "JPEG" else 0.01)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_the_first_image_of_an_animation_is_taken(format):
    first, second = Image.new("RGB", (9, 9), (255, 0, 0)), Image.new("RGB", (9, 9), (0, 0, 255))
    data = encoded(
        first, format, save_all=True, append_images=[second], **({"lossless": True} if format == "WEBP" else {})
    )
    assert open_image(data).getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1)])
def test_one_pixel_wide_images_are_read(size):
    assert open_image(encoded(Image.new("RGB", size))).size == size


def test_a_broken_orientation_does_not_lose_the_image():
    data = encoded(smooth_image(1), "JPEG", exif=b"Exif\0\0" + b"II*\0\xff\xff\xff\x7f" + b"\xff" * 40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow mentions the broken block
        assert open_image(data).size == (40, 30)


def test_draft_is_the_same_image_but_smaller():
    data = encoded(smooth_image(2, (800, 600)), "JPEG", quality=95)
    small = open_image(data, draft=100)
    assert small.size == (200, 150)  # 1/4; 1/8 would fall under 100
    whole = open_image(data).resize(small.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(small).astype(int) - np.asarray(whole)).mean() < 2
    assert open_image(data, draft=301).size == (800, 600)


# Ways in


def test_path_bytes_and_open_file_are_the_same(tmp_path):
    data = encoded(smooth_image(6))
    (tmp_path / "a.png").write_bytes(data)
    with open(tmp_path / "a.png", "rb") as file:
        images = [open_image(s) for s in (tmp_path / "a.png", str(tmp_path / "a.png"), data, bytearray(data), file)]
        assert not file.closed
    assert len({image.tobytes() for image in images}) == 1
    assert read_size(data) == (40, 30)


def test_content_decides_not_the_name(tmp_path):
    (tmp_path / "a.gif").write_bytes(encoded(smooth_image(6), "JPEG"))
    assert open_image(tmp_path / "a.gif").size == (40, 30)


def test_odd_names_are_read_and_shown_as_text(tmp_path):
    names = [b"caf\xe9.png", b"line\nbreak.png", b"\x1b[31mred.png", "ж".encode() * 100 + b".png"]
    for name in names:
        path = os.path.join(os.fsencode(tmp_path), name)
        with open(path, "wb") as file:
            file.write(encoded(smooth_image(1))[:60])
        error = refused(os.fsdecode(path))
        assert str(error).isprintable() and str(error).encode("utf-8")
    assert printable(b"caf\xe9.png") == "caf\\xe9.png"


# Refusals


def test_special_files_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "empty.jpg").touch()
    kinds = {
        name: refused(tmp_path / f"{name}.jpg").kind for name in ("pipe", "folder", "dangling", "loop", "empty", "no")
    }
    assert kinds == {
        "pipe": "not a file",
        "folder": "not a file",
        "dangling": "missing",
        "loop": "access",
        "empty": "empty",
        "no": "missing",
    }
    assert refused("/dev/null").kind == "not a file"
    assert refused("a" * 300).kind == "access"
    assert refused("nul\0byte").kind == "access"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(smooth_image(1)))
    (tmp_path / "a.png").chmod(0)
    assert "permission" in refused(tmp_path / "a.png").reason


def test_only_the_formats_on_the_list_are_read():
    Image.init()
    assert set(FORMATS) <= set(Image.OPEN)
    others = sorted(set(Image.SAVE) - set(FORMATS))
    tried = []
    for format in others:
        try:
            data = encoded(smooth_image(1).convert("L" if format in ("XBM", "MSP") else "RGB"), format)
        except Exception:  # noqa: BLE001  (formats that Pillow can only write with other tools)
            continue
        if data[:2] not in (b"\xff\xd8", b"\x89P"):  # MPO is a JPEG
            tried.append(format)
            assert refused(data).kind in ("format", "broken", "truncated"), format
    assert len(tried) >= 8
    for text in (b"%!PS-Adobe-3.0 EPSF-3.0\n", b"%PDF-1.4\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<html>"):
        assert refused(text * 20).kind == "format"


def riff(kind: bytes, content: bytes) -> bytes:
    chunk = kind + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


GIF_SIZE = struct.pack("<HH", 60_000, 60_000)
BOMBS = {
    "png": png_header(60_000, 60_000) + b"\0\0\0\x0aIDAT" + b"0" * 10,
    "png just over": png_header(7_100, 7_100) + b"\0\0\0\x0aIDAT" + b"0" * 10,
    "gif": b"GIF89a" + GIF_SIZE + b"\0\0\0," + bytes(4) + GIF_SIZE + b"\0\2\2D\1\0;",
    "bmp": b"BM" + struct.pack("<IIIIiiHH", 154, 0, 54, 40, 50_000, 50_000, 1, 24) + bytes(124),
    "webp extended": riff(b"VP8X", bytes(4) + b"\xff\x3f\0" * 2 + bytes(80)),
    "webp lossless": riff(b"VP8L", b"\x2f\xff\xff\xff\x0f" + bytes(80)),
    "webp lossy": riff(b"VP8 ", b"\x30\1\0\x9d\1\x2a\xff\x3f\xff\x3f" + bytes(80)),
    "ppm": b"P6 60000 60000 255\n" + bytes(100),
    "tiff": encoded(Image.new("1", (20_000, 10_000)), "TIFF", compression="group4"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_too_many_pixels_are_refused_from_the_header(name):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        assert refused(BOMBS[name]).kind == "size"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a program that makes Pillow's warning an error gets the same answer
        assert refused(BOMBS[name]).kind == "size"


def test_the_pixel_limit_is_exact():
    data = encoded(Image.new("L", (100, 50)))
    assert open_image(data, max_pixels=5000).size == (100, 50)
    assert "5000" not in refused(data, max_pixels=4999).reason and refused(data, max_pixels=4999).kind == "size"
    assert MAX_PIXELS == 50_000_000


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_text_and_profile_bombs_do_not_grow(kind):
    squeezed = zlib.compress(bytes(80 * 2**20), 9)
    body = png_chunk(kind, b"key\0\0" + squeezed) + encoded(smooth_image(1))[33:]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = png_header(40, 30) + body
    try:
        assert open_image(data).size == (40, 30)
    except ImageDecodeError as error:
        assert error.kind == "broken"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_a_truncated_file_is_refused(format):
    data = encoded(smooth_image(7, (200, 150)), format)
    for share in (0.2, 0.5, 0.8):
        error = refused(data[: int(len(data) * share)], name="cut.file")
        assert error.name == "cut.file" and "cut.file" in str(error)
        assert error.kind in ("truncated", "broken", "format")


def test_the_error_can_be_pickled():
    error = refused(b"nothing", name="a.jpg")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, DataError) and (again.name, again.reason, again.kind) == (
        error.name,
        error.reason,
        error.kind,
    )


def test_no_switch_of_pillow_is_touched():
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert Image.MAX_IMAGE_PIXELS == 1024 * 1024 * 1024 // 4 // 3


SEEDS = [
    encoded(smooth_image(1), "JPEG"),
    encoded(smooth_image(2), "JPEG", progressive=True),
    encoded(smooth_image(3).convert("CMYK"), "JPEG"),
    encoded(smooth_image(4), "PNG"),
    encoded(smooth_image(5).convert("P"), "PNG"),
    encoded(smooth_image(6), "WEBP"),
    encoded(smooth_image(7), "BMP"),
    encoded(smooth_image(8), "GIF"),
    encoded(smooth_image(9), "TIFF", compression="tiff_lzw"),
    encoded(smooth_image(10), "PPM"),
]


def _mutant(random: random.Random) -> bytes:
    data = bytearray(random.choice(SEEDS))
    for _ in range(random.randint(1, 4)):
        place = random.randrange(len(data)) if random.random() < 0.5 else random.randrange(min(64, len(data)))
        match random.randrange(4):
            case 0:
                data[place] ^= 1 << random.randrange(8)
            case 1:
                del data[max(place, 1) :]
            case 2:
                data[place : place + 4] = random.randbytes(4)
            case _:
                data[place:place] = random.randbytes(random.randint(1, 32))
    return bytes(data)


def test_a_thousand_mutants_are_images_or_typed_errors():
    source, refusals, slowest = random.Random(1), 0, 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warnings about corrupt files are not under test
        for _ in range(1000):
            data = _mutant(source)
            start = time.perf_counter()
            try:
                assert open_image(data).mode == "RGB"
            except ImageDecodeError:
                refusals += 1
            slowest = max(slowest, time.perf_counter() - start)
    assert 100 < refusals < 1000
    assert slowest < 2  # the bar of a hang, not of speed


@pytest.mark.shared
def test_real_photographs_equal_pillow(shared: Path):
    photographs = sorted((shared / "data" / "imagenet17").glob("*.JPEG"))
    assert len(photographs) == 17
    for path in photographs:
        with Image.open(path) as image:
            assert open_image(path).tobytes() == image.convert("RGB").tobytes()
    assert open_image(BytesIO(photographs[0].read_bytes())).tobytes() == open_image(photographs[0]).tobytes()


@pytest.mark.parametrize(
    ("size", "aligned", "expected"),
    [
        ((320, 240), True, (160, 120)),
        ((640, 480), True, (160, 120)),
        ((640, 480), False, (160, 120)),
        ((644, 480), True, (161, 120)),
        ((642, 480), True, (321, 240)),  # a quarter would be half a pixel too wide
        ((641, 480), True, (641, 480)),
        ((641, 480), False, (161, 120)),
    ],
)
def test_an_aligned_draft_keeps_the_shape(size: tuple[int, int], aligned: bool, expected: tuple[int, int]) -> None:
    data = BytesIO()
    Image.new("RGB", size, "red").save(data, "JPEG")
    assert open_image(data.getvalue(), draft=100, aligned=aligned).size == expected
