"""`vitrail.optimize` on models with edits: converted, and equal to the model; unconverted parts are reported."""

import pytest
import torch
from small_models import relative, small

from vitrail.compress.compress import compress, prune_heads
from vitrail.compress.ranks import low_rank_layers
from vitrail.compress.settings import CompressSettings
from vitrail.edits.edit import apply_edits
from vitrail.edits.heads import prunable_heads
from vitrail.edits.low_rank import LowRank
from vitrail.export.program import export_program
from vitrail.fused.optimize import optimize


def edited(name):
    """A small model with fewer heads, narrower MLPs and layers of half the rank."""
    model = compress(small(name), CompressSettings(mlp=0.3))
    prune_heads(model, {mixer: list(range(1, count)) for mixer, count in prunable_heads(model).items() if count > 1})
    return apply_edits(
        model, LowRank({key: min(layer.weight.shape) // 4 * 2 for key, layer in low_rank_layers(model).items()})
    )


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("vit", ()),
        ("swin official", ()),
        ("poolformer", ("its layers are products",)),
        ("nat", ("its qkv is FactorizedLinear",)),
        ("swin v2", ("its qkv.linear is FactorizedLinear", "its scale is LayerNorm")),
        ("pvt v2", ("its kv is FactorizedLinear",)),
    ],
)
@pytest.mark.parametrize(("precision", "error"), [("fp32", 1e-5), ("bf16", 3e-2)])
def test_an_optimized_model_with_edits_equals_the_model(name, left, precision, error):
    model, images = edited(name), torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    fast = optimize(model, precision)
    with torch.no_grad():
        assert relative(fast(images), model(images)) < error
    told = " ".join(fast.unconverted)
    assert all(word in told for word in left) and (left or not told)


def test_int8_and_training_report_unsupported_edits():
    model = edited("vit")
    fast = optimize(model, "int8")
    assert any("is FactorizedLinear" in reason for reason in fast.unconverted)


@pytest.mark.slow
def test_a_model_with_edits_is_exported():
    model = edited("vit")
    program = export_program(model, "fixed")
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(program.exported.module(check_guards=False)(images), model(images))
