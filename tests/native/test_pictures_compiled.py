"""Compiled resizing gives Pillow's pixels, every one of them, wherever it takes a picture on itself."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.data.transform import EvalTransform
from vitrail.data.transform import fit as plain_fit
from vitrail.native import pictures
from vitrail.native.library import Unavailable, compiler, library
from vitrail.native.pictures import agrees, along, best_fit, fit
from vitrail.preprocess import Preprocess


def lacking() -> str | None:
    try:
        compiler()
    except Unavailable as error:
        return str(error)
    return None


needs_compiler = pytest.mark.skipif(lacking() is not None, reason=str(lacking()))


def noise(width: int, height: int, mode: str, seed: int = 0) -> Image.Image:
    shape = (height, width) if mode == "L" else (height, width, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def resized(width: int, height: int, short: int) -> tuple[int, int]:
    return (short, int(short * height / width)) if width <= height else (int(short * width / height), short)


@needs_compiler
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", ["bicubic", "bilinear"])
def test_random_sizes_to_the_bit(mode: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, ours = np.random.default_rng(1), 0
    monkeypatch.setattr(pictures, "plain_fit", lambda *_: None)
    for seed in range(60):
        width, height, spare = (int(n) for n in draw.integers((20, 20, 0), (400, 400, 30)))
        side = int(draw.choice([7, 32, 65, 130]))
        image, size = noise(width, height, mode, seed), resized(width, height, side + spare)
        got = fit(image, size, side, kind)
        if got is not None:
            ours += 1
            assert torch.equal(got, plain_fit(image, size, side, kind)), (width, height, size, side)
    assert ours > 40


@needs_compiler
@pytest.mark.parametrize(
    ("width", "height", "mode", "size", "side", "kind"),
    [
        (100, 201, "RGB", (32, 64), 32, "bicubic"),  # Pillow begins with the columns
        (201, 100, "RGB", (64, 32), 32, "bicubic"),
        (3, 3, "RGB", (32, 32), 32, "bicubic"),  # fewer pixels than weights
        (15, 15, "L", (32, 32), 32, "bilinear"),
        (64, 48, "RGB", (32, 24), 32, "bicubic"),  # the square reaches beyond
        (64, 48, "RGB", (64, 48), 32, "bicubic"),  # nothing to resize
        (64, 48, "RGB", (43, 32), 32, "nearest"),
        (2400, 1900, "RGB", (40, 32), 32, "bicubic"),  # more memory than Pillow takes at once
        (640, 8, "RGB", (640, 8), 8, "bilinear"),
    ],
)
def test_what_is_rare_is_pillows(
    width: int, height: int, mode: str, size: tuple[int, int], side: int, kind: str
) -> None:
    image = noise(width, height, mode)
    assert torch.equal(fit(image, size, side, kind), plain_fit(image, size, side, kind))


@needs_compiler
def test_threads_do_not_meet() -> None:
    images = [noise(90 + 3 * i, 80, "RGB", i) for i in range(24)]
    expected = [plain_fit(image, resized(*image.size, 40), 32, "bicubic") for image in images]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda image: fit(image, resized(*image.size, 40), 32, "bicubic"), images * 4))
    assert all(torch.equal(a, b) for a, b in zip(got, expected * 4, strict=True))


@needs_compiler
def test_the_picture_may_go_while_its_pixels_are_read() -> None:
    expected = plain_fit(noise(90, 80, "RGB"), (45, 40), 32, "bicubic")
    assert all(torch.equal(fit(noise(90, 80, "RGB"), (45, 40), 32, "bicubic"), expected) for _ in range(20))


@pytest.mark.parametrize(("length", "size"), [(500, 330), (40, 330), (4000, 24), (330, 330)])
@pytest.mark.parametrize("kind", ["bicubic", "bilinear"])
def test_weights_add_up_and_stay_within_the_line(length: int, size: int, kind: str) -> None:
    taps = along(length, size, 0, size, kind, 4, 16)
    assert taps is not None and taps.weights.shape[1] % 16 == 0
    assert taps.starts.min() >= 0 and (taps.starts + taps.weights.shape[1]).max() <= 4 * length
    of_one_channel = taps.weights[:, ::4].astype(np.int64).sum(axis=1)
    assert np.abs(of_one_channel - (1 << 22)).max() <= taps.weights.shape[1] // 4


@needs_compiler
def test_another_pillow_is_left_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert agrees() and best_fit(None) is fit
    agrees.cache_clear()
    monkeypatch.setattr(pictures, "plain_fit", lambda *call: plain_fit(*call).bitwise_xor(1))
    assert best_fit(None) is pictures.plain_fit
    agrees.cache_clear()


def test_without_a_compiler_pillow_resizes(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path))
    library.cache_clear()
    agrees.cache_clear()
    assert best_fit(None) is plain_fit
    library.cache_clear()
    agrees.cache_clear()


@needs_compiler
def test_few_pictures_do_not_wait_for_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "built", lambda name: False)
    assert best_fit(3) is plain_fit and best_fit(10_000) is fit


@needs_compiler
def test_the_evaluation_protocol_is_the_same(tmp_path) -> None:
    protocol = Preprocess(size=48, crop=0.9)
    for image in (
        noise(120, 90, "RGB"),
        noise(60, 200, "RGB"),
        noise(54, 53, "L").convert("RGB"),
        noise(53, 70, "RGB"),
    ):
        assert torch.equal(EvalTransform(protocol, fit)(image), EvalTransform(protocol)(image))
