"""Optimized encoders of text, such as BERT: fused layers on the tokens of all texts in one list, without padding."""

from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from vitrail.errors import VitrailError, unknown
from vitrail.fused.attention import HeadSizes
from vitrail.fused.folding import NormAffine
from vitrail.fused.grid_cache import GridCache
from vitrail.fused.mlp import MLP_SEATS, check_mlp, mlp_unsupported_reason
from vitrail.fused.optimized_model import OptimizedModel, run_alone
from vitrail.fused.plan import DTYPES, usual_precision
from vitrail.fused.unsupported import NotConverted, check_parts, has_hooks, parts_unsupported_reason
from vitrail.layouts import TokenSequence
from vitrail.native.attention import TokenGroups, attend_groups
from vitrail.native.build import missing
from vitrail.native.casts import as_residual
from vitrail.native.dtypes import RESIDUAL
from vitrail.native.gemm import ADD, linear, mlp, pack_linear
from vitrail.parts.attend import Attend, NoQKNorm
from vitrail.parts.backbone import Features
from vitrail.parts.blocks import Block
from vitrail.parts.causal_attend import DropoutAttend
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.merging import NoMerging
from vitrail.parts.model import Model
from vitrail.parts.positions import NoPosition
from vitrail.parts.regularisation import DropPath
from vitrail.parts.sequence_blocks import PostNormBlock
from vitrail.parts.sequence_model import SequenceBackbone, SequenceModel, TiedModel
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.shapes import TokenIds

ENCODER_PRECISIONS = ("auto", *DTYPES)
_STAGE = {"entry": (NoMerging,), "blocks": (nn.ModuleList,), "exit": (NoMerging,)}
_NOTHING = (nn.Identity, nn.Dropout)  # in evaluation mode
_BLOCK = {
    "norm1": (nn.LayerNorm,),
    "token_mixer": (SelfAttention,),
    "scale1": _NOTHING,
    "norm2": (nn.LayerNorm,),
    "channel_mixer": (MLP,),
    "scale2": _NOTHING,
    "drop_path": (DropPath,),
}
_ATTENTION = {
    "qkv": (nn.Linear,),
    "position": (NoPosition,),
    "attend": (Attend, DropoutAttend),
    "proj": (nn.Linear,),
    "qk_norm": (NoQKNorm,),
}


class LengthRun(NamedTuple):
    """Texts of one length, side by side in the list of tokens.

    Args:
        start: first token.
        count: texts.
        length: tokens of each.
    """

    start: int
    count: int
    length: int


class FusedAttentionBranch(nn.Module):
    """`x + proj(attention(qkv(x)))` of texts of several lengths; the norm before it is folded in, or none.

    Args:
        norm: scale and shift before the mixer, `eps` None for none.
        mixer: attention over all tokens of a text.
        dtype: compute dtype.
    """

    def __init__(self, norm: NormAffine, mixer: SelfAttention, dtype: torch.dtype):
        super().__init__()
        sizes = HeadSizes.of(mixer)
        if dtype == torch.bfloat16 and sizes.head_dim % 2:
            raise NotConverted(f"bf16 needs an even head width, got {sizes.head_dim}")
        queries = torch.ones(3 * sizes.inner)
        queries[: sizes.inner] = sizes.head_dim**-0.5
        weight, bias = norm.folded(mixer.qkv)
        self.qkv = pack_linear(weight * queries[:, None], bias * queries, dtype)
        self.proj = pack_linear(mixer.proj.weight, mixer.proj.bias, dtype)
        self.heads, self.eps, self.dtype, self.inner = sizes.heads, norm.eps, dtype, sizes.inner
        self.groups: GridCache[int, TokenGroups] = GridCache()

    def forward(self, x: Tensor, spans: list[LengthRun]) -> Tensor:
        """Add the branch to tokens `(T, C)`."""
        qkv = linear(x, self.qkv, norm_eps=self.eps, dtype=self.dtype)
        mixed = [self._attend(qkv[span.start : span.start + span.count * span.length], span) for span in spans]
        return linear(mixed[0] if len(mixed) == 1 else torch.cat(mixed), self.proj, ADD, add=x)

    def _attend(self, qkv: Tensor, span: LengthRun) -> Tensor:
        groups = self.groups.of(span.length, lambda: self._all_tokens(span.length))
        return attend_groups(qkv.unflatten(0, (span.count, span.length)), self.heads, groups).flatten(0, 1)

    def _all_tokens(self, length: int) -> TokenGroups:
        padding = torch.zeros(3 * self.inner, dtype=self.dtype)
        return TokenGroups(torch.arange(length, dtype=torch.int32)[None], padding)


