"""Decoding step of a Transformer decoder in C++ (`decode.cpp`): packed weights, and one call for all layers."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from vitrail.errors import VitrailError
from vitrail.native.allocator import CachingAllocator
from vitrail.native.build import library
from vitrail.native.ffi import at, invoke, start_of

TABLE_ROWS = 64
"""Outputs that share a table of 16 values."""
WORK = 1 << 19
"""Bytes of weights times tokens for which another thread pays off."""
_FP32, _BF16, _INT8, _CODES = range(4)


class PackedMatrix(NamedTuple):
    """A linear layer in the layout of `decode_linear.h`.

    Args:
        numbers: format, outputs, inputs, and inputs that share a scale.
        tensors: packed weights, scales, tables, bias and sums of weights.
    """

    numbers: tuple[int, int, int, int]
    tensors: tuple[Tensor, Tensor | None, Tensor | None, Tensor, Tensor | None]

    def words(self) -> list[int]:
        """Return numbers and addresses in the order in which C++ reads them."""
        return [*self.numbers, *map(address, self.tensors)]

    @property
    def bytes(self) -> int:
        """Bytes that one product reads."""
        return sum(x.numel() * x.element_size() for x in self.tensors if x is not None)


def address(x: Tensor | None) -> int:
    """Return the address of a contiguous tensor; 0 for None."""
    if x is None:
        return 0
    assert x.is_contiguous()
    return start_of(x)


def panel() -> int:
    """Return the outputs of a panel."""
    return library("decode").vitrail_decode_panel()


def best_words(scores: Tensor, sums: list[float], counts: list[int], best: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return totals, words and rows `(texts, best)` of the best continuations; missing ones have a total of -inf."""
    before = torch.tensor(sums, dtype=torch.float64)
    firsts = torch.tensor([0, *counts], dtype=torch.int64).cumsum(0)
    totals = torch.empty(len(counts), best, dtype=torch.float64)
    words, rows = torch.empty_like(totals, dtype=torch.int64), torch.empty_like(totals, dtype=torch.int64)
    invoke(
        library("decode").vitrail_decode_best,
        scores=start_of(scores),
        stride=scores.stride(0),
        words=scores.shape[1],
        sums=at(before),
        firsts=at(firsts),
        texts=len(counts),
        count=best,
        totals=at(totals),
        best=at(words),
        rows=at(rows),
        threads=torch.get_num_threads(),
    )
    return totals, words, rows


