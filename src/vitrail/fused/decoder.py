"""Optimized language models: a decoding step is one native call, whatever the number of layers."""

from typing import Any

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError, unknown
from vitrail.fused.decoder_weights import decoder_weights
from vitrail.fused.optimized_model import OptimizedModel, run_alone
from vitrail.fused.plan import usual_precision
from vitrail.fused.unsupported import NotConverted, check_parts
from vitrail.generation.decoding import Decoding, check_capacity
from vitrail.layouts import TokenSequence
from vitrail.native.build import missing
from vitrail.native.decode import DecoderProgram, DecoderRows, Memory
from vitrail.parts.backbone import Features
from vitrail.parts.merging import NoMerging
from vitrail.parts.model import Model
from vitrail.parts.sequence_model import SequenceBackbone, SequenceModel, TiedModel
from vitrail.shapes import TokenIds

DECODER_PRECISIONS = ("auto", "fp32", "bf16", "int8", "codebook")
STAGE_SEATS = {"entry": (NoMerging,), "blocks": (nn.ModuleList,), "exit": (NoMerging,)}
LONGEST = 4096
"""Positions that are prepared for a model without a largest length."""


class NativeRows(Decoding):
    """Incremental decoding by native code: see `LanguageDecoding`.

    Args:
        program: packed decoder.
        rows: texts R.
        capacity: tokens that a text may have, prompt included.
        memory: encoded sources of a translation.
    """

    def __init__(self, program: DecoderProgram, rows: int, capacity: int, memory: Memory | None = None):
        self.rows, self.device = rows, torch.device("cpu")
        self._rows = DecoderRows(program, rows, capacity, memory)

    def feed(self, ids: Tensor) -> Tensor:
        """Append tokens and return the log-probabilities of the next."""
        _, scores = self._rows.feed(ids)
        assert scores is not None
        return scores

    def select(self, rows: Tensor) -> None:
        """Keep the given rows."""
        self._rows.select(rows)
        self.rows = len(rows)


class NativeLanguageModel(OptimizedModel):
    """A language model whose layers run in one native call; it has no parameters, only packed weights.

    Args:
        model: the model that it is made from, which is not changed.
        program: its packed weights.
        capacity: positions of the program.
        precision: of the weights.
    """

    kinds = SequenceModel.kinds
    inputs_type = SequenceModel.inputs_type

    def __init__(self, model: SequenceModel, program: DecoderProgram, capacity: int, precision: str):
        super().__init__()
        for name in vars(model).keys() & {"task", "variant", "config", "inputs", "metadata", "edits"}:
            setattr(self, name, getattr(model, name))
        self.program, self.capacity, self.precision = program, capacity, precision
        self.unconverted: dict[str, int] = {}
        self.eval()

    def decoding(self, rows: int, capacity: int) -> Decoding:
        """Return the incremental decoding of texts.

        Args:
            rows: texts R.
            capacity: tokens that a text may have, prompt included.

        Raises:
            VitrailError: the model has positions for fewer tokens.
        """
        check_capacity(self, capacity)
        if capacity > self.capacity:
            raise VitrailError(f"An optimized {self.variant} has positions for {self.capacity} tokens, got {capacity}.")
        return NativeRows(self.program, rows, capacity)

    def forward(self, ids: TokenIds, layout: TokenSequence | None = None) -> Tensor | None:
        """Return logits `(B, N, V)`."""
        return run_alone(lambda given: self._run(given, layout, "every")[1], ids)

    def features(self, ids: TokenIds, layout: TokenSequence | None = None) -> Features:
        """Return tokens after the last norm, and layout; no pyramid."""
        tokens, _ = run_alone(lambda given: self._run(given, layout, "none"), ids)
        return Features(tokens, layout or TokenSequence(ids.shape[1]), ())

    def _run(self, ids: Tensor, layout: TokenSequence | None, scores: str) -> tuple[Tensor, Tensor | None]:
        # Padding on the right is later than every real token, so the causal order hides it.
        if layout is not None and (layout.cache is not None or layout.start or layout.segments is not None):
            raise VitrailError("An optimized language model has its own cache: call model.decoding(rows, capacity).")
        check_capacity(self, ids.shape[1])
        return DecoderRows(self.program, len(ids), ids.shape[1]).feed(ids, scores)


def optimize_decoder(model: SequenceModel, precision: str) -> NativeLanguageModel:
    """Return the optimized copy of a language model on a CPU.

    Args:
        model: language model of causal blocks, such as GPT-2.
        precision: of the weights; activations, sums and the cache are fp32. `auto` is bf16 if the processor computes in
            bf16. `int8` has a scale for each output, `codebook` four bits: 16 values for each 64 outputs, and a scale
            for each output. The word table is stored twice: in fp32 for the embedding, packed for the scores.

    Raises:
        VitrailError: unknown precision, or a part has no native form.
    """
    if precision not in DECODER_PRECISIONS:
        raise unknown("precision", precision, DECODER_PRECISIONS)
    reason = unsupported_reason(model)
    if reason is not None:
        raise VitrailError(f"{model.variant} has no optimized form: {reason}.\nUse the model as it is.")
    precision = usual_precision(torch.device("cpu")) if precision == "auto" else precision
    backbone: Any = model.backbone
    capacity = getattr(model.config, "max_length", None) or LONGEST
    try:
        for stage in backbone.stages:
            check_parts(stage, STAGE_SEATS, called=("blocks",))
        blocks = [block for stage in backbone.stages for block in stage.blocks]
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            weights = decoder_weights(backbone.embedding, blocks, backbone.norm, model.head, precision, capacity)
    except NotConverted as error:
        raise VitrailError(f"{model.variant} has no optimized form: {error}.\nUse the model as it is.") from None
    return NativeLanguageModel(model, DecoderProgram(weights), capacity, precision)


def unsupported_reason(model: Model) -> str | None:
    """Return why a model cannot decode in native code whatever its blocks are, or None."""
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    if device.type != "cpu":
        return f"it is on {device}, and native decoding is for CPUs"
    if type(model) is not TiedModel or type(model.backbone) is not SequenceBackbone:
        return f"{type(model).__name__} with {type(model.backbone).__name__} is no decoder of causal blocks"
    return missing("decode")
