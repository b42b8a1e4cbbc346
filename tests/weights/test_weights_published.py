"""The published variants at their full size, as the parity benchmark compares them."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("pattern", ["vit_*", "deit_*", "swin_*", "poolformer_*", "mixer_*", "resnetv2_*"])
def test_published_variants_up_to_thirty_million_parameters_agree_with_every_peer(pattern):
    script = Path(__file__).parents[2] / "benchmarks" / "parity.py"
    ran = subprocess.run([sys.executable, script, pattern, "--max-parameters", "3e7"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-2000:]
    assert "| timm |" in ran.stdout, "something was compared"
