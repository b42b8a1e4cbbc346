"""Neighborhood attention on a GPU, forward and backward, on tiles of 8 x 8 queries or keys.

Tiles are cut within the groups of a dilation, where neighbours lie side by side. A tile of queries attends to the patch
of keys from the first neighbour of its first query to the last neighbour of its last one, 64 keys at a time, and pairs
that are no neighbours are left out; a tile of keys is read by a patch of queries in the same way. No map is stored, and
nothing is added up in the order in which programs happen to run: each cell's gradient belongs to one program, and the
table's is summed tile by tile.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportAttributeAccessIssue=false
# (Triton reads this as a language of its own, which pyright does not know.)

import triton
import triton.language as tl

SIDE = tl.constexpr(8)
CELLS = tl.constexpr(64)
LEAST = tl.constexpr(-1.0e30)  # below every score, and still a number


@triton.jit
def _axes(tile, height, width, tiles_y, tiles_x, DILATION: tl.constexpr):
    """Return group, length of the group and first place of a tile, on both axes."""
    x = tile % tiles_x * SIDE
    y = tile // tiles_x % tiles_y * SIDE
    group = tile // (tiles_x * tiles_y)
    group_x = group % DILATION
    group_y = group // DILATION
    length_y = (height - group_y + DILATION - 1) // DILATION
    length_x = (width - group_x + DILATION - 1) // DILATION
    return group_y, group_x, length_y, length_x, y, x


@triton.jit
def _start(place, length, KERNEL: tl.constexpr):
    """Return the first of the places that a query attends to."""
    return tl.minimum(tl.maximum(place - KERNEL // 2, 0), length - KERNEL)


@triton.jit
def _key_range(first, length, KERNEL: tl.constexpr):
    """Return the first key of a tile of queries, and how many keys there are."""
    last = tl.minimum(first + SIDE, length) - 1
    start = _start(first, length, KERNEL)
    return start, _start(last, length, KERNEL) + KERNEL - start


@triton.jit
def _query_range(first, length, KERNEL: tl.constexpr):
    """Return the first query that reads a tile of keys, and how many there are: all of them near a border."""
    last = tl.minimum(first + SIDE, length) - 1
    start = tl.where(first < KERNEL, 0, first - KERNEL // 2)
    end = tl.where(last >= length - KERNEL, length, last + KERNEL // 2 + 1)
    return start, end - start


@triton.jit
def _cell(y, x, group_y, group_x, width, DILATION: tl.constexpr):
    return (group_y + y * DILATION) * width + group_x + x * DILATION


@triton.jit
def _tile(first_y, first_x, group_y, group_x, length_y, length_x, width, DILATION: tl.constexpr):
    """Return the places of a tile on both axes, which of them are cells, and where these lie."""
    place = tl.arange(0, CELLS)
    y = first_y + place // SIDE
    x = first_x + place % SIDE
    return y, x, (y < length_y) & (x < length_x), _cell(y, x, group_y, group_x, width, DILATION)


@triton.jit
def _some(start, first_y, first_x, rows, columns, group_y, group_x, width, DILATION: tl.constexpr):
    """Return the same of the places of a patch from `start` on, counted row by row."""
    place = start + tl.arange(0, CELLS)
    y = first_y + place // columns
    x = first_x + place % columns
    return y, x, place < rows * columns, _cell(y, x, group_y, group_x, width, DILATION)


@triton.jit
def _load(base, cell, stride, lane, real, WIDTH: tl.constexpr):
    inside = real[:, None] & (lane < WIDTH)[None, :]
    return tl.load(base + cell[:, None] * stride + lane[None, :], mask=inside, other=0.0)


@triton.jit
def _store(base, cell, stride, lane, real, rows, WIDTH: tl.constexpr):
    inside = real[:, None] & (lane < WIDTH)[None, :]
    tl.store(base + cell[:, None] * stride + lane[None, :], rows.to(base.dtype.element_ty), mask=inside)


@triton.jit
def _scores(
    q, k, table, asking, y, x, asked, ky, kx, length_y, length_x, scale, KERNEL: tl.constexpr, PRECISION: tl.constexpr
):
    """Return scores `(queries, keys)`, minus infinity where a key is no neighbour or one of the two is no cell."""
    down = ky[None, :] - _start(y, length_y, KERNEL)[:, None]
    right = kx[None, :] - _start(x, length_x, KERNEL)[:, None]
    near = (down >= 0) & (down < KERNEL) & (right >= 0) & (right < KERNEL) & asking[:, None] & asked[None, :]
    offset = (y[:, None] - ky[None, :] + KERNEL - 1) * (2 * KERNEL - 1) + x[:, None] - kx[None, :] + KERNEL - 1
    bias = tl.load(table + offset, mask=near, other=0.0)
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale + bias
    return tl.where(near, scores, float("-inf"))


@triton.jit
def _back(scores, log_sum, delta, g, values, PRECISION: tl.constexpr):
    """Return probabilities, and the gradient of the scores: P * (G V^T - rowsum(P * G V^T))."""
    p = tl.exp(scores - log_sum[:, None])
    into_p = tl.dot(g, tl.trans(values), input_precision=PRECISION)
    return p, p * (into_p - delta[:, None])


@triton.jit
def forward(
    q,
    k,
    v,
    table,
    out,
    sums,
    height,
    width,
    stride,
    tiles_y,
    tiles_x,
    scale,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    LANES: tl.constexpr,
    KERNEL: tl.constexpr,
    DILATION: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Attend: a tile of queries of one head of one image. `sums` `(B, h, N)` gets the logarithm of each row's sum."""
    head = tl.program_id(0) % HEADS
    group_y, group_x, length_y, length_x, tile_y, tile_x = _axes(
        tl.program_id(0) // HEADS, height, width, tiles_y, tiles_x, DILATION
    )
    image = tl.program_id(1).to(tl.int64)
    tokens = height * width
    at = image * tokens * stride + head * WIDTH
    lane = tl.arange(0, LANES)
    y, x, real, cell = _tile(tile_y, tile_x, group_y, group_x, length_y, length_x, width, DILATION)
    first_y, rows = _key_range(tile_y, length_y, KERNEL)
    first_x, columns = _key_range(tile_x, length_x, KERNEL)
    queries = _load(q + at, cell, stride, lane, real, WIDTH)
    highest = tl.full([CELLS], LEAST, tl.float32)
    total = tl.zeros([CELLS], tl.float32)
    mixed = tl.zeros([CELLS, LANES], tl.float32)
    for start in range(0, rows * columns, CELLS):
        ky, kx, here, key_cell = _some(start, first_y, first_x, rows, columns, group_y, group_x, width, DILATION)
        keys = _load(k + at, key_cell, stride, lane, here, WIDTH)
        values = _load(v + at, key_cell, stride, lane, here, WIDTH)
        scores = _scores(
            queries, keys, table + head * (2 * KERNEL - 1) * (2 * KERNEL - 1), real, y, x, here, ky, kx, length_y,
            length_x, scale, KERNEL, PRECISION,
        )  # fmt: skip
        higher = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.exp(scores - higher[:, None])
        fade = tl.exp(highest - higher)
        total = total * fade + tl.sum(weights, 1)
        mixed = mixed * fade[:, None] + tl.dot(weights.to(values.dtype), values, input_precision=PRECISION)
        highest = higher
    channels = HEADS * WIDTH
    total = tl.where(real, total, 1.0)
    _store(out + image * tokens * channels + head * WIDTH, cell, channels, lane, real, mixed / total[:, None], WIDTH)
    tl.store(sums + (image * HEADS + head) * tokens + cell, highest + tl.log(total), mask=real)


