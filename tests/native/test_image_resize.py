"""Compiled pixels are Pillow's and PyTorch's, every one of them, wherever compiled code takes an image on itself."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.data.augment import AUGMENTS
from vitrail.data.pixel_ops import PLAIN, PixelOps
from vitrail.data.stateless_rng import BatchRng
from vitrail.data.transform import EvalTransform, TrainTransform
from vitrail.native import build as room
from vitrail.native import image_resize
from vitrail.native.build import Unavailable, compiler
from vitrail.native.image_resize import Compiled, agrees, best_pixels
from vitrail.preprocess import IMAGENET_MEAN, Preprocess


def lacking() -> str | None:
    try:
        compiler()
    except Unavailable as error:
        return str(error)
    return None


needs_compiler = pytest.mark.skipif(lacking() is not None, reason=str(lacking()))


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    shape = (height, width) if mode == "L" else (height, width, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def batch(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(2).integers(0, 256, (count, channels, height, width), dtype=np.uint8))


def resized(width: int, height: int, short: int) -> tuple[int, int]:
    return (short, int(short * height / width)) if width <= height else (int(short * width / height), short)


def whole(image: Image.Image, size: tuple[int, int], side: int, kind: str = "bicubic"):
    """Return the arguments of a resize of the whole image that keeps the middle."""
    return image, (0, 0, *image.size), size, tuple(round((each - side) / 2) for each in size), side, kind


@pytest.fixture
def by_pillow(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Collect the calls that go to Pillow."""
    calls: list[object] = []
    plain = PixelOps.resize

    def resize(self: PixelOps, *call):
        calls.append(call)
        return plain(self, *call)

    monkeypatch.setattr(PixelOps, "resize", resize)
    return calls


@needs_compiler
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", ["bicubic", "bilinear"])
def test_random_sizes_to_the_bit(mode: str, kind: str, by_pillow: list[object]) -> None:
    draw = np.random.default_rng(1)
    for seed in range(60):
        width, height, spare = (int(n) for n in draw.integers((20, 20, 0), (400, 400, 30)))
        side = int(draw.choice([7, 32, 65, 130]))
        image = noise(width, height, mode, seed)
        call = whole(image, resized(width, height, side + spare), side, kind)
        assert torch.equal(Compiled().resize(*call), PLAIN.resize(*call)), (width, height, side, spare)
    assert len(by_pillow) < 60 + 10


@needs_compiler
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", ["bicubic", "bilinear"])
def test_random_parts_to_the_bit(mode: str, kind: str, by_pillow: list[object]) -> None:
    """The image goes on beyond the part, and nothing of that may show."""
    draw, image = np.random.default_rng(3), noise(301, 240, mode)
    for _ in range(60):
        wide, tall = (int(n) for n in draw.integers((2, 2), (301, 240)))
        left, top = int(draw.integers(0, 301 - wide + 1)), int(draw.integers(0, 240 - tall + 1))
        side = int(draw.choice([16, 48, 112]))
        call = image, (left, top, left + wide, top + tall), (side, side), (0, 0), side, kind
        assert torch.equal(Compiled().resize(*call), PLAIN.resize(*call)), call
    assert len(by_pillow) < 60 + 10


@needs_compiler
@pytest.mark.parametrize(
    ("width", "height", "mode", "size", "side", "kind"),
    [
        (64, 48, "RGB", (64, 40), 32, "bicubic"),  # one side stays
        (3, 3, "RGB", (32, 32), 32, "bicubic"),  # fewer pixels than weights
        (15, 4, "L", (32, 32), 32, "bilinear"),
        (64, 48, "RGB", (32, 24), 32, "bicubic"),  # the square reaches beyond
        (64, 48, "RGB", (64, 48), 32, "bicubic"),  # nothing to resize
        (64, 48, "RGB", (43, 32), 32, "nearest"),
        (2400, 1900, "RGB", (40, 32), 32, "bicubic"),  # more memory than Pillow takes at once
    ],
)
def test_rare_modes_use_pillow(width, height, mode, size, side, kind, by_pillow: list[object]) -> None:
    call = whole(noise(width, height, mode), size, side, kind)
    ours = Compiled().resize(*call)
    assert len(by_pillow) == 1
    assert torch.equal(ours, PLAIN.resize(*call))


