"""Fused branches against the reference in fp64: outputs, gradients, dtypes."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from closeness import off
from vitrail.grid import Grid
from vitrail.kernels.fused_attention import fused_attention
from vitrail.kernels.fused_attention import reference as attention
from vitrail.kernels.fused_mlp import fused_mlp
from vitrail.kernels.fused_mlp import reference as mlp
from vitrail.kernels.fused_neighborhood import fused_neighborhood
from vitrail.kernels.fused_neighborhood import reference as neighborhood
from vitrail.kernels.fused_types import AttentionGroups, LinearWeights, NeighborhoodSpec, NormWeights
from vitrail.native.build import refusal

CLOSE = {"fp32": 3e-6, "bf16": 1.5e-2, "mixed": 1.5e-2}
B, N, HEADS = 3, 50, 2
DROP_SCALE = torch.tensor([0.0, 1.25, 1.25])


@pytest.fixture(params=["fp32", "bf16", "mixed"])
def precision(request: pytest.FixtureRequest) -> str:
    """fp32; a residual and products in bf16 under autocast; a residual in fp32 and products in bf16."""
    reason = refusal(torch.float32 if request.param == "fp32" else torch.bfloat16)
    if reason:
        pytest.skip(reason)
    return request.param


def arithmetic(precision: str) -> AbstractContextManager[Any]:
    return nullcontext() if precision == "fp32" else torch.autocast("cpu", torch.bfloat16)


def tokens(channels: int, precision: str) -> Tensor:
    return torch.randn(B, N, channels).to(torch.bfloat16 if precision == "bf16" else torch.float32).requires_grad_()


def norm_weights(channels: int) -> list[Tensor]:
    return [torch.randn(channels) / 5 + 1, torch.randn(channels) / 5]


def layer(inputs: int, outputs: int) -> list[Tensor]:
    return [torch.randn(outputs, inputs) / inputs**0.5, torch.randn(outputs)]


def mlp_case(channels: int, hidden: int, drop_scale: Tensor | None) -> tuple[Callable[..., Tensor], list[Tensor]]:
    def run(op: Callable[..., Tensor], x: Tensor, scale: Tensor, shift: Tensor, *rest: Tensor) -> Tensor:
        return op(x, NormWeights(scale, shift, 1e-5), LinearWeights(*rest[:2]), LinearWeights(*rest[2:]), drop_scale)

    return run, [*norm_weights(channels), *layer(channels, hidden), *layer(hidden, channels)]


def attention_case(channels: int, groups: int, drop_scale: Tensor | None) -> tuple[Callable[..., Tensor], list[Tensor]]:
    token_index = torch.full((groups * 9,), -1)
    token_index[torch.randperm(groups * 9)[:N]] = torch.arange(N)
    mask_index = torch.randint(2, (groups,))

    def run(op: Callable[..., Tensor], x: Tensor, scale: Tensor, shift: Tensor, *rest: Tensor) -> Tensor:
        meeting = AttentionGroups(HEADS, rest[4], mask_index, token_index.view(groups, 9))
        return op(
            x, NormWeights(scale, shift, 1e-5), LinearWeights(*rest[:2]), LinearWeights(*rest[2:4]), meeting, drop_scale
        )

    weights = [*norm_weights(channels), *layer(channels, 3 * channels), *layer(channels, channels)]
    return run, [*weights, torch.randn(2, HEADS, 9, 9)]


def neighborhood_case(
    channels: int, grid: Grid, dilation: int, drop_scale: Tensor | None
) -> tuple[Callable[..., Tensor], list[Tensor]]:
    def run(op: Callable[..., Tensor], x: Tensor, scale: Tensor, shift: Tensor, *rest: Tensor) -> Tensor:
        spec = NeighborhoodSpec(HEADS, rest[4], grid, kernel_size=3, dilation=dilation)
        return op(
            x, NormWeights(scale, shift, 1e-5), LinearWeights(*rest[:2]), LinearWeights(*rest[2:4]), spec, drop_scale
        )

    weights = [*norm_weights(channels), *layer(channels, 3 * channels), *layer(channels, channels)]
    return run, [*weights, torch.randn(25, HEADS)]


CASES = [
    pytest.param(fused_mlp, mlp, mlp_case(32, 128, None), id="mlp"),
    pytest.param(fused_mlp, mlp, mlp_case(20, 36, DROP_SCALE), id="mlp, dropped"),  # no whole vectors
    pytest.param(fused_attention, attention, attention_case(32, 6, None), id="attention"),
    pytest.param(fused_attention, attention, attention_case(20, 7, DROP_SCALE), id="attention, dropped"),
    pytest.param(fused_neighborhood, neighborhood, neighborhood_case(32, Grid(5, 10), 1, None), id="neighborhood"),
    pytest.param(
        fused_neighborhood,
        neighborhood,
        neighborhood_case(20, Grid(10, 5), 2, DROP_SCALE),  # a column of padding
        id="neighborhood, dropped",
    ),
]
each = pytest.mark.parametrize(("kernel", "reference", "case"), CASES)


def compiled_says(run, kernel, *arguments) -> str | None:
    """Return why the compiled backend refuses, or None where it would run."""
    return dict(run(kernel.explain, *arguments))["cpp"]


@each
def test_outputs_and_gradients_are_the_reference_s(kernel, reference, case, precision):
    run, weights = case
    x = tokens(weights[0].shape[0], precision)
    weights = [weight.clone().requires_grad_() for weight in weights]
    with arithmetic(precision):
        assert dict(run(kernel.explain, x, *weights))["cpp"] is None
        y = run(kernel, x, *weights)
    assert y.dtype == x.dtype
    exact = [value.detach().double().requires_grad_() for value in (x, *weights)]
    want = run(reference, *exact)
    assert off(y, want) < CLOSE[precision]
    into = torch.randn_like(y)
    got = torch.autograd.grad(y, [x, *weights], into)
    for value, operand, exactly in zip(
        got, [x, *weights], torch.autograd.grad(want, exact, into.double()), strict=True
    ):
        assert value.dtype == operand.dtype
        assert off(value, exactly) < CLOSE[precision]


@each
def test_two_runs_agree_to_the_bit(kernel, reference, case, precision):
    run, weights = case
    x = tokens(weights[0].shape[0], precision)
    weights = [weight.clone().requires_grad_() for weight in weights]
    into = torch.randn_like(x)

    def all_of_it() -> list[Tensor]:
        with arithmetic(precision):
            y = run(kernel, x, *weights)
        return [y, *torch.autograd.grad(y, [x, *weights], into)]

    assert all(torch.equal(a, b) for a, b in zip(all_of_it(), all_of_it(), strict=True))


@each
def test_frozen_parameters_get_no_gradient_work(kernel, reference, case):
    run, weights = case
    x = tokens(weights[0].shape[0], "fp32")
    learning = [weight.clone().requires_grad_() for weight in weights]
    want = torch.autograd.grad(run(kernel, x, *learning).square().sum(), [x, *learning])
    run(kernel, x, *weights).square().sum().backward()  # only the input
    torch.testing.assert_close(x.grad, want[0], rtol=0, atol=0)
    frozen = x.detach()
    for i in range(len(weights)):
        some = [weight.clone().requires_grad_(i == j) for j, weight in enumerate(weights)]
        run(kernel, frozen, *some).square().sum().backward()
        assert [weight.grad is not None for weight in some] == [i == j for j in range(len(weights))]
        torch.testing.assert_close(some[i].grad, want[1 + i], rtol=0, atol=0)


@each
def test_a_dropped_sample_is_left_alone(kernel, reference, case):
    run, weights = case
    x = tokens(weights[0].shape[0], "fp32")
    y = run(kernel, x, *weights)
    if weights[0].shape[0] == 20:  # the cases that drop the first sample
        assert torch.equal(y[0], x[0])
        (into_x,) = torch.autograd.grad(y[0].sum(), [x])
        assert (into_x[0] == 1).all() and not into_x[1:].any()
    else:
        assert not torch.isclose(y, x).all()


def test_odd_widths_are_computed_in_fp32_and_refused_in_bf16():
    run, weights = mlp_case(15, 33, None)
    x = tokens(15, "fp32")
    assert compiled_says(run, fused_mlp, x, *weights) is None
    exact = run(mlp, x.detach().double(), *[weight.double() for weight in weights])
    assert off(run(fused_mlp, x, *weights), exact) < CLOSE["fp32"]
    if refusal(torch.bfloat16) is None:
        with torch.autocast("cpu", torch.bfloat16):
            assert "even widths" in str(compiled_says(run, fused_mlp, x, *weights))


def kept(run: Callable[..., Tensor], op: Any, x: Tensor, weights: list[Tensor]) -> int:
    """Return the bytes that a branch saves for its gradient, without its operands."""
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), arithmetic("mixed"):
        y = run(op, x, *weights)
    assert y.requires_grad
    own = {tensor.untyped_storage().data_ptr() for tensor in (x, *weights)}
    return sum(size for where, size in found.items() if where not in own)


def test_branches_keep_less_than_plain_ones():
    if refusal(torch.bfloat16):
        pytest.skip(str(refusal(torch.bfloat16)))
    C, T = 64, B * N
    x = torch.randn(B, N, C, requires_grad=True)
    run, weights = mlp_case(C, 4 * C, None)
    weights = [weight.requires_grad_() for weight in weights]
    assert kept(run, fused_mlp, x, weights) == 2 * T * C + 4 * T + 2 * T * 4 * C  # normed, deviations, before GELU
    assert kept(run, fused_mlp, x, weights) < 0.5 * kept(run, mlp, x, weights)
    run, weights = attention_case(C, 6, None)
    weights = [weight.requires_grad_() for weight in weights]
    assert kept(run, fused_attention, x, weights) < 0.8 * kept(run, attention, x, weights)
    with torch.no_grad():
        assert not run(fused_attention, x.detach(), *weights).requires_grad
    run, weights = neighborhood_case(C, Grid(5, 10), 1, None)
    weights = [weight.requires_grad_() for weight in weights]
    assert kept(run, fused_neighborhood, x, weights) < 0.8 * kept(run, neighborhood, x, weights)


@each
def test_unsupported_inputs_use_the_fallback(kernel, reference, case):
    run, weights = case
    wide = [weight.double() for weight in weights]
    x = torch.randn(B, N, wide[0].shape[0], dtype=torch.float64)
    assert "fp32 and bf16" in str(dict(run(kernel.explain, x, *wide))["cpp"])
    assert torch.equal(run(kernel, x, *wide), run(reference, x, *wide))
    assert "weights of the precision" in str(dict(run(kernel.explain, x.bfloat16(), *weights))["cpp"])
    assert "meta" in str(dict(run(kernel.explain, x.float().to("meta"), *weights))["cpp"])
