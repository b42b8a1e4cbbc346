"""Runs the Triton kernels of a case on the CPU, in Triton's interpreter, and watches every address that they touch.

    TRITON_INTERPRET=1 python triton_watch.py < CASES

A kernel that reads outside its tensors may still give the right result; here it is caught, whatever it read. A number
that two programs write, or that one reads after another wrote it, would depend on who comes first; so would its bits.
"""

import json
import sys
from typing import Any

import numpy
import torch
import triton.language as tl
from torch import Tensor
from triton.runtime import interpreter

from vitrail.grid import Grid
from vitrail.kernels.add_layer_norm.reference import add_layer_norm
from vitrail.kernels.add_layer_norm.triton_backend import add_layer_norm as add_layer_norm_in_triton
from vitrail.kernels.fused_mlp.reference import transform
from vitrail.kernels.fused_mlp.triton_backend import transform as transform_in_triton
from vitrail.kernels.fused_types import LinearWeights, NormWeights
from vitrail.kernels.gelu.reference import bias_gelu
from vitrail.kernels.gelu.triton_backend import bias_gelu as bias_gelu_in_triton
from vitrail.kernels.neighborhood import reference as near
from vitrail.kernels.neighborhood.triton_backend import attend as near_in_triton
from vitrail.kernels.window import reference as within
from vitrail.kernels.window.triton_backend import attend as within_in_triton
from vitrail.parts import window_partition

Builder, Executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Watch:
    """Memory that the kernels of one launch may touch, and the program that wrote each element."""

    def __init__(self) -> None:
        self.spans: list[tuple[int, int]] = []
        self.writer: dict[int, tuple[int, ...]] = {}
        self.place: tuple[int, ...] = ()

    def begin(self, args: Any) -> None:
        tensors = [x for x in args if isinstance(x, Tensor)]
        self.spans = sorted((x.data_ptr(), x.data_ptr() + _reach(x)) for x in tensors)
        self.writer = {}

    def check(self, addresses: numpy.ndarray, size: int, what: str) -> None:
        starts = numpy.array([start for start, _ in self.spans])
        ends = numpy.array([end for _, end in self.spans])
        inside = ((addresses[:, None] >= starts) & (addresses[:, None] + size <= ends)).any(1)
        assert inside.all(), f"{what} of {(~inside).sum()} numbers outside of every tensor"

    def wrote(self, addresses: numpy.ndarray) -> None:
        for address in addresses.tolist():
            assert self.writer.setdefault(address, self.place) == self.place, "two programs write one number"

    def read(self, addresses: numpy.ndarray) -> None:
        for address in addresses.tolist() if self.writer else ():
            assert self.writer.get(address, self.place) == self.place, "a program reads what another one wrote"


def _reach(x: Tensor) -> int:
    return (1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True))) * x.element_size()


