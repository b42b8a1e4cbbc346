"""BLEU as sums over sentences, which ranks can add up."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from math import exp, log

ORDER = 4
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
_RULES = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)


def tokenize_13a(line: str) -> list[str]:
    """Split a line into words and punctuation, as in the WMT campaigns (`mteval-v13a`).

    Example:
        >>> tokenize_13a("It's 3.5 km, or more.")
        ["It's", '3.5', 'km', ',', 'or', 'more', '.']
    """
    line = line.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, character in _ENTITIES:
        line = line.replace(entity, character)
    line = f" {line} "
    for pattern, spaced in _RULES:
        line = pattern.sub(spaced, line)
    return line.split()


def bleu_sums(hypothesis: Sequence[str], reference: Sequence[str]) -> list[float]:
    """Return matches and numbers of the n-grams of a sentence, n = 1 to 4, then both lengths.

    Example:
        >>> bleu_sums("a red car".split(), "a red bus".split())
        [2.0, 1.0, 0.0, 0.0, 3.0, 2.0, 1.0, 0.0, 3.0, 3.0]
    """
    matches, totals = [], []
    for n in range(1, ORDER + 1):
        found, wanted = _ngrams(hypothesis, n), _ngrams(reference, n)
        matches.append(float((found & wanted).total()))
        totals.append(float(max(len(hypothesis) - n + 1, 0)))
    return [*matches, *totals, float(len(hypothesis)), float(len(reference))]


def bleu_score(sums: Sequence[float]) -> float:
    """Return BLEU in 0..1 of added sums; orders without a match count 1/2, 1/4, ... matches ("exp" smoothing).

    BLEU = min(1, exp(1 - r / h)) * (p1 p2 p3 p4)^(1/4)

    "BLEU: a Method for Automatic Evaluation of Machine Translation", section 2.3; smoothing of sacreBLEU.

    Example:
        >>> line = "a dog runs in the snow".split()
        >>> bleu_score(bleu_sums(line, line))
        1.0
    """
    matches, totals, (found, wanted) = sums[:ORDER], sums[ORDER : 2 * ORDER], sums[2 * ORDER :]
    if not any(matches):
        return 0.0
    smooth, logs = 1.0, 0.0
    for match, total in zip(matches, totals, strict=True):
        if total == 0:
            return 0.0
        smooth = smooth if match else 2 * smooth
        logs += log((match or 1 / smooth) / total) / ORDER
    return exp(logs) * min(1.0, exp(1 - wanted / found))


def corpus_bleu(hypotheses: Iterable[Sequence[str]], references: Iterable[Sequence[str]]) -> float:
    """Return BLEU in 0..1 of tokenised sentences.

    Example:
        >>> corpus_bleu(["a b c d".split()], ["a b c d".split()])
        1.0
    """
    sums = [bleu_sums(*pair) for pair in zip(hypotheses, references, strict=True)]
    return bleu_score([sum(column) for column in zip(*sums, strict=True)])


def _ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[place : place + n]) for place in range(len(words) - n + 1))
