"""Published figures of translations: sacreBLEU with its signature, and the lower-cased tokenised BLEU of papers."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

from vitrail.errors import VitrailError
from vitrail.tasks.translate.bleu import bleu_sums, tokenize_13a


@dataclass(frozen=True)
class TranslationFigures:
    """Figures of a set of translations, in 0..1.

    Args:
        bleu: BLEU of lower-cased texts, tokenised by Moses after normalising punctuation, without smoothing
            (multi-bleu.perl): the figure of papers on Multi30k.
        sacrebleu: sacreBLEU of the texts as they are.
        signature: signature of `sacrebleu`.
        chrf: chrF2 of the texts as they are.
        precisions: n-gram precisions of `bleu`, n = 1 to 4.
        length_ratio: tokens of the translations by tokens of the references.
    """

    bleu: float
    sacrebleu: float
    signature: str
    chrf: float
    precisions: tuple[float, ...]
    length_ratio: float


def library(name: str) -> ModuleType:
    """Import a library of the extra `translate`.

    Raises:
        VitrailError: it is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise VitrailError(f"Translations are scored by the library {name}: pip install {name}.") from error


def score_translations(found: Sequence[str], wanted: Sequence[str], language: str) -> TranslationFigures:
    """Return the figures of translations.

    Args:
        found: translations.
        wanted: references, in the same order.
        language: language of both, for the tokeniser: `de`.
    """
    metrics, moses = library("sacrebleu.metrics"), library("sacremoses")
    normalise = moses.MosesPunctNormalizer(lang=language)
    tokenise = moses.MosesTokenizer(lang=language)

    def prepared(texts: Sequence[str]) -> list[str]:
        normal = (normalise.normalize(text.lower()) for text in texts)
        return [tokenise.tokenize(text, return_str=True, escape=False) for text in normal]

    paper = metrics.BLEU(tokenize="none", smooth_method="none", force=True)
    lower = paper.corpus_score(prepared(found), [prepared(wanted)])
    cased = metrics.BLEU()
    return TranslationFigures(
        bleu=lower.score / 100,
        sacrebleu=cased.corpus_score(list(found), [list(wanted)]).score / 100,
        signature=str(cased.get_signature()),
        chrf=metrics.CHRF().corpus_score(list(found), [list(wanted)]).score / 100,
        precisions=tuple(value / 100 for value in lower.precisions),
        length_ratio=lower.sys_len / max(lower.ref_len, 1),
    )


def sentence_bleu(found: str, wanted: str) -> float:
    """Return a smoothed BLEU of one sentence, in 0..1: one is added to the counts of the orders above one.

    "Automatic Evaluation of Machine Translation Quality Using Longest Common Subsequence and Skip-Bigram Statistics",
    Lin and Och, 2004, section 4.

    Example:
        >>> sentence_bleu("a dog runs", "a dog runs"), sentence_bleu("cats", "a dog runs")
        (1.0, 0.0)
    """
    from math import exp, log

    sums = bleu_sums(*(tokenize_13a(text.lower()) for text in (found, wanted)))
    matches, totals, (length, reference) = sums[:4], sums[4:8], sums[8:]
    if not matches[0] or not length:
        return 0.0
    logs = log(matches[0] / totals[0]) + sum(
        log((m + 1) / (t + 1)) for m, t in zip(matches[1:], totals[1:], strict=True)
    )
    return exp(logs / 4) * min(1.0, exp(1 - reference / length))
