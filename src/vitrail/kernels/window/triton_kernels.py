"""Window attention on a GPU, forward and backward: the group table replaces roll and partition.

A program takes one head of one group for a share of the batch, so the group's addends are read once and the gradient
of the addends is summed in registers; its partial sums are added up in a fixed order by a second kernel. No map is
stored: the gradient recomputes probabilities from the logarithm of each row's sum.

A group of n tokens is a tile of PLACES x PLACES scores, n rounded up to a power of two: 49 to 64. Products add up in
fp32.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# (Triton reads this as a language of its own, which pyright does not know.)

import triton
import triton.language as tl


@triton.jit
def _rows(base, slot, stride, lane, WIDTH: tl.constexpr):
    """Load WIDTH numbers of each token; padding and channels past the width are zero."""
    inside = (slot >= 0)[:, None] & (lane < WIDTH)[None, :]
    return tl.load(base + slot[:, None] * stride + lane[None, :], mask=inside, other=0.0)


@triton.jit
def _store_rows(base, slot, stride, lane, rows, WIDTH: tl.constexpr):
    inside = (slot >= 0)[:, None] & (lane < WIDTH)[None, :]
    tl.store(base + slot[:, None] * stride + lane[None, :], rows, mask=inside)


@triton.jit
def _filled_rows(base, slot, stride, padding, lane, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Load the same, with the padding's numbers where no token sits."""
    rows = _rows(base, slot, stride, lane, WIDTH)
    if PADDED:
        filling = tl.load(padding + lane, mask=lane < WIDTH, other=0.0)
        rows = tl.where((slot >= 0)[:, None], rows, filling[None, :])
    return rows


@triton.jit
def _addend(bias, query, key, N: tl.constexpr, BIASED: tl.constexpr):
    """Load addends `(queries, keys)` in fp32; there are no keys from N on."""
    addend = tl.zeros([query.shape[0], key.shape[0]], tl.float32)
    if BIASED:
        inside = (query < N)[:, None] & (key < N)[None, :]
        addend += tl.load(bias + query[:, None] * N + key[None, :], mask=inside, other=0.0).to(tl.float32)
    return tl.where((key < N)[None, :], addend, float("-inf"))


