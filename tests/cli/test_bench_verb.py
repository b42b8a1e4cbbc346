"""`vitrail bench`: flags, exit codes, and the files it writes."""

import json
from datetime import date

import pytest
import torch

from vitrail.bench import runner
from vitrail.machine.matmul_peak import Product

SMALL = ["bench", "vit_tiny_patch16_224", "--imgsz", "32", "--set", "depth=1", "dim=32", "num_heads=2"]
FEW = ["--batch", "1,2", "--rounds", "2", "--seconds", "0", "--check", "3", "--no-starts", "--peers", "none"]
QUICK = [*SMALL, *FEW, "--precision", "fp32"]


@pytest.fixture(autouse=True)
def _one_product(monkeypatch):
    """Take a product that needs no search."""
    product = Product("linear 2 x 3 x 4", 48, lambda: torch.ones(2, 3) @ torch.ones(3, 4))
    monkeypatch.setattr(runner, "best_product", lambda dtype, device: product)


def test_bench_prints_a_table_for_each_batch(run):
    ran = run(*QUICK)
    assert ran.code == 0 and "Batch 1\n" in ran.out and "Batch 2\n" in ran.out
    assert len([line for line in ran.out.splitlines() if line.startswith("vitrail  ")]) >= 2
    assert "vitrail, other ways" not in ran.out and "preparing vitrail" in ran.err


def test_a_model_of_texts_is_refused_by_name(run):
    ran = run("bench", "bert_tiny", "--set", "depth=1", "dim=8", "num_heads=1", "vocab_size=9", "--peers", "none")
    assert ran.code == 2 and "bert_tiny is of the task" in ran.err and "take one of those" in ran.err


def test_bf16_lists_the_other_variants(run):
    ran = run(*QUICK, "--batch", "2", "--precision", "bf16")
    assert ran.code == 0 and ("vitrail, other ways: autocast" in ran.out or "other ways: bf16 weights" in ran.out)


def test_bench_writes_a_report_and_raw_times(run, tmp_path):
    assert run(*QUICK, "--out", str(tmp_path)).code == 0
    name = f"vit_tiny_patch16_224-fp32-{date.today().isoformat()}"
    values = json.loads((tmp_path / f"{name}.json").read_text())
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.json", f"{name}.md"]
    assert [phase["batch"] for phase in values["phases"]] == [1, 2]
    assert all(len(entry["turns"]["seconds"]) == 2 for phase in values["phases"] for entry in phase["entries"])
    assert all("vitrail" in [entry["name"] for entry in phase["entries"]] for phase in values["phases"])
    page = (tmp_path / f"{name}.md").read_text()
    assert page.startswith("# vit_tiny_patch16_224, fp32, ") and "- Processor: " in page and "## Batch 2" in page
    assert run(*QUICK, "--out", str(tmp_path / "mine.md")).code == 0
    assert {"mine.md", "mine.json"} <= {path.name for path in tmp_path.iterdir()}


def test_wrong_own_outputs_exit_with_1(run, monkeypatch):
    class Off:
        holds, error, same, trained, decided, same_decided = False, 0.5, 0.0, True, 0, 1.0

    monkeypatch.setattr(runner, "compare", lambda *_: Off())
    ran = run(*QUICK)
    assert ran.code == 1 and "its speed does not count" in ran.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--batch", "1,x"], "--batch takes whole numbers such as 1,8,32; got '1,x'"),
        (["--batch", "0"], "each must be at least 1"),
        (["--rounds", "0"], "rounds is 0"),
        (["--peers", "timm"], "Unknown peer 'timm'. Did you mean: timm-eager"),
        (["--precision", "fp16"], "fp16"),
        (["--out", "no/such/page.md"], "there is no folder no/such"),
        (["--out", "page.txt"], "neither a folder that exists nor a file that ends in .md"),
        (["--set", "dpth=1"], "Unknown field of vit_tiny_patch16_224 'dpth'. Did you mean: depth"),
        (["--data", "no/such/folder"], "There is no image at 'no/such/folder'"),
        (["--weights", "no/such.pt"], "no/such.pt"),
        (["--speed", "3"], "Unknown flag '--speed'"),
    ],
)
def test_invalid_requests_exit_with_2(run, words, told):
    ran = run(*QUICK, *words)
    assert ran.code == 2 and told in ran.err


def test_an_unknown_model_gets_the_nearest(run):
    ran = run("bench", "swin_tiny_patch4")
    assert ran.code == 2 and "swin_tiny_patch4_window7_224" in ran.err
