"""docs/token_mixer.md shows the whole file that it speaks of, and its other code runs."""

import ast
import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import flop_registry

import vitrail
from vitrail.inference.flops import count_macs
from vitrail.models import make_config

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "linear_attention.py"
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "token_mixer.md").read_text(), re.DOTALL)


def code(text: str) -> str:
    """Return a program without its comments and docstrings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def test_the_snippets_are_the_file() -> None:
    assert code("\n".join(BLOCKS[:4])) == code(RECIPE.read_text())


def test_the_printed_unconverted_parts_are_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRAIL_MODELS", str(RECIPE))
    call, answer = BLOCKS[4].strip().splitlines()
    assert eval(call, {"vitrail": vitrail}) == ast.literal_eval(answer.removeprefix("# "))


def test_the_formula_equals_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fourier(torch.nn.Module):
        config = make_config("vit_tiny_patch16_224", image_size=16)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.fft.rfft(images).real

    try:
        exec(BLOCKS[5], {})
        assert count_macs(Fourier()) == 2.5 * 3 * 16 * 16 * 4 / 2
    finally:
        flop_registry.pop(torch.ops.aten._fft_r2c)