@triton.jit
def backward_queries(
    q,
    k,
    v,
    table,
    out,
    grad,
    sums,
    deltas,
    into_q,
    into_table,
    height,
    width,
    stride,
    tiles_y,
    tiles_x,
    batch,
    share,
    scale,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    LANES: tl.constexpr,
    KERNEL: tl.constexpr,
    DILATION: tl.constexpr,
    CHUNKS: tl.constexpr,
    TABLE_GRAD: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Send a gradient back to a tile of queries of one head, for `share` images.

    `deltas` `(B, h, N)` gets each row's product of output and gradient. `into_table` gets partial sums of the table's
    gradient, `(shares, tiles, h, 64 CHUNKS)`, 64 offsets at a time: for each query the pair at an offset is picked from
    the row of the scores' gradient, and the picked ones are added up over the queries.
    """
    head = tl.program_id(0) % HEADS
    tile = tl.program_id(0) // HEADS
    group_y, group_x, length_y, length_x, tile_y, tile_x = _axes(tile, height, width, tiles_y, tiles_x, DILATION)
    tokens = height * width
    channels = HEADS * WIDTH
    OFFSETS: tl.constexpr = 2 * KERNEL - 1
    lane = tl.arange(0, LANES)
    y, x, real, cell = _tile(tile_y, tile_x, group_y, group_x, length_y, length_x, width, DILATION)
    first_y, rows = _key_range(tile_y, length_y, KERNEL)
    first_x, columns = _key_range(tile_x, length_x, KERNEL)
    added = tl.zeros([CHUNKS, CELLS], tl.float32)
    first = tl.program_id(1) * share
    image = first.to(tl.int64)
    at = image * tokens * stride + head * WIDTH
    at_row = (image * HEADS + head) * tokens
    at_out = image * tokens * channels + head * WIDTH
    for _ in range(first, min(first + share, batch)):
        queries = _load(q + at, cell, stride, lane, real, WIDTH)
        g = _load(grad + at_out, cell, channels, lane, real, WIDTH)
        mixed = _load(out + at_out, cell, channels, lane, real, WIDTH)
        delta = tl.sum(mixed.to(tl.float32) * g.to(tl.float32), 1)
        tl.store(deltas + at_row + cell, delta, mask=real)
        log_sum = tl.load(sums + at_row + cell, mask=real, other=float("inf"))
        into = tl.zeros([CELLS, LANES], tl.float32)
        for start in range(0, rows * columns, CELLS):
            ky, kx, here, key_cell = _some(start, first_y, first_x, rows, columns, group_y, group_x, width, DILATION)
            keys = _load(k + at, key_cell, stride, lane, here, WIDTH)
            values = _load(v + at, key_cell, stride, lane, here, WIDTH)
            scores = _scores(
                queries, keys, table + head * OFFSETS * OFFSETS, real, y, x, here, ky, kx, length_y, length_x, scale,
                KERNEL, PRECISION,
            )  # fmt: skip
            into_scores = _back(scores, log_sum, delta, g, values, PRECISION)[1]
            into += tl.dot(into_scores.to(keys.dtype), keys, input_precision=PRECISION)
            if TABLE_GRAD:
                for chunk in range(CHUNKS):
                    offset = chunk * CELLS + tl.arange(0, CELLS)
                    py = y[:, None] - (offset // OFFSETS - KERNEL + 1)[None, :] - first_y
                    px = x[:, None] - (offset % OFFSETS - KERNEL + 1)[None, :] - first_x
                    which = py * columns + px - start
                    there = (px >= 0) & (px < columns) & (which >= 0) & (which < CELLS) & (py >= 0) & (py < rows)
                    picked = tl.gather(into_scores, tl.where(there, which, 0), 1)
                    picked = tl.where(there & (offset < OFFSETS * OFFSETS)[None, :], picked, 0.0)
                    added += tl.where((tl.arange(0, CHUNKS) == chunk)[:, None], tl.sum(picked, 0)[None, :], 0.0)
        _store(into_q + at, cell, stride, lane, real, into * scale, WIDTH)
        at += tokens * stride
        at_row += HEADS * tokens
        at_out += tokens * channels
    if TABLE_GRAD:
        tiles = tl.num_programs(0) // HEADS
        mine = (tl.program_id(1).to(tl.int64) * tiles + tile) * HEADS + head
        slot = tl.arange(0, CHUNKS)[:, None] * CELLS + tl.arange(0, CELLS)[None, :]
        tl.store(into_table + mine * CHUNKS * CELLS + slot, added)


@triton.jit
def backward_keys(
    q,
    k,
    v,
    table,
    grad,
    sums,
    deltas,
    into_k,
    into_v,
    height,
    width,
    stride,
    tiles_y,
    tiles_x,
    scale,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    LANES: tl.constexpr,
    KERNEL: tl.constexpr,
    DILATION: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Send a gradient back to a tile of keys and their values, of one head of one image."""
    head = tl.program_id(0) % HEADS
    group_y, group_x, length_y, length_x, tile_y, tile_x = _axes(
        tl.program_id(0) // HEADS, height, width, tiles_y, tiles_x, DILATION
    )
    image = tl.program_id(1).to(tl.int64)
    tokens = height * width
    channels = HEADS * WIDTH
    at = image * tokens * stride + head * WIDTH
    at_row = (image * HEADS + head) * tokens
    lane = tl.arange(0, LANES)
    ky, kx, real, key_cell = _tile(tile_y, tile_x, group_y, group_x, length_y, length_x, width, DILATION)
    first_y, rows = _query_range(tile_y, length_y, KERNEL)
    first_x, columns = _query_range(tile_x, length_x, KERNEL)
    keys = _load(k + at, key_cell, stride, lane, real, WIDTH)
    values = _load(v + at, key_cell, stride, lane, real, WIDTH)
    to_keys = tl.zeros([CELLS, LANES], tl.float32)
    to_values = tl.zeros([CELLS, LANES], tl.float32)
    for start in range(0, rows * columns, CELLS):
        y, x, here, cell = _some(start, first_y, first_x, rows, columns, group_y, group_x, width, DILATION)
        queries = _load(q + at, cell, stride, lane, here, WIDTH)
        g = _load(grad + image * tokens * channels + head * WIDTH, cell, channels, lane, here, WIDTH)
        log_sum = tl.load(sums + at_row + cell, mask=here, other=float("inf"))
        delta = tl.load(deltas + at_row + cell, mask=here, other=0.0)
        scores = _scores(
            queries, keys, table + head * (2 * KERNEL - 1) * (2 * KERNEL - 1), here, y, x, real, ky, kx, length_y,
            length_x, scale, KERNEL, PRECISION,
        )  # fmt: skip
        p, into_scores = _back(scores, log_sum, delta, g, values, PRECISION)
        to_keys += tl.dot(tl.trans(into_scores.to(queries.dtype)), queries, input_precision=PRECISION)
        to_values += tl.dot(tl.trans(p.to(g.dtype)), g, input_precision=PRECISION)
    _store(into_k + at, key_cell, stride, lane, real, to_keys * scale, WIDTH)
    _store(into_v + at, key_cell, stride, lane, real, to_values, WIDTH)
