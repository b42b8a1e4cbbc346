"""Evaluation of a classifier of texts: one pass over a split."""

from dataclasses import dataclass
from heapq import nlargest
from time import perf_counter
from typing import Any, ClassVar

import torch

from vitrail.data.bucketed_sampler import BucketedSampler
from vitrail.data.texts import TextSet
from vitrail.errors import VitrailError
from vitrail.fused.auto_optimize import InferenceRunner
from vitrail.parts.model import Model
from vitrail.tasks.classes.class_names import class_names
from vitrail.tasks.classes.evaluation import ClassEvaluation
from vitrail.tasks.classes.measures import measure
from vitrail.tasks.classes.result import check_finite
from vitrail.tasks.classes.scores import Scores, score
from vitrail.tasks.classes.sections import render_section
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.padded_texts import PaddedTexts, TextAnswers
from vitrail.tasks.results import Notify, Progress, ReportSection
from vitrail.tasks.sentiment.options import EvaluateOptions
from vitrail.tasks.sentiment.word_effects import WordEffect, word_effects
from vitrail.tasks.skipped import skipped_fields
from vitrail.tasks.text_inputs import encode_texts, most_tokens, need_vocabulary
from vitrail.text.vocabulary import clean

_EXPLAINED = 12
_SHOWN = 600


@dataclass(frozen=True)
class EvaluatedText:
    """A text of the split, kept for the report.

    Args:
        id: its name in the data set.
        text: the text, its beginning if it is long.
        label: the true class.
        predicted: the predicted class.
        confidence: probability of the predicted class.
        loss: negative log-likelihood of the true class, in nats.
        words: effect of each word; of the first few texts.
    """

    id: str
    text: str
    label: str
    predicted: str
    confidence: float
    loss: float
    words: tuple[WordEffect, ...] = ()

    def shades(self) -> list[tuple[str, float]]:
        """Return the words with a shade from -1 (against the predicted class) to 1 (for it)."""
        largest = max((abs(word.effect or 0.0) for word in self.words), default=0.0) or 1.0
        return [(word.word, (word.effect or 0.0) / largest) for word in self.words]


@dataclass(frozen=True, kw_only=True)
class SentimentEvaluation(ClassEvaluation):
    """Evaluation of a classifier of texts on one split.

    Args:
        errors: wrong predictions with the highest loss, worst first.
        truncated: texts that were cut to the most tokens of the model.
        longest: most tokens of a text.
    """

    task: ClassVar[str] = "sentiment"
    nouns: ClassVar[str] = "sentences"
    unit: ClassVar[str] = "sentences"

    errors: tuple[EvaluatedText, ...]
    truncated: int
    longest: int

    def sections(self) -> list[ReportSection]:
        """Return the sections of the report: confusion, classes, calibration, errors."""
        package = __package__ or ""
        return [*super().sections(), render_section(package, "Worst errors", "errors.html", {"evaluation": self})]

    def facts(self) -> dict[str, str]:
        """Return the settings of the evaluation."""
        cut = f"{self.truncated} of {self.samples} sentences are longer than {self.longest} tokens and were cut"
        return {**super().facts(), "length": cut if self.truncated else f"at most {self.longest} tokens, none was cut"}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SentimentEvaluation":
        """Build from the dict of `to_dict`."""
        values = cls.fields_from(values)
        errors = [{**each, "words": tuple(WordEffect(*word) for word in each["words"])} for each in values["errors"]]
        return cls(**{**values, "errors": tuple(EvaluatedText(**each) for each in errors)})


def evaluate_sentiment(
    model: Model,
    texts: TextSet,
    options: EvaluateOptions,
    notify: Notify = lambda choice: None,
    progress: Progress | None = None,
) -> SentimentEvaluation:
    """Evaluate a classifier of texts on a split; each text once, in batches of like length.

    Args:
        model: a classifier of texts on its device, with its vocabulary.
        texts: the split.
        options: batch, precision, class names, number of errors kept.
        notify: receives the implementation that is chosen on the first batch.
        progress: receives the numbers of texts done and of all texts, after each batch.

    Raises:
        VitrailError: the classes of model and data do not match, or the model has no vocabulary.
        DataError: a logit is not finite.
    """
    started, longest = perf_counter(), most_tokens(model.config, model.metadata.get("max_length"))
    names = class_names(model, model.config.num_classes, options.labels or model.labels or _of_data(model, texts))
    labels = _labels(texts, names)
    encoded = encode_texts(need_vocabulary(model), texts.texts, longest)
    order = BucketedSampler([len(ids) for ids in encoded.ids], options.batch, shuffle=False)
    parts, wrong, done = [], list[tuple[float, int, int, float]](), 0
    runner = InferenceRunner(
        model, len(texts), precision=options.precision, fast=options.optimize, notify=notify, kind=TextAnswers()
    )
    with inference_mode_for(model) as device:
        for index in order.batches(epoch=0):
            logits = runner(PaddedTexts.of([encoded.ids[i] for i in index], device))
            check_finite(logits, [texts.ids[i] for i in index])
            scores = score(logits, labels[index])
            parts.append(scores)
            rows = zip(scores.loss, index, scores.predicted, scores.confidence, scores.right, strict=True)
            wrong += [(float(loss), int(i), int(said), float(p)) for loss, i, said, p, right in rows if not right]
            done += len(index)
            if progress is not None:
                progress(done, len(texts))
    seconds, scores, form = perf_counter() - started, Scores.concatenate(parts), runner.form
    assert form is not None
    return SentimentEvaluation(
        **measure(scores, names),
        model=model.variant,
        parameters=sum(value.numel() for value in model.parameters()),
        data=texts.name,
        seconds=seconds,
        batch=options.batch,
        device=str(device),
        precision=form.precision,
        form=form.name,
        speedup=form.speedup,
        errors=tuple(_worst(model, texts, names, labels, nlargest(options.worst, wrong), longest)),
        truncated=sum(map(bool, encoded.truncated)),
        longest=longest,
        **skipped_fields(texts.skipped),
    )


def _worst(
    model: Model, texts: TextSet, names: tuple[str, ...], labels: torch.Tensor, wrong: list[Any], longest: int
) -> Any:
    """Yield the worst errors, the first few with the effects of their words."""
    for place, (loss, number, predicted, confidence) in enumerate(wrong):
        text = clean(texts.texts[number])[0][:_SHOWN]
        with inference_mode_for(model):
            words = word_effects(model, text, longest) if place < _EXPLAINED else ()
        label = names[int(labels[number])]
        yield EvaluatedText(texts.ids[number], text, label, names[predicted], confidence, loss, words)


def _of_data(model: Model, texts: TextSet) -> tuple[str, ...] | None:
    return texts.classes if len(texts.classes) == model.config.num_classes else None


def _labels(texts: TextSet, names: tuple[str, ...]) -> torch.Tensor:
    """Return the model's class number of each text: by name, else by order if the names are all others."""
    if set(texts.classes) & set(names):
        places = {name: number for number, name in enumerate(names)}
        unknown = [name for name, count in texts.counts().items() if count and name not in places]
        if unknown:
            raise VitrailError(f"{texts.name} has the class {unknown[0]}; the model knows {', '.join(names[:5])}.")
        return torch.tensor([places.get(name, -1) for name in texts.classes])[texts.labels]
    if len(texts.classes) != len(names):
        raise VitrailError(
            f"{texts.name} has the classes {', '.join(texts.classes[:5])}; the model knows {', '.join(names[:5])}."
        )
    return texts.labels
