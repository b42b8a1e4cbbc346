"""Report and explain page are one design, with standard words and true numbers, and do not stretch noise."""

import re
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from shades import Brightness, grey_set

from vitrail.explain.figures import heat_tile
from vitrail.explain.heatmap import Heatmap
from vitrail.explain.overlay import contrast, normalised, overlay
from vitrail.explain.report import album, save_page
from vitrail.inference.evaluate import evaluate
from vitrail.models import create_model
from vitrail.report.html_page import render
from vitrail.report.run_folder import RecordedRun
from vitrail.tasks.classes.calibration import Bin
from vitrail.tasks.classes.summary import summary_text
from vitrail.tasks.confidence_interval import wilson
from vitrail.tasks.page_design import page_glass, page_style


@pytest.fixture(scope="module")
def report():
    brightness = Brightness()
    brightness.labels = ("dark", "light")
    brightness.centres.data = brightness.centres.data[[0, 3]]
    data = grey_set([20, 30, 150, 220, 230, 20], [0, 0, 0, 1, 1, 1], classes=brightness.labels)
    return render(RecordedRun("two", evaluation=evaluate(brightness, data)))


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    model = create_model("vit_tiny_patch16_224", depth=2, dim=24, num_heads=2, num_classes=2, image_size=48).eval()
    images = [("a.png", Image.effect_noise((60, 60), 80).convert("RGB"))]
    path = save_page(list(album(model, images, ["ant", "bee"])), tmp_path_factory.mktemp("page"), model)
    return path.read_text()


def test_both_pages_have_one_design(report, explained):
    for page in (report, explained):
        assert str(page_style()) in page and str(page_glass()) in page and 'lang="en"' in page
        assert "default-src 'none'" in page and page.count("<main>") == 1 and page.count("<h1>") == 1
    assert (
        "prefers-color-scheme: dark" in page_style() and "#fff; }" not in str(page_style()).partition(".shots")[2][:900]
    )


def test_figures_and_page_use_the_same_terms(explained):
    captions = re.findall(r"<figcaption>([^<]*)</figcaption>", explained)
    assert {"what the model saw"} < set(captions) and sum(text.startswith("head ") for text in captions) == 2
    assert "<h3>Heads of block 1: what the class token attends to</h3>" in explained
    assert 'class="dot many"' in explained  # the chart of distances is drawn in the colours of the page


def test_the_report_uses_standard_terms(report):
    for words in ("Confusion matrix", "Accuracy (top-1)", "predicted →", "recall, precision, F1", "Calibration"):
        assert words in report, words
    assert "--cell:84px" in report and 'class="confusion"' in report  # two classes: large cells, upright names


def test_contrast_is_printed_and_noise_is_not_stretched():
    even = 1 + 0.02 * torch.rand(8, 8)
    assert normalised(even).max() < 0.06 and contrast(even) < 1.02
    peaked = even.clone()
    peaked[:2] = 9.0
    assert normalised(peaked).max() == 1
    image = Image.new("RGB", (64, 64), (90, 120, 150))
    assert heat_tile(image, Heatmap(even[None], ""), "head 3").caption == "head 3, 1.0x"
    bright = max(sum(pixel) for _, pixel in overlay(image, even).getcolors(2**16) or [])
    assert bright < max(sum(pixel) for _, pixel in overlay(image, peaked).getcolors(2**16) or [])


def evaluation(hits: int, samples: int, confidence: float):
    bins = (Bin(0.0, 1.0, samples, confidence, hits / samples),)
    calibration = SimpleNamespace(confidence=confidence, bins=bins)
    named = {"nouns": "images", "data": "photos val", "most_confused": lambda count: []}
    return SimpleNamespace(top1=wilson(hits, samples), samples=samples, calibration=calibration, **named)


@pytest.mark.parametrize(
    ("hits", "samples", "confidence", "words"),
    [
        (142, 153, 0.906, "2.2 points below that, which may be chance with 153 images."),
        (9280, 10_000, 0.906, "2.2 points below that: it is less sure than it should be."),
        (8005, 10_000, 0.8916, "9.2 points above that: it is surer"),  # 80.0 % or 80.1 % and 89.2 % are printed
        (8000, 10_000, 0.81, "close to that"),
    ],
)
def test_a_gap_of_confidence_is_that_of_the_printed_figures_or_chance(hits, samples, confidence, words):
    text = summary_text(evaluation(hits, samples, confidence))
    assert words in text
    printed = [float(value) for value in re.findall(r"([\d.]+)%", text)]
    if found := re.search(r"([\d.]+) points", text):
        assert float(found[1]) == pytest.approx(abs(printed[-1] - printed[0]))
