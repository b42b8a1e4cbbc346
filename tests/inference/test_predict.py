"""Predicting from everything that people hand over as an image."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from PIL import Image
from shades import Brightness
from torch import Tensor

import vitrail
from vitrail.data.image_io import open_image
from vitrail.data.prefetch import prefetch_map
from vitrail.data.transform import EvalTransform
from vitrail.errors import DataError, VitrailError
from vitrail.inference.model_loading import find_model
from vitrail.inference.predict import predict, predictions
from vitrail.preprocess import Preprocess
from vitrail.tasks.classes.class_names import class_names
from vitrail.tasks.classify.options import PredictOptions
from vitrail.tasks.classify.predictor import ClassPredictor, reduced_side
from vitrail.tasks.image_sources import SourceImage


def test_every_kind_of_source_gives_the_same_result(brightness: Brightness, folder: Path) -> None:
    path = folder / "b" / "2.png"  # grey 160: exactly the centre of "light"
    grey = np.full((9, 12), 160, np.uint8)
    sources = [
        path,
        str(path),
        str(folder / "b" / "2*.png"),
        Image.open(path),
        grey,
        np.repeat(grey[:, :, None], 3, axis=2),
        (grey / 255).astype(np.float32),
        torch.full((1, 9, 12), 160, dtype=torch.uint8),
        torch.full((3, 9, 12), 160 / 255),
        [torch.full((1, 3, 9, 12), 160 / 255, dtype=torch.bfloat16).float()],
    ]
    for source in sources:
        [answer] = predict(brightness, source, top=2)
        assert answer.label == "light" and answer.probability > 0.9, source
        assert answer.top(9)[0] == (answer.label, answer.probability) and len(answer.top(9)) == 2


def test_probabilities_are_the_softmax_of_the_model(tiny: torch.nn.Module, folder: Path) -> None:
    path = folder / "a" / "1.png"
    [answer] = predict(tiny, path, top=10)
    with torch.inference_mode():
        expected = tiny(EvalTransform(tiny.preprocess)(Image.open(path))[None]).softmax(1)[0]
    assert sum(answer.probabilities) == pytest.approx(1, abs=1e-6)
    for index, label, probability in zip(answer.indices, answer.labels, answer.probabilities, strict=True):
        assert label == tiny.labels[index]
        assert probability == pytest.approx(float(expected[index]), abs=1e-6)
    assert list(answer.probabilities) == sorted(answer.probabilities, reverse=True)


def test_corrupt_files_do_not_stop_a_folder(brightness: Brightness, folder: Path) -> None:
    answers = predict(brightness, folder, batch=2)
    assert [Path(answer.path).name for answer in answers] == [
        "0.png",
        "1.png",
        "broken.png",
        "2.png",
        "3.png",
        "empty.jpg",
    ]
    assert [answer.label for answer in answers if answer.error is None] == ["dark", "dim", "light", "white"]
    broken, empty = (answer for answer in answers if answer.error is not None)
    assert empty.error == "the file is empty (0 bytes)" and "empty.jpg" in str(empty)
    with pytest.raises(DataError, match=r"broken\.png has no label"):
        _ = broken.label


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 7])
def test_order_and_results_do_not_depend_on_the_batch(tiny: torch.nn.Module, folder: Path, batch: int) -> None:
    one, other = (predict(tiny, folder, batch=size, optimize=False) for size in (32, batch))
    assert [answer.path for answer in one] == [answer.path for answer in other]
    assert [answer.labels for answer in one] == [answer.labels for answer in other]
    for first, second in zip(one, other, strict=True):
        assert first.probabilities == pytest.approx(second.probabilities, abs=1e-5)


def test_only_corrupt_images(brightness: Brightness, folder: Path) -> None:
    [answer] = predict(brightness, folder / "b" / "empty.jpg")
    assert answer.error is not None


def test_memory_is_bounded(brightness: Brightness) -> None:
    # A million images, of which only the first few may be read before more are requested.
    read: list[int] = []

    def image(i: int) -> SourceImage:
        return SourceImage(f"{i}", lambda: read.append(i) or Image.new("RGB", (8, 8)))  # type: ignore[func-returns-value]

    answers = predictions(ClassPredictor(brightness, PredictOptions(), None), (image(i) for i in range(10**6)), batch=4)
    assert [next(answers).path for _ in range(5)] == ["0", "1", "2", "3", "4"]
    answers.close()
    assert len(read) <= 4 * 4


def test_internal_errors_are_not_reported_as_corrupt_images(brightness: Brightness) -> None:
    def fail() -> Image.Image:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(predictions(ClassPredictor(brightness, PredictOptions(), 1), [SourceImage("x", fail)], batch=4))


def test_prefetching_is_bounded() -> None:
    begun: list[int] = []
    source = prefetch_map(lambda i: begun.append(i) or i, range(100), window=5, threads=2)
    assert next(source) == 0
    assert len(begun) <= 6
    assert list(source) == list(range(1, 100))


def test_orientation_of_an_image_in_memory_counts(tmp_path: Path) -> None:
    image = Image.new("RGB", (20, 10), "black")
    image.paste("white", (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    held, path = Image.open(tmp_path / "turned.png"), tmp_path / "turned.png"
    from vitrail.tasks.image_sources import find_images

    (one,), (other,) = find_images(held), find_images(path)
    assert one.read().size == (10, 20)
    assert one.read().tobytes() == other.read().tobytes()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nothing.jpg", "no image at 'nothing.jpg'"),
        ("nothing*.jpg", "No file matches"),
        ([], "No images were given"),
        (7, "A int is not an image"),
        (np.zeros((4, 4, 2)), r"shape \(4, 4, 2\)"),
        (np.full((4, 4), 7.0), "0..1"),
        (np.full((4, 4), np.nan), "0..1"),
        (np.zeros((4, 4), np.int64), "int64"),
        (np.zeros((0, 4), np.uint8), r"shape \(0, 4\)"),
        (torch.zeros(4, 4), r"shape \(4, 4\)"),
        (torch.randn(3, 8, 8), "normalised already"),
    ],
)
def test_unsupported_inputs_get_a_reason(brightness: Brightness, source: object, words: str) -> None:
    with pytest.raises(VitrailError, match=words):
        predict(brightness, source)


def test_a_folder_without_images(brightness: Brightness, tmp_path: Path) -> None:
    with pytest.raises(VitrailError, match="holds no images"):
        predict(brightness, tmp_path)


def test_a_file_with_the_name_of_a_pattern(brightness: Brightness, tmp_path: Path) -> None:
    Image.new("L", (8, 8), 230).save(tmp_path / "cat[1].png")
    assert predict(brightness, tmp_path / "cat[1].png")[0].label == "white"


def test_names_in_their_order_of_preference(brightness: Brightness, tmp_path: Path) -> None:
    assert class_names(brightness, 4, ["a", "b", "c", "d"]) == ("a", "b", "c", "d")
    (tmp_path / "names.txt").write_text("é\nb\nc\nd\n", encoding="utf-8")
    assert class_names(brightness, 4, tmp_path / "names.txt")[0] == "é"
    assert class_names(brightness, 4)[0] == "dark"
    brightness.labels = None
    assert class_names(brightness, 4) == ("class 0", "class 1", "class 2", "class 3")
    assert class_names(brightness, 1000)[281] == "tabby"
    with pytest.raises(VitrailError, match="Got 1 class names for a model of 4"):
        class_names(brightness, 4, ["a"])
    with pytest.raises(VitrailError, match="no file of class names"):
        class_names(brightness, 4, tmp_path / "no.txt")


def test_models_are_found_in_folders_and_runs(tiny: torch.nn.Module, tmp_path: Path, folder: Path) -> None:
    vitrail.save_model(tiny, tmp_path / "run" / "weights" / "last")
    by_run = predict(tmp_path / "run", folder)
    assert by_run == predict(tiny, folder) == predict(str(tmp_path / "run" / "weights" / "last"), folder)
    with pytest.raises(VitrailError, match="name without weights"):
        find_model("vit_tiny_patch16_224")
    with pytest.raises(VitrailError, match="Did you mean: vit_tiny_patch16_224"):
        find_model("vit_tini_patch16_224")
    with pytest.raises(VitrailError, match="leave --weights out"):
        find_model(str(tmp_path / "run"), weights="x.pt")
    with pytest.raises(VitrailError, match="Cannot use the device 'warp'"):
        find_model(str(tmp_path / "run"), device="warp")


def test_a_drawing_shows_image_and_bars(brightness: Brightness, folder: Path) -> None:
    [from_file], [held] = (
        predict(brightness, folder / "b" / "3.png"),
        predict(brightness, np.full((9, 12), 230, np.uint8)),
    )
    for answer in (from_file, held):
        drawing = answer.draw(k=2, width=240)
        assert drawing.width == 240 and drawing.height > 180
        assert drawing.getpixel((120, 90)) == (230, 230, 230)
        colours = {colour for _, colour in drawing.getcolors(1 << 16)}
        assert (0x2F, 0x6D, 0xB3) in colours  # a bar was drawn


@pytest.mark.shared
def test_imagenet_images_get_their_names(shared: Path) -> None:
    model = vitrail.create_model("vit_tiny_patch16_224", weights=shared / "weights" / "vit_tiny_patch16_224.pt")
    answers = predict(model, shared / "data" / "imagenet17")
    labels = {Path(answer.path).name.partition("_")[0]: answer.label for answer in answers}
    assert len(answers) == 17 and all(answer.error is None for answer in answers)
    assert labels["n02125311"] == "cougar" and labels["n03240683"] == "drilling platform"
    assert labels["n02412080"] == "ram" and labels["n01847000"] == "drake"


@pytest.mark.shared
def test_bf16_predicts_the_same_classes_as_fp32(shared: Path) -> None:
    """All photographs of ImageNet, and in a mixed lot each that is decided: that leads by more than bf16 may move."""
    from vitrail.fused.accuracy import compare

    model = vitrail.create_model("vit_tiny_patch16_224", weights=shared / "weights" / "vit_tiny_patch16_224.pt").eval()
    prepare = EvalTransform(model.preprocess)
    photographs = sorted((shared / "data" / "imagenet17").glob("*.JPEG"))
    mixed = sorted((shared / "data" / "restoration" / "bsds500" / "test").glob("*.jpg"))[:40]
    for paths, trained in ((photographs, True), (mixed, False)):
        images = prepare.batch(torch.stack([prepare.to_pixels(open_image(path)) for path in paths]))
        with torch.inference_mode():
            got, expected = vitrail.optimize(model, precision="bf16")(images), model(images)
        assert compare(got, expected, "bf16", trained).holds


@pytest.mark.shared
def test_draft_decoding_keeps_the_predictions(shared: Path, tmp_path: Path) -> None:
    """Mosaics of real photographs: as large as a camera's images, sharp to the pixel. Logits within bf16's bar."""
    paths = sorted((shared / "data" / "restoration" / "bsds500" / "test").glob("*.jpg"))
    tiles = [image.crop((0, 0, 480, 320)) for image in map(open_image, paths) if image.size == (481, 321)]
    for i in range(6):
        mosaic = Image.new("RGB", (6 * 480, 6 * 320))
        for place in range(36):
            mosaic.paste(tiles[(17 * i + place) % len(tiles)], (place % 6 * 480, place // 6 * 320))
        mosaic.save(tmp_path / f"{i}.jpg", quality=92)
    model = vitrail.create_model("vit_tiny_patch16_224", weights=shared / "weights" / "vit_tiny_patch16_224.pt").eval()
    prepare, least = EvalTransform(model.preprocess), reduced_side(model.preprocess)
    both = []
    for draft in (None, least):
        images = [open_image(path, draft=draft, aligned=True) for path in sorted(tmp_path.glob("*.jpg"))]
        assert {image.size for image in images} == {(2880, 1920) if draft is None else (1440, 960)}
        with torch.inference_mode():
            both.append(model(prepare.batch(torch.stack([prepare.to_pixels(image) for image in images]))))
    whole, small = both
    assert torch.equal(whole.argmax(1), small.argmax(1))
    assert (small - whole).abs().max() <= 2e-2 * (whole.max() - whole.min())


def test_prefetching_waits_for_the_gate() -> None:
    gate, begun = Event(), []
    source = prefetch_map(lambda i: begun.append(i) or i, range(9), window=3, threads=2, gate=gate)
    first = ThreadPoolExecutor(1).submit(next, source)
    with pytest.raises(TimeoutError):
        first.result(timeout=0.05)
    assert begun == []
    gate.set()
    assert [first.result(), *source] == list(range(9)) == sorted(begun)


def photo(path: Path, size: tuple[int, int]) -> Path:
    """Draw a JPEG with smooth colours."""
    y, x = np.mgrid[: size[1], : size[0]]
    planes = [128 + 100 * np.sin(x / (40 + 20 * i) + y / 70 + i) for i in range(3)]
    Image.fromarray(np.stack(planes, -1).astype(np.uint8)).save(path, quality=92)
    return path


def test_draft_decoding_of_large_jpegs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sides: list[tuple[int, int]] = []
    protocol = Preprocess(size=32, crop=1.0)
    model = vitrail.create_model("vit_tiny_patch16_224", num_classes=3, depth=1, preprocess=protocol, image_size=32)
    plain = EvalTransform.to_pixels

    def to_pixels(self: EvalTransform, image: Image.Image, draws: object = None) -> Tensor:
        sides.append(image.size)
        return plain(self, image)

    monkeypatch.setattr(EvalTransform, "to_pixels", to_pixels)
    large, odd = photo(tmp_path / "a.jpg", (320, 240)), photo(tmp_path / "b.jpg", (321, 240))
    answers = predict(model, [large, odd, photo(tmp_path / "c.jpg", (200, 150))], draft=True, batch=1)
    exact = predict(model, [large, odd], batch=1)
    assert sorted(sides[:3]) == [(160, 120), (200, 150), (321, 240)] and sorted(sides[3:]) == [(320, 240), (321, 240)]
    assert answers[0].probability == pytest.approx(exact[0].probability, abs=5e-3)
    assert answers[1] == exact[1]
