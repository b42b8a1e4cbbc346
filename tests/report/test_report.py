"""The report: complete, self-contained, and safe against names of classes and files."""

import json
import re
import shlex
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accessible import findings
from PIL import Image
from shades import Brightness, grey_set

import vitrail
from vitrail.cli import verb_class
from vitrail.cli.arguments import parse
from vitrail.errors import DataError, VitrailError
from vitrail.explain.report import album, save_page
from vitrail.inference.evaluate import evaluate
from vitrail.report.html_page import render, write_report
from vitrail.report.run_folder import RecordedRun, read_run, train_command
from vitrail.tasks.classes.confusion_plot import confusion_cells, confusion_figure
from vitrail.tasks.classify.evaluation import ClassificationEvaluation
from vitrail.tasks.data_url import decode
from vitrail.tasks.evaluation_file import save_evaluation
from vitrail.training.config import TrainConfig

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """The page as a browser parses it: tags, addresses, images without alt texts, text."""

    void = frozenset({"meta", "link", "img", "br"})

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.silent: list[str] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.addresses += [
            values[key] or "" for key in ("src", "href", "action", "data", "xlink:href") if key in values
        ]
        if (tag == "img" and not values.get("alt")) or (values.get("role") == "img" and not values.get("aria-label")):
            self.silent.append(tag)
        assert not any(name.startswith("on") for name in values), values
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def evaluated(tiny: torch.nn.Module) -> ClassificationEvaluation:
    return evaluate(tiny, "digits")


@pytest.fixture
def run(tiny: torch.nn.Module, evaluated: ClassificationEvaluation, tmp_path: Path) -> Path:
    """A finished run folder."""
    folder = tmp_path / "first"
    vitrail.save_model(tiny, folder / "weights" / "best")
    config = {"data": "digits", "model": "vit_tiny_patch16_224", "epochs": 3, "batch": 10, "smoothing": 0.1, "set": []}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows: list[dict[str, object]] = []
    for step in range(1, 31):
        rows.append({"kind": "step", "step": step, "epoch": (step - 1) // 10, "loss": 2.0 / step, "lr": 1e-3 / step})
        if step % 10 == 0:
            losses = {"train_loss": 2 / step, "val_loss": None if step == 20 else 3 / step}
            rows.append(
                {"kind": "epoch", "step": step, "epoch": step / 10, **losses, "top1": step / 40, "seconds": step}
            )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "summary.json").write_text(json.dumps({"top1": 0.5, "seconds": 71, "parameters": 5}))
    (folder / "env.json").write_text(json.dumps({"cores": 2, "command": "vitrail train digits --epochs 3"}))
    save_evaluation(evaluated, folder / "evaluation.json")
    return folder


def test_a_finished_run(run: Path, evaluated: ClassificationEvaluation) -> None:
    path = write_report(run)
    page = Page(path.read_text(encoding="utf-8"))
    assert path == run / "report.html" and path.stat().st_size < 5_000_000
    assert not page.open and not page.silent
    assert all(address.startswith("data:") for address in page.addresses)
    assert not {"script", "iframe", "object", "form"} & set(page.tags)
    assert page.tags.count("polyline") == 6  # five curves, and the mean distance of attention
    for text in ("first", "Worst errors", "Where the model looks", "vitrail train digits --epochs 3", "1 min 11 s"):
        assert text in page.words, text
    assert f"{evaluated.top1.value:.1%}" in page.words and "has not finished" not in page.words


def test_an_unfinished_run(run: Path) -> None:
    for name in ("summary.json", "evaluation.json"):
        (run / name).unlink()
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join(lines[:15]) + b'{"kind": "ste')  # it is being written at this moment
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "This run has not finished. It stands at epoch 1 of 3." in " ".join(page.words.split())
    assert "Best top-1 so far" in page.words and not page.open


