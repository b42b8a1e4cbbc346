"""The plain ways are plain operators: `torch.jit.trace` records them, and `torch.export` does."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_models import relative, small

MODELS = Path(__file__).parent.parent / "models"


def test_traced_models_run_on_other_images() -> None:
    # In a process of its own: sizes are tensors while `torch.jit.trace` looks on, which the checks of types refuse.
    code = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
from small_models import relative, small
for name in sys.argv[1:]:
    model, images = small(name), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        recorded = torch.jit.trace(model, torch.randn(2, 3, 64, 64), check_trace=False)
        assert relative(recorded(images), model(images)) < 1e-6, name
    print(name, end=";")
"""
    names = ("vit", "swin official", "swin timm", "swin masked", "nat", "dinat", "poolformer", "mixer", "bit")
    done = subprocess.run([sys.executable, "-c", code, *names], cwd=MODELS, capture_output=True, text=True, check=False)
    assert done.stdout == ";".join((*names, "")), done.stderr


@pytest.mark.parametrize("name", ["swin official", "nat"])
def test_exported_models_run_on_other_images(name: str) -> None:
    model, images = small(name), torch.randn(2, 3, 64, 64)
    program = torch.export.export(model, (torch.randn(2, 3, 64, 64),)).module()
    with torch.no_grad():
        assert relative(program(images), model(images)) < 1e-6