@needs_compiler
def test_threads_are_independent() -> None:
    calls = [whole(noise(90 + 3 * i, 80, "RGB", i), resized(90 + 3 * i, 80, 40), 32) for i in range(24)]
    expected = [PLAIN.resize(*call) for call in calls]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda call: Compiled().resize(*call), calls * 4))
    assert all(torch.equal(a, b) for a, b in zip(got, expected * 4, strict=True))


@needs_compiler
def test_pixels_outlive_their_image() -> None:
    expected = PLAIN.resize(*whole(noise(90, 80), (45, 40), 32))
    assert all(torch.equal(Compiled().resize(*whole(noise(90, 80), (45, 40), 32)), expected) for _ in range(20))


@needs_compiler
@pytest.mark.parametrize("border", ["reflect", "black"])
@pytest.mark.parametrize("padding", [0, 1, 3, 9])
@pytest.mark.parametrize("mirror", [0.0, 0.5, 1.0])
def test_translation_is_padding_cropping_and_flipping(border: str, padding: int, mirror: float) -> None:
    for size in ((9, 7), (2, 3), (16, 16)):
        pixels, draws = batch(40, 3, *size), BatchRng(5, 1, np.arange(40))
        for source in (pixels, pixels[:, :1]):
            ours = Compiled().move(source, draws, padding, border, mirror)
            assert torch.equal(ours, PLAIN.move(source, draws, padding, border, mirror)), (size, padding)


@needs_compiler
@pytest.mark.parametrize("channels", [1, 3])
def test_normalising_is_pytorchs(channels: int) -> None:
    preprocess = Preprocess(16, mean=IMAGENET_MEAN[:channels], std=(0.229, 0.224, 0.225)[:channels])
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    for pixels in (
        values,
        batch(5, channels, 6, 7),
        batch(3, channels, 8, 8).transpose(2, 3),
        batch(0, channels, 4, 4),
    ):
        assert torch.equal(Compiled().normalize(pixels, preprocess), PLAIN.normalize(pixels, preprocess))


@needs_compiler
@pytest.mark.parametrize("name", AUGMENTS)
def test_training_images_are_the_same(name: str) -> None:
    protocol, draws = Preprocess(size=24, crop=1.0), BatchRng(0, 2, np.arange(6))
    batches = []
    for pixels in (Compiled(), PLAIN):
        transform = TrainTransform(protocol, AUGMENTS[name], pixels)
        parts = [transform.to_pixels(noise(50, 40, seed=i), draws.take(np.array([i]))) for i in range(6)]
        batches.append(transform.batch(torch.stack(parts), draws))
    assert torch.equal(*batches)


@needs_compiler
def test_another_pillow_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert agrees() and isinstance(best_pixels(None), Compiled)
    agrees.cache_clear()
    plain = PixelOps.resize
    monkeypatch.setattr(PixelOps, "resize", lambda *call: plain(*call).bitwise_xor(1))
    assert best_pixels(None) is PLAIN
    agrees.cache_clear()


def test_without_a_compiler_pillow_resizes(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path))
    monkeypatch.setattr(room, "_FOUND", {})
    agrees.cache_clear()
    assert best_pixels(None) is PLAIN
    agrees.cache_clear()


@needs_compiler
def test_few_images_do_not_trigger_a_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_resize, "built", lambda name: False)
    assert best_pixels(3) is PLAIN and isinstance(best_pixels(10_000), Compiled)


@needs_compiler
def test_the_evaluation_protocol_is_the_same() -> None:
    protocol = Preprocess(size=48, crop=0.9)
    for image in (noise(120, 90), noise(60, 200), noise(54, 53, "L").convert("RGB"), noise(53, 70)):
        assert torch.equal(EvalTransform(protocol, Compiled())(image), EvalTransform(protocol)(image))
