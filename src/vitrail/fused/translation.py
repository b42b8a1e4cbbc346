"""Optimized translation models: the encoder in PyTorch, each step of the decoder in one native call."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from vitrail.errors import VitrailError, unknown
from vitrail.fused.decoder import DECODER_PRECISIONS, LONGEST, STAGE_SEATS, NativeRows
from vitrail.fused.decoder_weights import decoder_weights
from vitrail.fused.optimized_model import OptimizedModel
from vitrail.fused.plan import usual_precision
from vitrail.fused.unsupported import NotConverted, check_parts
from vitrail.generation.decoding import Decoding, pad_batch
from vitrail.layouts import TokenSequence
from vitrail.native.build import missing
from vitrail.native.decode import DecoderProgram, DecoderRows, Memory
from vitrail.parts.encoder_decoder import EncoderDecoder
from vitrail.shapes import TokenIds


class NativeTranslationModel(OptimizedModel, EncoderDecoder):
    """An encoder-decoder whose decoder runs in one native call a step.

    Attributes:
        program: packed weights of the decoder.
        capacity: positions of the program.
    """

    program: DecoderProgram
    capacity: int

    def decoding(self, sources: Sequence[Sequence[int]], capacity: int) -> Decoding:
        """Return the incremental decoding of translations; sources are encoded, and their keys computed, once.

        Args:
            sources: token ids of each source text.
            capacity: tokens that a target may have, its start token included.
        """
        ids, lengths = pad_batch(sources)
        with torch.inference_mode():
            memory = self.encode(ids, TokenSequence(ids.shape[1], lengths=lengths))
            return NativeRows(self.program, len(ids), self._checked(capacity), self._keys(memory, lengths))

    def decode_features(self, target: TokenIds, layout: TokenSequence) -> Tensor:
        """Return the decoder's output `(B, N, C)`."""
        return self._run(target, layout, "none")[0]

    def decode(self, target: TokenIds, layout: TokenSequence) -> Tensor:
        """Return logits `(B, N, V)` of the word after each target token; `layout` holds the memory."""
        scores = self._run(target, layout, "every")[1]
        assert scores is not None
        return scores

    def _run(self, target: Tensor, layout: TokenSequence, scores: str) -> tuple[Tensor, Tensor | None]:
        if layout.memory is None or layout.cache is not None or layout.start:
            raise VitrailError("An optimized decoder has its own cache: call model.decoding(sources, capacity).")
        lengths = layout.memory_lengths
        if lengths is None:
            lengths = torch.full((len(target),), layout.memory.shape[1])
        with torch.no_grad():
            keys = self._keys(layout.memory, lengths)
        return DecoderRows(self.program, len(target), self._checked(target.shape[1]), keys).feed(target, scores)

    def _checked(self, capacity: int) -> int:
        if capacity > self.capacity:
            raise VitrailError(f"An optimized {self.variant} has positions for {self.capacity} tokens, got {capacity}.")
        return capacity

    def _keys(self, memory: Tensor, lengths: Tensor) -> Memory:
        """Return keys and values of the encoder output for each block, heads padded to whole vectors."""
        layers = []
        for block in self.decoder.blocks:
            mixer: Any = block.cross_mixer
            both = mixer.kv(memory).unflatten(-1, (2, mixer.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (2, S, h, M, d)
            layers.append(pad(both, (0, self.program.head_dim - both.shape[-1])).contiguous())
        rows = torch.arange(len(memory), dtype=torch.int32)
        return Memory(tuple(layers), lengths.to(torch.int32).contiguous(), rows)


def optimize_translation(model: EncoderDecoder, precision: str) -> NativeTranslationModel:
    """Return the optimized copy of an encoder-decoder on a CPU.

    Args:
        model: such as the Transformer of "Attention Is All You Need".
        precision: of the decoder's weights, as for a language model; the encoder computes in fp32.

    Raises:
        VitrailError: unknown precision, or a part has no native form.
    """
    if precision not in DECODER_PRECISIONS:
        raise unknown("precision", precision, DECODER_PRECISIONS)
    precision = usual_precision(torch.device("cpu")) if precision == "auto" else precision
    device = model.embedding.words.weight.device
    try:
        if type(model) is not EncoderDecoder:
            raise NotConverted(f"it is {type(model).__name__}")
        if device.type != "cpu":
            raise NotConverted(f"it is on {device}, and native decoding is for CPUs")
        if (reason := missing("decode")) is not None:
            raise NotConverted(reason)
        check_parts(model.decoder, STAGE_SEATS, called=("blocks",))
        blocks = list(model.decoder.blocks)
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            weights = decoder_weights(model.embedding, blocks, model.decoder_norm, model.head, precision, LONGEST)
    except NotConverted as error:
        raise VitrailError(f"{model.variant} has no optimized form: {error}.\nUse the model as it is.") from None
    fast: Any = deepcopy(model).eval().requires_grad_(False)
    fast.__class__ = NativeTranslationModel
    fast.program, fast.capacity, fast.precision = DecoderProgram(weights), LONGEST, precision
    fast.unconverted = {"encoder: runs in PyTorch": len(model.encoder.blocks)}
    return fast
