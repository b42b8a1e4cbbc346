"""Evaluation of a translation model: one beam search over a split."""

from dataclasses import asdict, dataclass, fields
from time import perf_counter
from typing import Any

import torch

from vitrail.data.pairs import ParallelText, SentencePairs
from vitrail.data.token_batches import TokenBatches
from vitrail.parts.model import Model
from vitrail.tasks.formatting import duration
from vitrail.tasks.inference import device_of, inference_mode_for
from vitrail.tasks.results import ImageExample, MetricCard, Progress, ReportSection
from vitrail.tasks.table import Table
from vitrail.tasks.text_inputs import pad_ids
from vitrail.tasks.translate.batch import PairBatch
from vitrail.tasks.translate.options import EvaluateOptions
from vitrail.tasks.translate.scoring import TranslationFigures, score_translations, sentence_bleu
from vitrail.tasks.translate.sections import evaluation_sections
from vitrail.tasks.translate.training import encode_pairs, pair_loss
from vitrail.tasks.translate.translator import Translated, Translator

_EXAMPLES = 20
_LOSS_TOKENS = 4096


@dataclass(frozen=True)
class EvaluatedSentence:
    """A sentence of the split with its translation; `bleu` is of the sentence, smoothed."""

    id: str
    source: str
    reference: str
    translation: str
    bleu: float
    score: float


@dataclass(frozen=True)
class TranslationEvaluation:
    """Evaluation of a translation model on one split.

    Args:
        model: name of the variant.
        parameters: number of weights.
        data: data set and split.
        languages: source and target.
        samples: sentences.
        tokens: target tokens, ends included.
        loss: negative log-likelihood of a target token, in nats.
        figures: BLEU figures of the translations.
        lengths: longest source of each bin in words, sentences in it, BLEU in it.
        examples: the first sentences.
        worst: the sentences with the least BLEU.
        certified: sentences whose search is certified.
        truncated: sources that were cut.
        longest: most tokens of a source.
        search: beam and length penalty.
        seconds: time of loss and search.
        batch: sentences in a batch.
        device: device of the model.
    """

    model: str
    parameters: int
    data: str
    languages: tuple[str, str]
    samples: int
    tokens: int
    loss: float
    figures: TranslationFigures
    lengths: tuple[tuple[int, int, float], ...]
    examples: tuple[EvaluatedSentence, ...]
    worst: tuple[EvaluatedSentence, ...]
    certified: int
    truncated: int
    longest: int
    search: str
    seconds: float
    batch: int
    device: str

    def metrics(self) -> dict[str, float]:
        """Return loss and headline figures by name."""
        return {
            "loss": self.loss,
            "bleu": self.figures.bleu,
            "sacrebleu": self.figures.sacrebleu,
            "chrf": self.figures.chrf,
        }

    def summary(self) -> str:
        """Return a few sentences."""
        f = self.figures
        return (
            f"{self.samples:,} sentences of {self.data}, {' to '.join(self.languages)}: BLEU {100 * f.bleu:.2f} "
            f"lower-cased and tokenised, sacreBLEU {100 * f.sacrebleu:.2f} ({f.signature}), {self.search}."
        )

    def tables(self, rows: int) -> list[Table]:
        """Return the figures, and the worst sentences."""
        f = self.figures
        precisions = " / ".join(f"{100 * value:.1f}" for value in f.precisions)
        figures = [
            ["BLEU", f"{100 * f.bleu:.2f}", f"lower-cased, Moses tokens, no smoothing: {precisions}"],
            ["sacreBLEU", f"{100 * f.sacrebleu:.2f}", f.signature],
            ["chrF2", f"{100 * f.chrf:.2f}", "texts as they are"],
            ["length ratio", f"{f.length_ratio:.3f}", "tokens of translations by tokens of references"],
            ["loss", f"{self.loss:.4f}", f"nats a target token, of {self.tokens:,}"],
            ["certified", f"{self.certified:,}", f"of {self.samples:,} searches missed nothing better in their beam"],
            ["speed", f"{self.samples / self.seconds:.1f}", f"sentences a second, {self.search}, {self.device}"],
        ]
        worst = [
            [f"{100 * each.bleu:.1f}", each.source, each.translation, each.reference] for each in self.worst[:rows]
        ]
        return [
            Table("Figures", ["figure", "value", "of"], figures, right=["value"]),
            Table("Worst sentences", ["BLEU", "source", "translation", "reference"], worst, right=["BLEU"]),
        ]

    def cards(self) -> list[MetricCard]:
        """Return the headline figures."""
        f = self.figures
        return [
            MetricCard("BLEU", f"{100 * f.bleu:.1f}", "lower-cased, tokenised"),
            MetricCard("sacreBLEU", f"{100 * f.sacrebleu:.1f}", f.signature),
            MetricCard("chrF2", f"{100 * f.chrf:.1f}", f"{self.samples:,} sentences"),
            MetricCard("Loss", f"{self.loss:.3f}", "nats a token"),
        ]

    def sections(self) -> list[ReportSection]:
        """Return the sections of the report."""
        return evaluation_sections(self)

    def images_to_explain(self) -> list[ImageExample]:
        """Return nothing: the inputs are no images."""
        return []

    def facts(self) -> dict[str, str]:
        """Return the settings of the evaluation."""
        cut = f"{self.truncated} of {self.samples} sources are longer than {self.longest} tokens and were cut"
        return {
            "data": self.data,
            "sentences": f"{self.samples:,}",
            "search": self.search,
            "signature": self.figures.signature,
            "length": cut if self.truncated else f"at most {self.longest} tokens, none was cut",
            "time": f"{duration(self.seconds)} on {self.device}",
        }

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {"format_version": 1, "task": "translate", **_plain(asdict(self))}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TranslationEvaluation":
        """Build from the dict of `to_dict`."""
        values = {field.name: values[field.name] for field in fields(cls)}
        figures = {**values["figures"], "precisions": tuple(values["figures"]["precisions"])}
        values |= {name: tuple(EvaluatedSentence(**each) for each in values[name]) for name in ("examples", "worst")}
        values |= {"lengths": tuple(tuple(each) for each in values["lengths"]), "languages": tuple(values["languages"])}
        return cls(**{**values, "figures": TranslationFigures(**figures)})


