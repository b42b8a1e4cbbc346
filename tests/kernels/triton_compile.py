"""Compiles the Triton kernels for a GPU, down to machine code, on a machine without one.

    python triton_compile.py 90

Prints a line for each: its name, and the bytes of shared memory that it takes.
"""

import sys
from collections.abc import Iterator
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from vitrail.kernels.add_layer_norm import triton_kernels as norm
from vitrail.kernels.gelu import triton_kernels as gelu
from vitrail.kernels.neighborhood import triton_kernels as near
from vitrail.kernels.window import triton_kernels as within

INTEGERS = {"mask_index": "*i64", "token_index": "*i64"}
IN_FP32 = {"weight", "moments", "bias", "sums", "into_bias", "into_padding", "partial", "table", "deltas", "into_table"}
ROWS = {"qkv", "padding", "out", "grad", "into_qkv", "q", "k", "v", "into_q", "into_k", "into_v"}
ROWS |= {"x", "branch", "total", "normed", "into_total", "into_normed", "into_x", "y", "into_y"}


def compile_for(capability: int, kernel: Any, dtype: str, warps: int, stages: int, **constants: Any) -> int:
    """Compile a kernel as a launch would, with pointers that are multiples of 16 bytes; return its shared memory."""
    pointers = INTEGERS | dict.fromkeys(IN_FP32, "*fp32") | dict.fromkeys(ROWS, f"*{dtype}")
    if kernel is within.add_kinds:
        pointers["out"] = "*fp32"
    signature = {
        name: "constexpr" if name in constants else pointers.get(name, "fp32" if name in ("scale", "eps") else "i32")
        for name in kernel.arg_names
    }
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names) if name in pointers}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    made = triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options=dict(num_warps=warps, num_stages=stages)
    )
    return made.metadata.shared


def all_of(capability: int) -> Iterator[tuple[str, int]]:
    """Compile every kernel, in every precision and for the largest tiles."""
    for dtype, n, width in (("bf16", 64, 32), ("fp32", 64, 32), ("bf16", 256, 32), ("bf16", 64, 128), ("fp16", 16, 16)):
        shape = dict(HEADS=3, N=n, WIDTH=width, ROWS=n if n <= 64 else 16, PLACES=n, LANES=width, BIASED=True)
        shape |= dict(PADDED=True, PRECISION=precision(dtype))
        launch = (dtype, 4 if n <= 64 else 8, 2 if n * width <= 64 * 32 else 1)
        yield "window", compile_for(capability, within.forward, *launch, SUMMED=True, **shape)
        gradients = dict(BIAS_GRAD=True, PADDING_GRAD=True)
        yield "window_gradient", compile_for(capability, within.backward, *launch, **gradients, **shape)
    yield "add_kinds", compile_for(capability, within.add_kinds, "fp32", 4, 3, ADDENDS=7203, ROWS=32, BLOCK=64)
    for dtype, kernel_size, chunks in (("bf16", 7, 4), ("fp32", 7, 4), ("fp16", 13, 16)):
        shape = dict(HEADS=2, WIDTH=32, LANES=32, KERNEL=kernel_size, DILATION=2, PRECISION=precision(dtype))
        yield "neighborhood", compile_for(capability, near.forward, dtype, 4, 2, **shape)
        table = dict(CHUNKS=chunks, TABLE_GRAD=True)
        yield "neighborhood_queries", compile_for(capability, near.backward_queries, dtype, 4, 2, **table, **shape)
        yield "neighborhood_keys", compile_for(capability, near.backward_keys, dtype, 4, 2, **shape)

    for width in (96, 1536):
        shape = dict(WIDTH=width, LANES=128 if width == 96 else 2048, ROWS=16 if width == 96 else 1)
        yield "norm", compile_for(capability, norm.forward, "bf16", 4, 3, ADDED=True, **shape)
        yield "norm_gradient", compile_for(capability, norm.backward, "bf16", 4, 3, **shape)
        shape = dict(WIDTH=width, LANES=128, ROWS=16)
        yield "gelu", compile_for(capability, gelu.forward, "bf16", 4, 3, **shape)
        yield "gelu_gradient", compile_for(capability, gelu.backward, "bf16", 4, 3, **shape)


def precision(dtype: str) -> str:
    """Return how the backends ask for products."""
    return "tf32x3" if dtype == "fp32" else "ieee"


if __name__ == "__main__":
    for name, shared in all_of(int(sys.argv[1])):
        print(name, shared, flush=True)
