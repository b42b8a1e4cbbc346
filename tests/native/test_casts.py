"""Compiled casts equal PyTorch's, and saturate in fp16."""

import pytest
import torch

from vitrail.native.build import refusal
from vitrail.native.casts import _NATIVE, as_residual, cast

SPECIAL = [0.0, -0.0, 1.0, -1.5, 6e-8, 65504.0, 65519.0, 1.00390625, float("nan")]  # fp32's subnormals become 0


@pytest.mark.skipif(refusal(torch.bfloat16) is not None, reason=str(refusal(torch.bfloat16)))
@pytest.mark.parametrize(("before", "after"), sorted(_NATIVE, key=str))
@pytest.mark.parametrize("count", [0, 1, 9, 16, 5000])
def test_a_cast_is_that_of_pytorch(count: int, before: torch.dtype, after: torch.dtype) -> None:
    x = torch.cat([torch.tensor(SPECIAL), torch.randn(5000) * 100])[:count].to(before)
    x = x[x.float().abs() <= 65504] if after == torch.float16 else x
    torch.testing.assert_close(cast(x, after), x.to(after), rtol=0, atol=0, equal_nan=True)
    if count > 100:
        strided = x[: x.numel() // 4 * 4].view(-1, 4)[:, :3]
        torch.testing.assert_close(cast(strided, after), strided.to(after), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("before", [torch.float32, torch.bfloat16])
def test_the_residual_saturates_and_keeps_nan(before: torch.dtype) -> None:
    got = as_residual(torch.tensor([1e9, -float("inf"), float("nan"), 2.0] * 9).to(before), torch.float16)
    assert got[:2].tolist() == [65504.0, -65504.0] and got[2].isnan() and got[3] == 2
    assert as_residual(torch.tensor([float("inf")]), torch.float32).isinf()


def test_other_dtypes_and_gradients_are_pytorchs() -> None:
    x = torch.randn(3, requires_grad=True)
    assert cast(x, torch.bfloat16).requires_grad and cast(x, torch.float64).dtype == torch.float64