def pack_dense(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> PackedMatrix:
    """Pack a matrix `(out, in)` in fp32 or bf16."""
    packed = _panels(weight.detach().to(dtype))
    numbers = (_BF16 if dtype == torch.bfloat16 else _FP32, len(weight), weight.shape[1], weight.shape[1])
    return PackedMatrix(numbers, (_in_huge_pages(packed), None, None, _bias(bias, len(weight)), None))


def pack_int8(codes: Tensor, scales: Tensor, bias: Tensor | None) -> PackedMatrix:
    """Pack int8 codes `(out, in)` with a scale for each output, `(out, 1)`."""
    numbers, bias = (_INT8, len(codes), codes.shape[1], codes.shape[1]), _bias(bias, len(codes))
    if _k_step() == 1:
        return PackedMatrix(numbers, (_in_huge_pages(_panels(codes)), _panels(scales.float()), None, bias, None))
    packed = _k_steps(codes).flatten(2)
    sums = _group_sums(codes, codes.shape[1], codes.shape[1])
    return PackedMatrix(numbers, (_in_huge_pages(packed), _panels(scales.float()), None, bias, sums))


def pack_codes(codes: Tensor, tables: Tensor, scales: Tensor, columns: int, bias: Tensor | None) -> PackedMatrix:
    """Pack codes 0 to 15, `(out, in)`.

    For integer dot products the 16 values are rounded to eight bits, an error far below that of 16 values.

    Args:
        codes: codes of the weights, uint8.
        tables: `(ceil(out / 64), 16)`, or `(1, 16)` for all outputs.
        scales: `(out, ceil(in / columns))`.
        columns: inputs that share a scale.
        bias: `(out,)`.
    """
    columns = min(columns, codes.shape[1])
    numbers, bias = (_CODES, len(codes), codes.shape[1], columns), _bias(bias, len(codes))
    tables = tables.float().expand(-(-len(codes) // TABLE_ROWS), -1)
    if _k_step() == 1:
        lanes = library("decode").vitrail_decode_lanes()
        pairs = _panels(codes).unflatten(2, (-1, 2, lanes))  # (panels, in, pairs, 2, lanes)
        packed = (pairs[..., 0, :] | pairs[..., 1, :] << 4).contiguous()
        return PackedMatrix(numbers, (_in_huge_pages(packed), _panels(scales.float()), tables.contiguous(), bias, None))
    unit = tables.abs().amax(1, keepdim=True).clamp_min(1e-30) / 127
    rounded = (tables / unit).round().to(torch.int8)
    scales = scales.float() * unit.repeat_interleave(TABLE_ROWS, 0)[: len(codes)]
    pairs = _k_steps(codes).unflatten(2, (-1, 2, 16)).flatten(4)  # (panels, k-steps, pairs, 2, 16 outputs x 4)
    packed = (pairs[..., 0, :] | pairs[..., 1, :] << 4).contiguous()
    values = rounded.repeat_interleave(TABLE_ROWS, 0)[: len(codes)].gather(1, codes.long())
    padding = rounded.repeat_interleave(TABLE_ROWS, 0)[: len(codes), :1].expand(-1, -codes.shape[1] % _k_step())
    sums = _group_sums(torch.cat([values, padding], 1), columns, codes.shape[1])
    return PackedMatrix(numbers, (_in_huge_pages(packed), _panels(scales), rounded.contiguous(), bias, sums))


def _k_step() -> int:
    return library("decode").vitrail_decode_k_step()


def _k_steps(matrix: Tensor) -> Tensor:
    """Return `(out, in)` as `(panels, k-steps, PANEL, K4)`."""
    size, step = panel(), _k_step()
    whole = pad(matrix, (0, -matrix.shape[1] % step, 0, -len(matrix) % size))
    return whole.unflatten(0, (-1, size)).unflatten(2, (-1, step)).transpose(1, 2).contiguous()


def _group_sums(values: Tensor, columns: int, depth: int) -> Tensor:
    """Return the sums of groups of columns, `(panels, groups, PANEL)` in int32."""
    if columns >= depth:
        return _panels(values.sum(1, keepdim=True, dtype=torch.int32))
    groups = pad(values.int(), (0, -values.shape[1] % columns)).unflatten(1, (-1, columns))
    return _panels(groups.sum(2, dtype=torch.int32))


def pack_norm(weight: Tensor | None, bias: Tensor | None, channels: int, eps: float, centered: bool = True) -> Tensor:
    """Return the numbers of a norm; weight and bias are padded with zeros to whole panels.

    Args:
        weight: factor of each channel.
        bias: addend of each channel.
        channels: channels C.
        eps: epsilon.
        centered: whether the mean is subtracted, as in LayerNorm; not in RMSNorm.
    """
    width = -(-channels // panel()) * panel()
    packed = torch.zeros(2 + 2 * width)
    packed[0], packed[1] = eps, float(centered)
    packed[2 : 2 + channels] = 1.0 if weight is None else weight.detach()
    packed[2 + width : 2 + width + channels] = 0.0 if bias is None else bias.detach()
    return packed


def _panels(matrix: Tensor) -> Tensor:
    """Return `(out, in)` as `(panels, in, PANEL)`."""
    size = panel()
    whole = pad(matrix, (0, 0, 0, -len(matrix) % size))
    return whole.unflatten(0, (-1, size)).transpose(1, 2).contiguous()


def _bias(bias: Tensor | None, outputs: int) -> Tensor:
    padded = torch.zeros(-(-outputs // panel()) * panel())
    if bias is not None:
        padded[:outputs] = bias.detach()
    return padded


def _in_huge_pages(x: Tensor) -> Tensor:
    """Copy large weights: reading them misses fewer entries of the TLB."""
    return CachingAllocator(most=1 << 62).empty(tuple(x.shape), x.dtype).copy_(x)


class DecoderLayer(NamedTuple):
    """Packed weights of a block; those of cross-attention are None without it."""

    norm1: Tensor | None
    qkv: PackedMatrix
    proj: PackedMatrix
    norm_cross: Tensor | None
    q_cross: PackedMatrix | None
    proj_cross: PackedMatrix | None
    norm2: Tensor | None
    fc1: PackedMatrix
    fc2: PackedMatrix

    def words(self) -> list[int]:
        """Return the numbers that C++ reads; fields that are absent in every block are left out."""
        first = [address(self.norm1), *self.qkv.words(), *self.proj.words()]
        if self.q_cross is not None and self.proj_cross is not None:
            first += [address(self.norm_cross), *self.q_cross.words(), *self.proj_cross.words()]
        return [*first, address(self.norm2), *self.fc1.words(), *self.fc2.words()]


class DecoderWeights(NamedTuple):
    """Everything that a decoding step reads.

    Args:
        sizes: channels C, heads, whether norms come last, number of the activation.
        words: word table `(V, C)`, fp32.
        scale: factor of word vectors, `(1,)`.
        positions: `(capacity, C)` added to word vectors, or None.
        rotation: `(capacity, d)` cosine and sine by turns, which turn queries and keys, or None.
        layers: blocks.
        norm: after the last block, or None.
        head: scores of words.
    """

    sizes: tuple[int, int, int, int]
    words: Tensor
    scale: Tensor
    positions: Tensor | None
    rotation: Tensor | None
    layers: tuple[DecoderLayer, ...]
    norm: Tensor | None
    head: PackedMatrix


class DecoderProgram:
    """A decoder as C++ reads it: numbers and addresses in the order of `Decoder` in `decode.cpp`.

    A copy has copies of the weights, and their addresses.

    Args:
        weights: packed weights.
    """

    def __init__(self, weights: DecoderWeights):
        w = self.weights = weights
        self.channels, self.heads = w.sizes[:2]
        self.vocabulary, self.scored, self.depth = len(w.words), w.head.numbers[1], len(w.layers)
        start = [*w.sizes, self.vocabulary, *map(address, (w.words, w.scale, w.positions, w.rotation))]
        cross = any(layer.q_cross is not None for layer in w.layers)
        blocks = [word for layer in w.layers for word in layer.words()]
        numbers = [*start, int(cross), self.depth, *blocks, address(w.norm), *w.head.words()]
        self.numbers = torch.tensor(numbers, dtype=torch.int64)

    def __reduce__(self) -> tuple[type["DecoderProgram"], tuple[DecoderWeights]]:
        return DecoderProgram, (self.weights,)

    @property
    def bytes(self) -> int:
        """Bytes of packed weights, which a step reads once."""
        w = self.weights
        matrices = [each for layer in w.layers for each in layer if isinstance(each, PackedMatrix)]
        return sum(each.bytes for each in (*matrices, w.head))

    @property
    def head_dim(self) -> int:
        """Width of a head in the cache, padded to whole vectors."""
        lanes = library("decode").vitrail_decode_lanes()
        return -(-(self.channels // self.heads) // lanes) * lanes


class Memory(NamedTuple):
    """Keys and values of encoded sources.

    Args:
        layers: `(2, S, heads, M, head_dim)` of each block.
        lengths: `(S,)` tokens of each source, int32.
        rows: `(R,)` source of each row, int32.
    """

    layers: tuple[Tensor, ...]
    lengths: Tensor
    rows: Tensor


class DecoderRows:
    """Rows of texts that grow together, with their cache.

    The keys of row r at position p are in slot `slots[r, p]` of the cache, so beams are reordered without a copy of
    keys: a new token is stored in the slot of its own row, and earlier ones stay where they are.

    Args:
        program: the decoder.
        rows: texts R.
        capacity: tokens that a text may have.
        memory: encoded sources, if the decoder has cross-attention.
    """

    def __init__(self, program: DecoderProgram, rows: int, capacity: int, memory: Memory | None = None):
        self.program, self.capacity, self.memory = program, capacity, memory
        self.start = 0
        self.slots = torch.arange(rows, dtype=torch.int32)[:, None].repeat(1, capacity)
        self.cache = self._empty(rows)

    def _empty(self, slots: int) -> Tensor:
        p = self.program
        return torch.empty(p.depth, 2, slots, p.heads, self.capacity, p.head_dim)

    def feed(self, ids: Tensor, scores: str = "last") -> tuple[Tensor, Tensor | None]:
        """Append tokens `(R, n)`; return tokens after the last norm `(R, n, C)`, and scores of words.

        Args:
            ids: token ids.
            scores: `last` for the log-probabilities `(R, V)` of the next token, `every` for the logits `(R, n, V)`, or
                `none`.

        Raises:
            VitrailError: an id is outside the vocabulary, or there is no room.
        """
        p, (rows, tokens), size = self.program, ids.shape, panel()
        if self.start + tokens > self.capacity:
            raise VitrailError(
                f"The cache has room for {self.capacity} tokens, and token {self.start + tokens} was given."
            )
        ids = ids.contiguous()
        hidden = torch.empty(rows, tokens, -(-p.channels // size) * size)
        scored = {"last": (rows,), "every": (rows, tokens), "none": None}[scores]
        words = None if scored is None else torch.empty(*scored, -(-p.scored // size) * size)
        memory, kept = self._memory()
        sources, longest = (len(kept.lengths), kept.layers[0].shape[3]) if kept else (0, 0)
        layers, source_of, lengths = memory
        done = invoke(
            library("decode").vitrail_decode_step,
            program=at(p.numbers),
            ids=at(ids),
            rows=rows,
            tokens=tokens,
            start=self.start,
            cache=at(self.cache),
            slots=self.cache.shape[2],
            capacity=self.capacity,
            slot_of=at(self.slots),
            memory=at(layers),
            sources=sources,
            longest=longest,
            source_of=at(source_of),
            source_lengths=at(lengths),
            hidden=at(hidden),
            scores=at(words),
            every=scores == "every",
            log_softmax=scores == "last",
            threads=self._threads(rows * tokens),
        )
        if not done:
            wrong = ids[(ids < 0) | (ids >= p.vocabulary)][0]
            raise VitrailError(f"Token id {int(wrong)} is outside the vocabulary of {p.vocabulary} words.")
        self.start += tokens
        return hidden[..., : p.channels], None if words is None else words[..., : p.scored]

    def _threads(self, tokens: int) -> int:
        """Return the threads of a step: all, if each has enough work between two barriers."""
        return max(1, min(torch.get_num_threads(), self.program.bytes * tokens // WORK))

    def _memory(self) -> tuple[tuple[Tensor | None, ...], Memory | None]:
        if self.memory is None:
            return (None, None, None), None
        self._pointers = torch.tensor([address(layer) for layer in self.memory.layers], dtype=torch.int64)
        return (self._pointers, self.memory.rows, self.memory.lengths), self.memory

    def select(self, rows: Tensor) -> None:
        """Keep the given rows, in the given order; a row may be repeated."""
        self.slots = self.slots.index_select(0, rows)
        if self.memory is not None:
            self.memory = self.memory._replace(rows=self.memory.rows.index_select(0, rows))
        if len(rows) > self.cache.shape[2]:
            old, self.cache = self.cache, self._empty(len(rows))
            self.cache[:, :, : old.shape[2], :, : self.start] = old[..., : self.start, :]
        self.slots[:, self.start :] = torch.arange(len(rows), dtype=torch.int32)[:, None]
