"""Both precisions, where the machine has them."""

import pytest
import torch

from vitrail.native.library import refusal


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Give fp32 and bf16 in turn."""
    reason = refusal(request.param)
    if reason:
        pytest.skip(reason)
    return request.param
