"""A sum and its LayerNorm in one pass over the rows, and back. Statistics and sums are in fp32."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# (Triton reads this as a language of its own, which pyright does not know.)

import triton
import triton.language as tl


@triton.jit
def forward(
    x,
    branch,
    weight,
    bias,
    total,
    normed,
    moments,
    rows,
    eps,
    WIDTH: tl.constexpr,
    LANES: tl.constexpr,
    ROWS: tl.constexpr,
    ADDED: tl.constexpr,
):
    """Normalise ROWS rows; `moments` `(rows, 2)` gets the mean and one over the deviation of each."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    lane = tl.arange(0, LANES)
    wide = lane < WIDTH
    inside = (row < rows)[:, None] & wide[None, :]
    at = row[:, None] * WIDTH + lane[None, :]
    values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if ADDED:
        values += tl.load(branch + at, mask=inside, other=0.0).to(tl.float32)
        rounded = values.to(total.dtype.element_ty)
        tl.store(total + at, rounded, mask=inside)
        values = rounded.to(tl.float32)  # the norm reads the rounded sum
    mean = tl.sum(values, 1) / WIDTH
    centred = tl.where(inside, values - mean[:, None], 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / WIDTH + eps)
    scale = tl.load(weight + lane, mask=wide, other=0.0).to(tl.float32)
    shift = tl.load(bias + lane, mask=wide, other=0.0).to(tl.float32)
    y = centred * inverse[:, None] * scale[None, :] + shift[None, :]
    tl.store(normed + at, y.to(normed.dtype.element_ty), mask=inside)
    tl.store(moments + row * 2, mean, mask=row < rows)
    tl.store(moments + row * 2 + 1, inverse, mask=row < rows)


@triton.jit
def backward(
    total,
    weight,
    moments,
    into_total,
    into_normed,
    into_x,
    partial,
    rows,
    share,
    WIDTH: tl.constexpr,
    LANES: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Send the gradients of sum and norm back through `share` rows, ROWS at a time.

    With z = (s - mean) / deviation and g = weight * dL/dy: dL/ds = (g - mean(g) - z mean(g z)) / deviation, plus the
    gradient of the residual. `partial` `(programs, 2, C)` gets partial sums of the gradients of weight and bias.
    """
    first = tl.program_id(0).to(tl.int64) * share
    lane = tl.arange(0, LANES)
    wide = lane < WIDTH
    scale = tl.load(weight + lane, mask=wide, other=0.0).to(tl.float32)
    to_weight = tl.zeros([LANES], tl.float32)
    to_bias = tl.zeros([LANES], tl.float32)
    for start in range(0, share, ROWS):
        row = first + start + tl.arange(0, ROWS)
        here = (start + tl.arange(0, ROWS) < share) & (row < rows)
        inside = here[:, None] & wide[None, :]
        at = row[:, None] * WIDTH + lane[None, :]
        mean = tl.load(moments + row * 2, mask=here, other=0.0)
        inverse = tl.load(moments + row * 2 + 1, mask=here, other=0.0)
        values = tl.load(total + at, mask=inside, other=0.0).to(tl.float32)
        z = tl.where(inside, (values - mean[:, None]) * inverse[:, None], 0.0)
        into_y = tl.load(into_normed + at, mask=inside, other=0.0).to(tl.float32)
        g = into_y * scale[None, :]
        pull = tl.sum(g, 1)[:, None] / WIDTH + z * (tl.sum(g * z, 1)[:, None] / WIDTH)
        past = tl.load(into_total + at, mask=inside, other=0.0).to(tl.float32)
        into = (g - pull) * inverse[:, None] + past
        tl.store(into_x + at, into.to(into_x.dtype.element_ty), mask=inside)
        to_weight += tl.sum(into_y * z, 0)
        to_bias += tl.sum(into_y, 0)
    mine = partial + tl.program_id(0).to(tl.int64) * 2 * WIDTH + lane
    tl.store(mine, to_weight, mask=wide)
    tl.store(mine + WIDTH, to_bias, mask=wide)