@triton.jit
def forward(
    qkv,
    padding,
    bias,
    mask_index,
    token_index,
    out,
    sums,
    batch,
    tokens,
    groups,
    share,
    scale,
    HEADS: tl.constexpr,
    N: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    PLACES: tl.constexpr,
    LANES: tl.constexpr,
    BIASED: tl.constexpr,
    PADDED: tl.constexpr,
    SUMMED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Attend: ROWS queries of one head of one group, for `share` images.

    `sums` gets the logarithm of each row's sum, `(B, G, h, n)`, where SUMMED.
    """
    head = tl.program_id(0) % HEADS
    row = tl.program_id(0) // HEADS * ROWS
    group = tl.program_id(1)
    image = tl.program_id(2) * share
    channels = HEADS * WIDTH
    lane = tl.arange(0, LANES)
    key = tl.arange(0, PLACES)
    query = row + tl.arange(0, ROWS)
    key_slot = tl.load(token_index + group * N + key, mask=key < N, other=-1).to(tl.int32)
    query_slot = tl.load(token_index + group * N + query, mask=query < N, other=-1).to(tl.int32)
    kind = tl.load(mask_index + group)
    addend = _addend(bias + (kind * HEADS + head) * N * N, query, key, N, BIASED)
    first = image.to(tl.int64)
    of_image = qkv + first * tokens * 3 * channels + head * WIDTH
    to_image = out + first * tokens * channels + head * WIDTH
    to_sums = sums + ((first * groups + group) * HEADS + head) * N
    padding += head * WIDTH
    for _ in range(image, min(image + share, batch)):
        q = _rows(of_image, query_slot, 3 * channels, lane, WIDTH)
        of_keys, of_values = of_image + channels, of_image + 2 * channels
        k = _filled_rows(of_keys, key_slot, 3 * channels, padding + channels, lane, WIDTH, PADDED)
        v = _filled_rows(of_values, key_slot, 3 * channels, padding + 2 * channels, lane, WIDTH, PADDED)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale + addend
        highest = tl.max(scores, 1)
        weights = tl.exp(scores - highest[:, None])
        total = tl.sum(weights, 1)
        mixed = tl.dot(weights.to(v.dtype), v, input_precision=PRECISION) / total[:, None]
        _store_rows(to_image, query_slot, channels, lane, mixed.to(out.dtype.element_ty), WIDTH)
        if SUMMED:
            tl.store(to_sums + query, highest + tl.log(total), mask=query < N)
            to_sums += groups * HEADS * N
        of_image += tokens * 3 * channels
        to_image += tokens * channels


@triton.jit
def backward(
    qkv,
    padding,
    bias,
    mask_index,
    token_index,
    grad,
    sums,
    into_qkv,
    into_padding,
    into_bias,
    batch,
    tokens,
    groups,
    share,
    scale,
    HEADS: tl.constexpr,
    N: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    PLACES: tl.constexpr,
    LANES: tl.constexpr,
    BIASED: tl.constexpr,
    PADDED: tl.constexpr,
    BIAS_GRAD: tl.constexpr,
    PADDING_GRAD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Send a gradient back through one head of one group, for `share` images, ROWS queries at a time.

    With P the probabilities, G the gradient and S the scores:
    dV = P^T G, dP = G V^T, dS = P * (dP - rowsum(P * dP)), dQ = dS K, dK = dS^T Q, and the addends' is dS.

    `into_bias` `(shares, G, h, n, n)` and `into_padding` `(shares, G, h, 2, d)`, keys and values, get partial sums. Of
    padding only keys and values count, since nobody reads what its queries mixed.
    """
    head = tl.program_id(0)
    group = tl.program_id(1)
    image = tl.program_id(2) * share
    channels = HEADS * WIDTH
    lane = tl.arange(0, LANES)
    key = tl.arange(0, PLACES)
    key_slot = tl.load(token_index + group * N + key, mask=key < N, other=-1).to(tl.int32)
    kind = tl.load(mask_index + group)
    bias += (kind * HEADS + head) * N * N
    first = image.to(tl.int64)
    of_image = qkv + first * tokens * 3 * channels + head * WIDTH
    to_image = into_qkv + first * tokens * 3 * channels + head * WIDTH
    grad += first * tokens * channels + head * WIDTH
    sums += ((first * groups + group) * HEADS + head) * N
    padding += head * WIDTH
    mine = (tl.program_id(2).to(tl.int64) * groups + group) * HEADS + head
    into_bias += mine * N * N
    added = tl.zeros([ROWS, PLACES], tl.float32)
    to_keys = tl.zeros([LANES], tl.float32)
    to_values = tl.zeros([LANES], tl.float32)
    for _ in range(image, min(image + share, batch)):
        of_keys, of_values = of_image + channels, of_image + 2 * channels
        k = _filled_rows(of_keys, key_slot, 3 * channels, padding + channels, lane, WIDTH, PADDED)
        v = _filled_rows(of_values, key_slot, 3 * channels, padding + 2 * channels, lane, WIDTH, PADDED)
        into_k = tl.zeros([PLACES, LANES], tl.float32)
        into_v = tl.zeros([PLACES, LANES], tl.float32)
        for row in range(0, N, ROWS):
            query = row + tl.arange(0, ROWS)
            query_slot = tl.load(token_index + group * N + query, mask=query < N, other=-1).to(tl.int32)
            q = _rows(of_image, query_slot, 3 * channels, lane, WIDTH)
            g = _rows(grad, query_slot, channels, lane, WIDTH)
            log_sum = tl.load(sums + query, mask=query < N, other=float("inf"))
            scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
            p = tl.exp(scores + _addend(bias, query, key, N, BIASED) - log_sum[:, None])
            into_p = tl.dot(g, tl.trans(v), input_precision=PRECISION)
            into_scores = p * (into_p - tl.sum(p * into_p, 1)[:, None])
            rounded = into_scores.to(k.dtype)
            into_q = tl.dot(rounded, k, input_precision=PRECISION) * scale
            into_k += tl.dot(tl.trans(rounded), q, input_precision=PRECISION)
            into_v += tl.dot(tl.trans(p.to(g.dtype)), g, input_precision=PRECISION)
            _store_rows(to_image, query_slot, 3 * channels, lane, into_q.to(into_qkv.dtype.element_ty), WIDTH)
            if BIAS_GRAD:
                if ROWS >= N:  # one tile: it stays in registers
                    added += into_scores
                else:
                    at = into_bias + query[:, None] * N + key[None, :]
                    inside = (query < N)[:, None] & (key < N)[None, :]
                    tl.store(at, tl.load(at, mask=inside) + into_scores, mask=inside)
        into_k *= scale
        to_k = to_image + channels
        _store_rows(to_k, key_slot, 3 * channels, lane, into_k.to(into_qkv.dtype.element_ty), WIDTH)
        _store_rows(to_k + channels, key_slot, 3 * channels, lane, into_v.to(into_qkv.dtype.element_ty), WIDTH)
        if PADDING_GRAD:
            of_padding = ((key_slot < 0) & (key < N))[:, None]
            to_keys += tl.sum(tl.where(of_padding, into_k, 0.0), 0)
            to_values += tl.sum(tl.where(of_padding, into_v, 0.0), 0)
        of_image += tokens * 3 * channels
        to_image += tokens * 3 * channels
        grad += tokens * channels
        sums += groups * HEADS * N
    if BIAS_GRAD and ROWS >= N:
        query = tl.arange(0, ROWS)
        inside = (query < N)[:, None] & (key < N)[None, :]
        tl.store(into_bias + query[:, None] * N + key[None, :], added, mask=inside)
    if PADDING_GRAD:
        at = into_padding + mine * 2 * WIDTH + lane
        tl.store(at, to_keys, mask=lane < WIDTH)
        tl.store(at + WIDTH, to_values, mask=lane < WIDTH)


@triton.jit
def add_kinds(partial, mask_index, out, rows, groups, ADDENDS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Add the partial sums `(shares * G, ADDENDS)` of the groups of each kind up, in a fixed order: `(K, ADDENDS)`."""
    kind = tl.program_id(1)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, rows, ROWS):
        row = start + tl.arange(0, ROWS)
        of_kind = (row < rows) & (tl.load(mask_index + row % groups) == kind)
        inside = of_kind[:, None] & (at < ADDENDS)[None, :]
        total += tl.sum(tl.load(partial + row.to(tl.int64)[:, None] * ADDENDS + at[None, :], mask=inside, other=0.0), 0)
    tl.store(out + kind.to(tl.int64) * ADDENDS + at, total, mask=at < ADDENDS)