def watch() -> None:
    """Watch all launches from here on; and let the interpreter multiply bf16, which it keeps as integers."""
    seen = Watch()
    originals = {name: getattr(Builder, name) for name in ("create_masked_load", "create_masked_store", "create_dot")}
    init, place = Executor._init_args_hst, Builder.set_grid_idx

    def begin(self, args, named):
        hosts = init(self, args, named)
        seen.begin([*hosts[0], *hosts[1].values()])
        return hosts

    def at(self, *where):
        seen.place = where
        return place(self, *where)

    def load(self, pointers, mask, *rest):
        touched = pointers.data[mask.data].ravel()
        seen.check(touched, pointers.get_element_ty().primitive_bitwidth // 8, "a read")
        seen.read(touched)
        return originals["create_masked_load"](self, pointers, mask, *rest)

    def store(self, pointers, value, mask, *rest):
        touched = pointers.data[mask.data].ravel()
        seen.check(touched, pointers.get_element_ty().primitive_bitwidth // 8, "a write")
        assert len(numpy.unique(touched)) == len(touched), "one number is written twice at once"
        seen.wrote(touched)
        return originals["create_masked_store"](self, pointers, value, mask, *rest)

    def dot(self, a, b, *rest):
        if a.dtype.scalar == tl.bfloat16:
            a, b = (self.cast_impl(x, tl.float32) for x in (a, b))
        return originals["create_dot"](self, a, b, *rest)

    Executor._init_args_hst, Builder.set_grid_idx = begin, at
    Builder.create_masked_load, Builder.create_masked_store, Builder.create_dot = load, store, dot


def window_case(cut, height, width, window, shift, heads, d, batch, dtype, padded=True, biased=True, device="cpu"):
    """Return the two outputs, and the tensors to differentiate, of window attention."""
    a_cut = getattr(window_partition, cut).of(Grid(height, width), window, shift)
    token_index, mask_index, channels = a_cut.token_index(device), a_cut.mask_index(device), heads * d
    n = token_index.shape[1]
    leaves = [torch.randn(batch, height * width, 3 * channels)]
    leaves += [torch.randn(3 * channels)] * padded + [torch.randn(heads, n, n)] * biased

    def run(attend, qkv, *rest):
        padding, bias = rest[0] if padded else None, rest[-1] if biased else None
        return attend(qkv, padding, a_cut.bias_plus_mask(bias, bias if biased else qkv), mask_index, token_index, heads)

    return (
        run,
        (within, within_in_triton),
        [x.to(device) for x in leaves],
        [dtype, *[dtype] * padded, *["fp32"] * biased],
    )


def neighborhood_case(height, width, kernel_size, dilation, heads, d, batch, dtype, device="cpu"):
    """The same for neighborhood attention."""
    leaves = [torch.randn(batch, height, width, 3, heads, d), torch.randn((2 * kernel_size - 1) ** 2, heads)]

    def run(attend, qkv, bias):
        return attend(*qkv.unbind(3), bias, kernel_size, dilation)

    return run, (near, near_in_triton), [x.to(device) for x in leaves], [dtype, "fp32"]


def norm_case(rows, width, dtype, added=True, device="cpu"):
    """The same for a sum and its LayerNorm, of which both are heard."""
    leaves = [torch.randn(2, rows, width) + 3, torch.randn(width), torch.randn(width)]
    leaves += [torch.randn(2, rows, width)] * added

    def run(add_layer_norm, x, weight, bias, branch=None):
        return torch.cat(add_layer_norm(x, branch, weight, bias, 1e-5), dim=-1)

    dtypes = [dtype, "fp32", "fp32", *[dtype] * added]
    return run, (add_layer_norm, add_layer_norm_in_triton), [x.to(device) for x in leaves], dtypes


def gelu_case(rows, width, dtype, device="cpu"):
    """The same for a bias and GELU."""
    leaves = [torch.randn(2, rows, width, device=device) * 2, torch.randn(width, device=device)]
    return lambda run, *given: run(*given), (bias_gelu, bias_gelu_in_triton), leaves, [dtype, "fp32"]


def mlp_branch_case(rows, width, dtype, device="cpu"):
    """The same for a whole branch; only the kernels around its products are Triton's."""
    leaves = [torch.randn(3, rows, width), torch.randn(width), torch.randn(width)]
    leaves += [torch.randn(2 * width, width) / 8, torch.randn(2 * width), torch.randn(width, 2 * width) / 8]
    leaves += [torch.randn(width)]
    drop_scale = torch.tensor([0.0, 1.25, 1.25], device=device)

    def run(transform, x, scale, shift, *linear):
        return transform(
            x, NormWeights(scale, shift, 1e-5), LinearWeights(*linear[:2]), LinearWeights(*linear[2:]), drop_scale
        )

    return run, (transform, transform_in_triton), [x.to(device) for x in leaves], [dtype] * 7


def compare(run, attends, leaves: list[Tensor], dtypes: list[str]) -> dict[str, Any]:
    """Compute a case exactly and twice in Triton: relative errors of the output and each gradient, and the bits."""
    rounded = [x.to(DTYPES[name]) for x, name in zip(leaves, dtypes, strict=True)]
    exact = _all(run, attends[0], [x.double() for x in rounded])
    first, again = (_all(run, attends[1], rounded) for _ in range(2))
    return {
        "errors": [
            ((a.double() - b).norm() / b.norm().clamp_min(1e-30)).item() for a, b in zip(first, exact, strict=True)
        ],
        "same": all(torch.equal(a, b) for a, b in zip(first, again, strict=True)),
    }


def _all(run, attend, leaves: list[Tensor]) -> list[Tensor]:
    """Return the output and the gradients, towards the same direction each time."""
    leaves = [x.clone().requires_grad_() for x in leaves]
    out = run(attend, *leaves)
    towards = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(leaves[0])
    slopes = torch.autograd.grad(out, leaves, towards, materialize_grads=True)  # zeros where there is no padding
    return [out.detach(), *slopes]


CASES = {"window": window_case, "neighborhood": neighborhood_case, "norm": norm_case, "gelu": gelu_case}
CASES["fused_mlp"] = mlp_branch_case


def main() -> None:
    """Print one line of JSON for each case of standard input, a line of JSON as well."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)  # memory that nobody wrote is not a number
    watch()
    for line in sys.stdin:
        kind, values = json.loads(line)
        print(json.dumps(compare(*CASES[kind](**values))), flush=True)


if __name__ == "__main__":
    main()