class FusedMLPBranch(nn.Module):
    """`x + mlp(x)`, the norm before it folded in, or none.

    Args:
        norm: scale and shift before the mixer, `eps` None for none.
        mixer: the MLP.
        dtype: compute dtype.
    """

    def __init__(self, norm: NormAffine, mixer: MLP, dtype: torch.dtype):
        super().__init__()
        check_mlp(mixer, dtype)
        self.eps = norm.eps
        self.first = pack_linear(*norm.folded(mixer.fc1), dtype)
        self.second = pack_linear(mixer.fc2.weight, mixer.fc2.bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch to tokens `(T, C)`."""
        return mlp(x, self.first, self.second, add=x, norm_eps=self.eps)


class FusedTextBlock(nn.Module):
    """A block of an encoder, norm first or last, `(x, spans) -> x` on tokens `(T, C)`.

    Args:
        block: the block.
        dtype: compute dtype.

    Raises:
        NotConverted: it has parts without a fused operation.
    """

    def __init__(self, block: Any, dtype: torch.dtype):
        super().__init__()
        _check_block(block)
        last, width = isinstance(block, PostNormBlock), block.token_mixer.qkv.in_features
        norms = [NormAffine.of(norm, width) for norm in (block.norm1, block.norm2)]
        if any(norm.eps is None for norm in norms):
            raise NotConverted(f"its norms are not LayerNorm over {width} channels")
        none = NormAffine(torch.ones(width), torch.zeros(width), None)
        first, second = (none, none) if last else norms
        self.tokens = FusedAttentionBranch(first, block.token_mixer, dtype)
        self.channels = FusedMLPBranch(second, block.channel_mixer, dtype)
        self.norms = norms if last else None

    def forward(self, x: Tensor, spans: list[LengthRun]) -> Tensor:
        """Mix tokens of each text, then channels."""
        x = self.tokens(x, spans)
        x = x if self.norms is None else _normalised(x, self.norms[0])
        x = self.channels(x)
        return x if self.norms is None else _normalised(x, self.norms[1])


class NativeEncoder(OptimizedModel):
    """An encoder of text whose blocks run in native code; embedding, last norm and head compute in fp32 in PyTorch.

    Args:
        model: the model that it is made from, which is not changed.
        precision: `fp32` or `bf16`.

    Raises:
        NotConverted: a part has no fused operation.
    """

    kinds = SequenceModel.kinds
    inputs_type = SequenceModel.inputs_type

    def __init__(self, model: SequenceModel, precision: str):
        super().__init__()
        for name in vars(model).keys() & {"task", "variant", "config", "inputs", "metadata", "edits"}:
            setattr(self, name, getattr(model, name))
        self.dtype, self.precision, self.unconverted = DTYPES[precision], precision, dict[str, int]()
        backbone: Any = model.backbone
        for stage in backbone.stages:
            check_parts(stage, _STAGE, called=("blocks",))
        self.blocks = nn.ModuleList(
            FusedTextBlock(block, self.dtype) for stage in backbone.stages for block in stage.blocks
        )
        self.embedding, self.norm = deepcopy(backbone.embedding), deepcopy(backbone.norm)
        self.head, self.tied = deepcopy(model.head), isinstance(model, TiedModel)
        self.eval().requires_grad_(False)

    def forward(self, ids: TokenIds, layout: TokenSequence | None = None) -> Tensor:
        """Return the head's output in fp32."""
        return run_alone(lambda given: self._scores(self._features(given, layout)), ids)

    def features(self, ids: TokenIds, layout: TokenSequence | None = None) -> Features:
        """Return tokens in fp32, zeros at padding, and layout."""
        return run_alone(lambda given: self._features(given, layout), ids)

    def _scores(self, features: Features) -> Any:
        embedding: Any = self.embedding
        return self.head(features, embedding.words.weight) if self.tied else self.head(features)

    def _features(self, ids: Tensor, layout: TokenSequence | None) -> Features:
        asked = layout or TokenSequence(ids.shape[1])
        if asked.cache is not None:
            raise VitrailError("An optimized encoder reads whole texts; it has no cache.")
        x, read = self.embedding(ids, asked)
        index, spans = texts_by_length(x.shape[0], x.shape[1], read.lengths)
        rows = x.flatten(0, 1)
        kept = as_residual(rows if index is None else rows[index], RESIDUAL[self.dtype])
        for block in self.blocks:
            kept = block(kept, spans)
        if index is None:
            tokens = kept.float()
        else:
            tokens = rows.new_zeros(rows.shape).index_copy_(0, index, kept.float())
        tokens = self.norm(tokens.unflatten(0, x.shape[:2]))
        return Features(tokens, read, (read.cells(tokens),))


def texts_by_length(batch: int, longest: int, lengths: Tensor | None) -> tuple[Tensor | None, list[LengthRun]]:
    """Return the place of each token in `(B N, C)`, texts of one length side by side, and the runs of each length.

    Example:
        >>> texts_by_length(3, 2, torch.tensor([2, 1, 2]))
        (tensor([2, 0, 1, 4, 5]), [LengthRun(start=0, count=1, length=1), LengthRun(start=1, count=2, length=2)])
        >>> texts_by_length(3, 2, None)
        (None, [LengthRun(start=0, count=3, length=2)])
    """
    if lengths is None:
        return None, [LengthRun(0, batch, longest)]
    order = lengths.argsort(stable=True)
    places, spans, start = torch.arange(longest), list[LengthRun](), 0
    index = [row * longest + places[: int(lengths[row])] for row in order.tolist()]
    for length, count in zip(*torch.unique(lengths, return_counts=True), strict=True):
        spans.append(LengthRun(start, int(count), int(length)))
        start += int(count) * int(length)
    return torch.cat(index), spans


def optimize_encoder(model: SequenceModel, precision: str) -> NativeEncoder:
    """Return the optimized copy of an encoder of text on a CPU.

    Args:
        model: encoder of blocks with attention over all tokens, such as BERT.
        precision: of weights and GEMMs; `auto` is bf16 if the processor computes in bf16.

    Raises:
        VitrailError: unknown precision, or a part has no native form.
    """
    if precision not in ENCODER_PRECISIONS:
        raise unknown("precision of an encoder of text", precision, ENCODER_PRECISIONS)
    precision = usual_precision(torch.device("cpu")) if precision == "auto" else precision
    reason = _unsupported_reason(model)
    try:
        if reason is not None:
            raise NotConverted(reason)
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            return NativeEncoder(model, precision)
    except NotConverted as error:
        raise VitrailError(f"{model.variant} has no optimized form: {error}.\nUse the model as it is.") from None


def is_encoder(model: SequenceModel) -> bool:
    """Return whether some block of a text model attends to all tokens of a text."""
    return any(type(module) is SelfAttention for module in model.modules())


def _unsupported_reason(model: Model) -> str | None:
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    if device.type != "cpu":
        return f"it is on {device}, and native code is for CPUs"
    if type(model) not in (SequenceModel, TiedModel) or type(model.backbone) is not SequenceBackbone:
        return f"{type(model).__name__} with {type(model.backbone).__name__} is no encoder of blocks"
    wrong = [type(stage).__name__ for stage in model.backbone.stages if type(stage) is not Stage]
    if wrong:
        return f"its stage is {wrong[0]}"
    return missing("gemm", "attention")


def _check_block(block: Any) -> None:
    if type(block) not in (Block, PostNormBlock):
        raise NotConverted(f"{type(block).__name__} has no fused operation")
    check_parts(block, _BLOCK, called=("token_mixer", "channel_mixer", "drop_path"))
    if getattr(block, "alpha", 1.0) != 1.0:
        raise NotConverted(f"its residual has the factor {block.alpha}")
    if has_hooks(block.drop_path):
        raise NotConverted("its drop_path has hooks")
    mixer, channels = block.token_mixer, block.channel_mixer
    if type(mixer) is not SelfAttention or type(channels) is not MLP:
        raise NotConverted(f"its mixers are {type(mixer).__name__} and {type(channels).__name__}")
    reason = parts_unsupported_reason(mixer, _ATTENTION) or HeadSizes.of(mixer).unsupported_reason(mixer)
    reason = reason or parts_unsupported_reason(channels, MLP_SEATS) or mlp_unsupported_reason(channels)
    if reason is not None:
        raise NotConverted(reason)


def _normalised(x: Tensor, norm: NormAffine) -> Tensor:
    assert norm.eps is not None
    return layer_norm(x, (x.shape[-1],), norm.weight, norm.bias, norm.eps)
