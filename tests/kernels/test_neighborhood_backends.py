"""Which backend computes neighborhood attention, reasons of the others, equal outputs."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.kernels.neighborhood import cpp, neighborhood, reference
from vitrail.native import build as native_build
from vitrail.native.build import refusal
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttention

COMPILED = refusal(torch.float32)
needs_compiler = pytest.mark.skipif(COMPILED is not None, reason=str(COMPILED))


def draw(side=8, kernel_size=5, d=4, dtype=torch.float32):
    """Draw queries, keys and values as a mixer has them, and a table of biases."""
    qkv = torch.randn(2, side, side + 1, 3, 2, d).to(dtype)
    return *qkv.unbind(3), torch.randn((2 * kernel_size - 1) ** 2, 2)


def refused(*args) -> str | None:
    return dict(neighborhood.explain(*args))["cpp"]


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("dilation", [1, 2])
def test_compiled_code_runs_first_and_agrees(dtype, dilation):
    if refusal(dtype):
        pytest.skip(str(refusal(dtype)))
    q, k, v, bias = draw(side=11, dtype=dtype)
    assert refused(q, k, v, bias, 5, dilation) is None
    got = neighborhood(q, k, v, bias, 5, dilation)
    assert torch.equal(got, cpp(q, k, v, bias, 5, dilation)) and got.dtype == dtype
    want = reference(q.double(), k.double(), v.double(), bias.double(), 5, dilation)
    assert (got - want).norm() < {torch.float32: 2e-6, torch.bfloat16: 6e-3}[dtype] * want.norm()


@needs_compiler
def test_unsupported_inputs_get_a_reason():
    q, k, v, bias = draw()
    assert refused(q, k, v, bias.clone().requires_grad_(), 5, 1) is None
    assert "one precision" in (refused(q, k.bfloat16(), v, bias, 5, 1) or "")
    assert "float64" in (refused(q.double(), k.double(), v.double(), bias, 5, 1) or "")
    assert "meta" in (refused(q.to("meta"), k, v, bias, 5, 1) or "")
    odd = draw(d=3, dtype=torch.bfloat16)
    assert "even head width" in (refused(*odd, 5, 1) or "")


@needs_compiler
def test_tracing_never_calls_native_code():
    q, k, v, bias = draw()
    said = []

    def attend(q, k, v):
        said.append(refused(q, k, v, bias, 5, 1))
        return reference(q, k, v, bias, 5, 1)

    torch.func.vmap(attend)(q[:, None], k[:, None], v[:, None])
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        said.append(refused(*(fake.from_tensor(x) for x in (q, k, v, bias)), 5, 1))
    assert all("not traceable" in (reason or "") for reason in said) and len(said) == 2


@needs_compiler
def test_an_exported_program_computes_anew():
    mixer = NeighborhoodAttention(8, num_heads=2, kernel_size=3).eval().requires_grad_(False)
    x, grid = torch.randn(2, 20, 8), Grid(4, 5)
    program = torch.export.export(mixer, (x, grid)).module()
    assert torch.allclose(program(x + 1, grid), mixer(x + 1, grid), atol=1e-5)  # and no constant in its place


@needs_compiler
def test_maps_that_are_too_small_get_the_same_message():
    with pytest.raises(VitrailError, match="no neighborhoods of 5"):
        neighborhood(*draw(side=4), 5, 1)


def test_without_a_compiler_other_backends_run(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("VITRAIL_CACHE", str(tmp_path))
    monkeypatch.setattr(native_build, "_FOUND", {})
    q, k, v, bias = draw()
    assert "no C++ compiler" in (refused(q, k, v, bias, 5, 1) or "")
    assert torch.allclose(neighborhood(q, k, v, bias, 5, 1), reference(q, k, v, bias, 5, 1), atol=1e-5)
    bias.requires_grad_()
    (got,), (want,) = (torch.autograd.grad(by(q, k, v, bias, 5, 1).sum(), [bias]) for by in (neighborhood, reference))
    assert torch.allclose(got, want, atol=1e-4)
