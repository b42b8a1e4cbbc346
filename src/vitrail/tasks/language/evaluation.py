"""Evaluation of a language model on a whole text."""

from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

from markupsafe import Markup

from vitrail.data.text_streams import TextStream
from vitrail.data.token_windows import EvalWindows
from vitrail.errors import VitrailError
from vitrail.parts.model import Model
from vitrail.tasks.formatting import duration
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.language.continuation import continue_text
from vitrail.tasks.language.metric import LanguageMetric, TextSize
from vitrail.tasks.language.options import EvaluateOptions, GenerateOptions
from vitrail.tasks.language.training import encode_stream
from vitrail.tasks.results import ImageExample, MetricCard, Progress, ReportSection
from vitrail.tasks.table import Table
from vitrail.tasks.text_inputs import need_vocabulary
from vitrail.text.reading import read_vocabulary
from vitrail.text.vocabulary import UNKNOWN

_LONGEST = 1024


@dataclass(frozen=True)
class LanguageEvaluation:
    """Figures of a language model on one text.

    Args:
        model: name of the variant.
        data: name of the text.
        parameters: number of parameters.
        tokens: predicted tokens: all but the first.
        bytes: bytes of the text in UTF-8.
        words: words of the text and ends of its lines.
        nats: mean loss per token, in nats.
        perplexity: its exponential.
        bits_per_byte: total loss in bits over the bytes of the text.
        word_perplexity: exponential of the total loss over the words.
        context: tokens of a window.
        stride: tokens between the starts of two windows.
        vocabulary: tokens of the vocabulary.
        sample: text that the model generates with seed 0.
        seconds: wall time.
        device: device of the model.
        unknown: tokens of the text that stand for anything outside the vocabulary.
    """

    model: str
    data: str
    parameters: int
    tokens: int
    bytes: int
    words: int
    nats: float
    perplexity: float
    bits_per_byte: float
    word_perplexity: float
    context: int
    stride: int
    vocabulary: int
    sample: str
    seconds: float
    device: str
    unknown: int = 0

    def metrics(self) -> dict[str, float]:
        """Return loss and headline figures by name."""
        names = ("nats", "perplexity", "bits_per_byte", "word_perplexity")
        return {"loss": self.nats, **{name: getattr(self, name) for name in names}}

    def summary(self) -> str:
        """Return the figures in a sentence."""
        return (
            f"Over all {self.tokens:,} tokens of {self.data} the loss is {self.nats:.4f} nats per token (perplexity"
            f" {self.perplexity:.2f}), {self.bits_per_byte:.4f} bits per byte, perplexity per word"
            f" {self.word_perplexity:.2f}; windows of {self.context} tokens, stride {self.stride}.{self._missed()}"
        )

    def _missed(self) -> str:
        """Return a sentence about tokens outside the vocabulary, which are easy to predict."""
        if not self.unknown:
            return ""
        return (
            f" {self.unknown:,} {UNKNOWN}, and count as one and the same, so these figures are lower than those of a"
            " model that tells them apart."
        )

    def tables(self, rows: int) -> list[Table]:
        """Return the figures."""
        cells = [
            ["loss", f"{self.nats:.4f}", "nats per token"],
            ["perplexity", f"{self.perplexity:.2f}", f"per token of {self.vocabulary:,}"],
            ["perplexity", f"{self.word_perplexity:.2f}", f"per word, {self.words:,} with ends of lines"],
            ["bits per byte", f"{self.bits_per_byte:.4f}", f"{self.bytes:,} bytes"],
            ["tokens", f"{self.tokens:,}", f"{self.data}, in {duration(self.seconds)} on {self.device}"],
        ]
        return [Table("", ["measure", "value", ""], cells, right=["value"])]

    def cards(self) -> list[MetricCard]:
        """Return the headline figures of the report."""
        return [
            MetricCard("Loss", f"{self.nats:.4f}", "nats per token"),
            MetricCard("Bits per byte", f"{self.bits_per_byte:.4f}", "the same for any vocabulary"),
            MetricCard("Perplexity", f"{self.perplexity:.2f}", f"per token; {self.word_perplexity:.1f} per word"),
        ]

    def sections(self) -> list[ReportSection]:
        """Return a sample."""
        body = Markup('<p class="caption">{}</p><pre>{}</pre>')
        note = "300 tokens generated after a line feed, with temperature 0.8 and seed 0."
        return [ReportSection("A sample", body.format(note, self.sample))]

    def images_to_explain(self) -> list[ImageExample]:
        """Return no image."""
        return []

    def facts(self) -> dict[str, str]:
        """Return how it was measured."""
        return {
            "data": f"{self.data}, all {self.tokens:,} tokens but the first",
            "windows": f"{self.context} tokens, stride {self.stride}; no state is carried from window to window",
            "device": self.device,
            "time": duration(self.seconds),
            **({"unknown": f"{self.unknown:,} {UNKNOWN}"} if self.unknown else {}),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {"format_version": 1, "task": "language", **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LanguageEvaluation":
        """Build from the dict of `to_dict`."""
        return cls(**{key: value for key, value in values.items() if key not in ("format_version", "task")})


def evaluate_language(
    model: Model, stream: TextStream, options: EvaluateOptions, progress: Progress | None = None
) -> LanguageEvaluation:
    """Evaluate a language model on a text: every token but the first is predicted once.

    Args:
        model: a language model on its device.
        stream: the text.
        options: batch, context and stride.
        progress: receives the numbers of windows done and of all windows, after each batch.

    Raises:
        VitrailError: the model has no vocabulary, or positions for fewer tokens.
    """
    started = perf_counter()
    if options.tokenizer is not None:
        model.inputs = read_vocabulary(options.tokenizer)
    vocabulary, context = need_vocabulary(model), context_of(model, options.context)
    stride = min(options.stride or context, context)
    ids, size = encode_stream(vocabulary, stream), TextSize.of(stream)
    windows = EvalWindows(ids, context, stride, options.batch)
    with inference_mode_for(model) as device:
        metric, done = LanguageMetric(size, device), 0
        for batch in windows.epoch():
            batch = batch.to(device)
            metric.update(model(batch.ids), batch)
            done += len(batch.index)
            if progress is not None:
                progress(len(stream) * done // windows.count, len(stream))
    found: dict[str, Any] = metric.compute()
    found.pop("loss")
    start = "\n" if "\n" in stream.text else stream.text[:1]
    return LanguageEvaluation(
        model=model.variant,
        data=stream.name,
        parameters=sum(value.numel() for value in model.parameters()),
        tokens=len(ids) - 1,
        **size._asdict(),
        **found,
        context=context,
        stride=stride,
        vocabulary=len(vocabulary),
        sample=continue_text(model, start, GenerateOptions(tokens=300, decode="torch"), context),
        seconds=perf_counter() - started,
        device=str(device),
        unknown=0 if vocabulary.unknown is None else int((ids == vocabulary.unknown).sum()),
    )


def context_of(model: Model, wanted: int | None = None) -> int:
    """Return the tokens of a window: the wanted number, that of the training, or the positions of the model.

    Raises:
        VitrailError: the model has positions for fewer.

    Example:
        >>> from vitrail.models import create_model
        >>> context_of(create_model("gpt2", dim=8, depth=1, num_heads=1, vocab_size=20, max_length=32))
        32
    """
    positions = getattr(model.config, "max_length", None)
    if wanted is not None and positions is not None and wanted > positions:
        raise VitrailError(f"context is {wanted}, and {model.variant} has positions for {positions}.")
    return wanted or model.metadata.get("context") or min(positions or _LONGEST, _LONGEST)
