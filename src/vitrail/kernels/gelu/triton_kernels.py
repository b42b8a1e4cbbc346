"""gelu(x + bias) and its gradient, in one pass over rows each."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# (Triton reads this as a language of its own, which pyright does not know.)

import triton
import triton.language as tl

HALF_ROOT = tl.constexpr(0.7071067811865476)  # 1 / sqrt(2)
DENSITY = tl.constexpr(0.3989422804014327)  # 1 / sqrt(2 pi)


@triton.jit
def _normal(z):
    """Return the share of a normal distribution below z."""
    return 0.5 * (1.0 + tl.erf(z * HALF_ROOT))


@triton.jit
def forward(x, bias, y, rows, WIDTH: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr):
    """Compute a tile of ROWS rows and LANES channels."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    inside = (row < rows)[:, None] & (lane < WIDTH)[None, :]
    at = row[:, None] * WIDTH + lane[None, :]
    shift = tl.load(bias + lane, mask=lane < WIDTH, other=0.0).to(tl.float32)
    z = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) + shift[None, :]
    tl.store(y + at, (z * _normal(z)).to(y.dtype.element_ty), mask=inside)


@triton.jit
def backward(
    x, bias, into_y, into_x, partial, rows, share, WIDTH: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr
):
    """Send a gradient back through `share` rows of LANES channels; `partial` `(programs, C)` gets sums for the bias.

    gelu'(z) = P(z) + z p(z), the normal distribution and its density
    """
    first = tl.program_id(0).to(tl.int64) * share
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    shift = tl.load(bias + lane, mask=lane < WIDTH, other=0.0).to(tl.float32)
    added = tl.zeros([LANES], tl.float32)
    for start in range(0, share, ROWS):
        row = first + start + tl.arange(0, ROWS)
        here = (start + tl.arange(0, ROWS) < share) & (row < rows)
        inside = here[:, None] & (lane < WIDTH)[None, :]
        at = row[:, None] * WIDTH + lane[None, :]
        z = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) + shift[None, :]
        slope = _normal(z) + z * DENSITY * tl.exp(-0.5 * z * z)
        into = tl.load(into_y + at, mask=inside, other=0.0).to(tl.float32) * slope
        tl.store(into_x + at, into.to(into_x.dtype.element_ty), mask=inside)
        added += tl.sum(into, 0)
    tl.store(partial + tl.program_id(0).to(tl.int64) * WIDTH + lane, added, mask=lane < WIDTH)