def evaluate_translation(
    model: Model, data: ParallelText, options: EvaluateOptions, progress: Progress | None = None
) -> TranslationEvaluation:
    """Evaluate a translation model: loss of the references, then a beam search for each sentence.

    Args:
        model: the model on its device, with its vocabulary and languages.
        data: parallel text with the model's languages.
        options: beam, length penalty, batch, number of worst sentences kept.
        progress: receives the numbers of sentences done and of all sentences.

    Raises:
        VitrailError: the data lacks a language of the model, or a library of the figures is not installed.
    """
    source, target = model.metadata.get("source"), model.metadata.get("target")
    pairs, started = data.pairs(source, target), perf_counter()
    translator = Translator(model, options)
    loss, tokens = reference_loss(model, translator, pairs)
    found: list[Translated] = [Translated("")] * len(pairs)
    order = sorted(range(len(pairs)), key=lambda number: len(pairs.sources[number]))
    for first in range(0, len(order), options.batch):
        numbers = order[first : first + options.batch]
        for number, result in zip(numbers, translator([pairs.sources[n] for n in numbers]), strict=True):
            found[number] = result
        if progress is not None:
            progress(first + len(numbers), len(pairs))
    seconds = perf_counter() - started
    lowered = translator.vocabulary.decode(translator.vocabulary.encode(["A"], special=False).ids[0]) == "a"
    sentences = [
        EvaluatedSentence(id, text, wanted, result.text, sentence_bleu(result.text, wanted), result.score)
        for id, text, wanted, result in zip(pairs.ids, pairs.sources, pairs.targets, found, strict=True)
    ]
    note = " (a model of lower-cased text: sacreBLEU counts every capital as an error)" if lowered else ""
    return TranslationEvaluation(
        model=model.variant,
        parameters=sum(value.numel() for value in model.parameters()),
        data=pairs.name,
        languages=(str(source), str(target)),
        samples=len(pairs),
        tokens=tokens,
        loss=loss,
        figures=score_translations([each.text for each in found], pairs.targets, str(target)),
        lengths=tuple(_by_length(pairs, found, str(target))),
        examples=tuple(sentences[:_EXAMPLES]),
        worst=tuple(sorted(sentences, key=lambda each: each.bleu)[: options.worst]),
        certified=sum(each.certified for each in found),
        truncated=sum(bool(each.truncated) for each in found),
        longest=translator.longest,
        search=f"beam {options.beam}, {options.penalty} length penalty {options.length_penalty:g}{note}",
        seconds=seconds,
        batch=options.batch,
        device=str(device_of(model)),
    )


def reference_loss(model: Model, translator: Translator, pairs: SentencePairs) -> tuple[float, int]:
    """Return the negative log-likelihood of a token of the references, and their number; no pair is cut."""
    ids = encode_pairs(translator.vocabulary, pairs)
    lengths = torch.tensor([[len(target), len(source)] for source, target in ids])
    total, count = 0.0, 0
    with inference_mode_for(model) as device:
        for index in TokenBatches(lengths.numpy(), _LOSS_TOKENS, shuffle=False).batches():
            sources, targets = (pad_ids([ids[number][side] for number in index]) for side in (0, 1))
            batch = PairBatch(*sources, *targets, torch.from_numpy(index)).to(device)
            total += float(pair_loss(model, batch, 0.0)[1])
            count += int(batch.weight)
    return total / count, count


def _by_length(pairs: SentencePairs, found: list[Translated], language: str) -> Any:
    """Yield BLEU by length of the source, in five bins of equal size."""
    order = sorted(range(len(pairs)), key=lambda number: len(pairs.sources[number].split()))
    bins = min(5, len(order))
    for place in range(bins):
        numbers = order[place * len(order) // bins : (place + 1) * len(order) // bins]
        texts = [found[number].text for number in numbers], [pairs.targets[number] for number in numbers]
        longest = len(pairs.sources[numbers[-1]].split())
        yield longest, len(numbers), score_translations(*texts, language).bleu


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value
