"""Packed weights of a Transformer decoder, from the modules of a model."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vitrail.fused.unsupported import NotConverted, check_parts, has_hooks
from vitrail.kernels.lookup_linear.reference import unpack_codes
from vitrail.layouts import TokenSequence
from vitrail.native.decode import (
    DecoderLayer,
    DecoderWeights,
    PackedMatrix,
    pack_codes,
    pack_dense,
    pack_int8,
    pack_norm,
)
from vitrail.parts.activations import QuickGELU
from vitrail.parts.attend import NoQKNorm
from vitrail.parts.blocks import Block
from vitrail.parts.causal_attend import CausalAttend, DropoutAttend
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.positions import NoPosition
from vitrail.parts.quantized_linear import (
    CodebookLinear,
    Int4Linear,
    Int8Linear,
    LookupLinear,
    QuantizedLinear,
    absmax,
    quantized,
)
from vitrail.parts.regularisation import DropPath
from vitrail.parts.sequence_blocks import DecoderBlock, PostNormBlock, PostNormDecoderBlock
from vitrail.parts.sequence_norms import RMSNorm
from vitrail.parts.sequence_positions import (
    RotaryPosition,
    SequencePosition,
    SinusoidalPosition,
    SplitSinusoidalPosition,
)
from vitrail.parts.text_embedding import TextEmbedding, TokenDropout
from vitrail.parts.text_heads import TiedHead, UntiedHead
from vitrail.parts.token_mixers.causal_attention import CausalAttention
from vitrail.parts.token_mixers.cross_attention import CrossAttention

LINEAR = (nn.Linear, Int8Linear, Int4Linear, CodebookLinear)
NORMS = (nn.LayerNorm, RMSNorm)
POSITIONS = (SequencePosition, SinusoidalPosition, SplitSinusoidalPosition)
ACTIVATIONS = {nn.GELU: 0, nn.ReLU: 2, nn.SiLU: 3, QuickGELU: 4}
STORED: dict[str, type[QuantizedLinear]] = {"int8": Int8Linear, "codebook": CodebookLinear}
"""Format of the weights of a precision, if it is not a dtype."""

ATTENTION_SEATS = {
    "qkv": LINEAR,
    "position": (NoPosition, RotaryPosition),
    "attend": (CausalAttend,),
    "qk_norm": (NoQKNorm,),
    "proj": LINEAR,
}
CROSS_SEATS = {"q": LINEAR, "kv": LINEAR, "attend": (DropoutAttend,), "proj": LINEAR}
MLP_SEATS = {"fc1": LINEAR, "act": tuple(ACTIVATIONS), "fc2": LINEAR}
_BRANCHES = {"norm1": NORMS, "token_mixer": (CausalAttention,), "norm2": NORMS, "channel_mixer": (MLP,)}
_PLAIN = {
    **_BRANCHES,
    "scale1": (nn.Dropout, nn.Identity),
    "scale2": (nn.Dropout, nn.Identity),
    "drop_path": (DropPath,),
}
_CROSS = {**_BRANCHES, "norm_cross": NORMS, "cross_mixer": (CrossAttention,), "dropout": (nn.Dropout,)}
BLOCK_SEATS: dict[type[nn.Module], tuple[bool, dict[str, tuple[type[nn.Module], ...]]]] = {
    Block: (False, _PLAIN),
    PostNormBlock: (True, _PLAIN),
    DecoderBlock: (False, _CROSS),
    PostNormDecoderBlock: (True, _CROSS),
}
"""Whether norms come last, and the children, of each kind of block."""


def decoder_weights(
    embedding: Any, blocks: list[Any], norm: nn.Module, head: nn.Module, precision: str, capacity: int
) -> DecoderWeights:
    """Pack the weights of a decoder.

    Args:
        embedding: word table and steps.
        blocks: all blocks, of one kind.
        norm: after the last block.
        head: `TiedHead` or `UntiedHead`.
        precision: `fp32`, `bf16`, `int8` or `codebook`; layers whose weights are stored quantized keep their codes.
        capacity: positions to prepare.

    Raises:
        NotConverted: a part has no compiled form.
    """
    if has_hooks(embedding, norm, head, *blocks):
        raise NotConverted("a part has hooks or a forward of its own")
    if not blocks or len({type(block) for block in blocks}) > 1 or type(blocks[0]) not in BLOCK_SEATS:
        raise NotConverted(
            "its blocks are " + (", ".join(sorted({type(block).__name__ for block in blocks})) or "none")
        )
    post, _ = BLOCK_SEATS[type(blocks[0])]
    for block in blocks:
        _check_block(block)
    mixer, table = blocks[0].token_mixer, _word_table(embedding)
    dim = table.shape[1]
    acts, heads = {_activation(block.channel_mixer.act) for block in blocks}, {_heads(block) for block in blocks}
    if len(acts) > 1 or len(heads) > 1:
        raise NotConverted("its blocks differ in activation or heads")
    pack = _packing(precision)
    return DecoderWeights(
        sizes=(dim, mixer.num_heads, int(post), acts.pop()),
        words=table.detach().float().clone(),
        scale=torch.tensor([float(embedding.scale)]),
        positions=_positions(embedding, dim, capacity),
        rotation=_rotation(mixer, dim, capacity),
        layers=tuple(_layer(block, pack) for block in blocks),
        norm=_norm(norm),
        head=_head(head, table, pack),
    )


def _check_block(block: Any) -> None:
    check_parts(block, BLOCK_SEATS[type(block)][1])
    if getattr(block, "alpha", 1.0) != 1.0:
        raise NotConverted("its residuals have a factor (DeepNorm)")
    check_parts(block.token_mixer, ATTENTION_SEATS)
    check_parts(block.channel_mixer, MLP_SEATS)
    if hasattr(block, "cross_mixer"):
        check_parts(block.cross_mixer, CROSS_SEATS)


def _heads(block: Any) -> tuple[Any, ...]:
    mixer = block.token_mixer
    position = mixer.position
    return mixer.num_heads, type(position), getattr(position, "base", None)


def _activation(act: Any) -> int:
    return 1 if isinstance(act, nn.GELU) and act.approximate == "tanh" else ACTIVATIONS[type(act)]


def _word_table(embedding: Any) -> Tensor:
    if type(embedding) is not TextEmbedding:
        raise NotConverted(f"its embedding is {type(embedding).__name__}")
    for step in embedding.steps:
        if type(step) not in (*POSITIONS, TokenDropout):
            raise NotConverted(f"its embedding has {type(step).__name__}")
    return embedding.words.weight


def _positions(embedding: Any, dim: int, capacity: int) -> Tensor | None:
    """Return the sum that the steps of an embedding add to each position."""
    steps = [step for step in embedding.steps if type(step) in POSITIONS]
    if not steps:
        return None
    with torch.no_grad():
        x: Tensor = torch.zeros(1, capacity, dim)
        for step in steps:
            x, _ = step(x, TokenSequence(capacity))
    return x[0].float().contiguous()


def _rotation(mixer: Any, dim: int, capacity: int) -> Tensor | None:
    """Return how a rotation turns the pair (1, 0) at each position: (cos, sin)."""
    if type(mixer.position) is not RotaryPosition:
        return None
    pairs = torch.tensor([1.0, 0.0]).repeat(capacity, dim // mixer.num_heads // 2)
    return mixer.position.rotate(pairs, pairs, TokenSequence(capacity))[0].contiguous()


def _layer(block: Any, pack: Callable[[Any], PackedMatrix]) -> DecoderLayer:
    cross = getattr(block, "cross_mixer", None)
    return DecoderLayer(
        norm1=_norm(block.norm1),
        qkv=pack(block.token_mixer.qkv),
        proj=pack(block.token_mixer.proj),
        norm_cross=None if cross is None else _norm(block.norm_cross),
        q_cross=None if cross is None else pack(cross.q),
        proj_cross=None if cross is None else pack(cross.proj),
        norm2=_norm(block.norm2),
        fc1=pack(block.channel_mixer.fc1),
        fc2=pack(block.channel_mixer.fc2),
    )


def _norm(norm: Any) -> Tensor | None:
    if type(norm) is nn.Identity:
        return None
    if type(norm) not in NORMS:
        raise NotConverted(f"its norm is {type(norm).__name__}")
    channels = norm.weight.shape[0] if norm.weight is not None else norm.normalized_shape[0]
    return pack_norm(norm.weight, getattr(norm, "bias", None), channels, norm.eps, type(norm) is nn.LayerNorm)


def _head(head: Any, table: Tensor, pack: Callable[[Any], PackedMatrix]) -> PackedMatrix:
    if type(head) is UntiedHead:
        return pack(head.linear)
    if type(head) is not TiedHead or type(head.transform) is not nn.Identity:
        raise NotConverted(f"its head is {type(head).__name__}")
    with torch.device("meta"):
        linear: Any = nn.Linear(table.shape[1], table.shape[0], bias=head.bias is not None)
    linear.weight, linear.bias = nn.Parameter(table.detach(), requires_grad=False), head.bias
    return pack(linear)


def _packing(precision: str) -> Callable[[Any], PackedMatrix]:
    """Return how linear layers are packed in a precision."""

    def pack(layer: Any) -> PackedMatrix:
        if type(layer) not in LINEAR:
            raise NotConverted(f"a layer is {type(layer).__name__}")
        kind = STORED.get(precision)
        if type(layer) is nn.Linear and kind is not None:
            layer = _quantize(layer, kind)
        if isinstance(layer, Int8Linear):
            return pack_int8(layer.codes, layer.scales, layer.bias)
        if isinstance(layer, LookupLinear):
            codes = unpack_codes(layer.codes)[:, : layer.in_features]
            return pack_codes(codes, layer.tables, layer.scales, layer.columns, layer.bias)
        return pack_dense(layer.weight, layer.bias, torch.bfloat16 if precision == "bf16" else torch.float32)

    return pack


def _quantize(layer: nn.Linear, kind: type[QuantizedLinear]) -> QuantizedLinear:
    new = quantized(layer, kind)
    new.encode(layer.weight, absmax)
    return new