def test_a_run_without_an_epoch(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: digits\n")
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "has not finished" in page.words and "vitrail train --data digits" in page.words


def test_names_are_escaped(run: Path, evaluated: ClassificationEvaluation) -> None:
    labels = (EVIL, *evaluated.labels[1:])
    shown = [replace(each, id=EVIL, label=EVIL, predicted=EVIL) for each in evaluated.errors]
    classes = (replace(evaluated.classes[0], label=EVIL), *evaluated.classes[1:])
    evil = replace(evaluated, model=EVIL, data=EVIL, device=EVIL, labels=labels, errors=tuple(shown), classes=classes)
    save_evaluation(evil, run / "evaluation.json")
    (run / "config.yaml").write_text(yaml.safe_dump({"data": EVIL, EVIL: EVIL}))
    (run / "env.json").write_text(json.dumps({EVIL: EVIL, "command": EVIL}))
    html = render(replace(read_run(run), name=EVIL))
    page = Page(html)  # its parser fails on any attribute that starts with "on"
    assert "script" not in page.tags and not page.open
    assert EVIL in page.words and "<script" not in html
    assert all(address.startswith("data:image/") or address == "data:," for address in page.addresses)
    assert "default-src 'none'" in html


def test_image_names_cannot_be_urls(run: Path, evaluated: ClassificationEvaluation) -> None:
    values = evaluated.to_dict()
    values["errors"][0]["image"] = "https://example.org/x.png"
    (run / "evaluation.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match="not an image"):
        write_report(run)


def test_a_model_of_a_thousand_classes(tmp_path: Path) -> None:
    rng, k = np.random.default_rng(0), 1000
    model = Brightness()
    model.labels = tuple(f"class number {i} with a long name" for i in range(k))
    model.forward = lambda images: torch.from_numpy(rng.normal(size=(len(images), k)))  # type: ignore[method-assign]
    data = grey_set([9] * 300, rng.integers(0, k, 300).tolist(), classes=model.labels)
    save_evaluation(evaluate(model, data), tmp_path / "evaluation.json")
    path = write_report(tmp_path)
    page = Page(path.read_text(encoding="utf-8"))
    assert path.stat().st_size < 1_000_000
    assert "has not finished" not in page.words and "Shown are the 200" in page.words


@pytest.mark.parametrize("name", ["config.yaml", "env.json", "summary.json", "evaluation.json", "metrics.jsonl"])
@pytest.mark.parametrize("content", [b"\xff\xfe\n", b"[1, 2]\n", b'{"a": \n'])
def test_a_damaged_file_is_named(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    with pytest.raises(DataError, match=re.escape(name)):
        write_report(run)


def test_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(VitrailError, match="is not a run folder"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(data="my digits"),
        TrainConfig(data="x", ema=0.99, set=("depths=2,2", "dim=48"), minutes=1.5, lr="auto", compile=True, batch=7),
        TrainConfig(data="it's", weights="a b.pt", teacher="runs/big", threads=2, deterministic=True, patience=3),
    ],
)
def test_the_command_repeats_the_config(config: TrainConfig) -> None:
    verb, action, *words = shlex.split(train_command(asdict(replace(config, out="runs/elsewhere"))))
    assert (verb, action) == ("vitrail", "train")
    assert asdict(parse("train", verb_class("train"), words)) == {**asdict(config), "config": None}


def test_a_resumed_run_prints_its_first_command(run: Path) -> None:
    (run / "env.json").write_text(json.dumps({"command": "vitrail train --resume runs/first"}))
    assert read_run(run).command == "vitrail train --data digits --model vit_tiny_patch16_224 --epochs 3 --batch 10"


def test_every_error_is_visible_in_the_confusion_matrix() -> None:
    matrix = np.diag(np.full(2000, 50))
    matrix[1234, 17] = 50
    pixels = np.asarray(decode(confusion_figure(matrix)).convert("RGB")).astype(int)
    assert max(pixels.shape[:2]) <= 640
    reddest = (pixels[:, :, 0] - pixels[:, :, 2]).argmax()
    row, column = np.unravel_index(reddest, pixels.shape[:2])
    assert (row, column) == (1234 // 4, 17 // 4)


def test_cells_show_counts_and_shares() -> None:
    cells = confusion_cells(np.array([[3, 1], [0, 0]]))
    assert [(cell.count, cell.share, cell.right) for cell in cells[0]] == [(3, 0.75, True), (1, 0.25, False)]
    assert [cell.shade for cell in cells[1]] == [0, 0]


def test_one_class_and_one_image() -> None:
    result = evaluate(Brightness(), grey_set([20], [0]))
    page = Page(render(RecordedRun("small", evaluation=result)))
    assert "There are none: every image was named right." in page.words and not page.open


def test_every_class_wrong() -> None:
    brightness = Brightness()
    brightness.labels = ("white", "light", "dim", "dark")
    result = evaluate(brightness, grey_set([20, 90, 160, 230], [0, 1, 2, 3]))
    assert result.top1.value == 0 and not result.examples
    assert not Page(render(RecordedRun("wrong", evaluation=result))).open


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_reports_no_errors(run: Path, tiny: torch.nn.Module, scheme: str, width: int, tmp_path: Path) -> None:
    browser_path = Path("/usr/bin/chromium")
    if not browser_path.exists():
        pytest.skip("no browser at /usr/bin/chromium")
    sync = pytest.importorskip("playwright.sync_api")
    images = [("grey.png", Image.effect_noise((16, 16), 80))]
    paths = [write_report(run), save_page(list(album(tiny, images, tuple("0123456789"))), tmp_path, tiny)]
    requests: list[str] = []
    complaints: list[str] = []
    with sync.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=str(browser_path), args=arguments)
        settings = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}, "bypass_csp": True}
        page = browser.new_context(**settings).new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        for path in paths:
            page.goto(path.as_uri())
            page.wait_for_load_state("networkidle")
            sizes = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
            assert sizes[0] <= sizes[1]  # nothing sticks out to the side
            assert page.evaluate("[...document.images].filter(image => !image.naturalWidth).length") == 0
            assert findings(page) == []
        browser.close()
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri() for path in paths]
    assert complaints == []
