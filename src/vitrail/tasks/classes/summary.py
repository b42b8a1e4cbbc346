"""Text summary and tables of an evaluation."""

from math import sqrt
from typing import TYPE_CHECKING

from vitrail.tasks.classes.scores import ClassFigures
from vitrail.tasks.confidence_interval import Z95
from vitrail.tasks.formatting import duration, model_words, percent
from vitrail.tasks.table import Table

if TYPE_CHECKING:
    from vitrail.tasks.classes.evaluation import ClassEvaluation


def arithmetic(evaluation: "ClassEvaluation") -> str:
    """Return the compute precision and the implementation that ran."""
    faster = "" if evaluation.speedup is None else f", {evaluation.speedup:.1f}x as fast as the plain model"
    return f"{model_words(evaluation.precision, evaluation.form)}{faster}"


def summary_text(evaluation: "ClassEvaluation") -> str:
    """Return the figures of an evaluation in a few sentences."""
    low, high = percent(evaluation.top1.low), percent(evaluation.top1.high)
    share, confidence = evaluation.top1.value or 0.0, evaluation.calibration.confidence
    parts = [
        f"Of {evaluation.samples:,} {evaluation.nouns} in {evaluation.data}, {percent(share)} are named right"
        f" (95% interval {low} to {high})."
    ]
    for truth, said, count in evaluation.most_confused(1):
        if count > 1:
            parts.append(f"The commonest mistake is to take “{truth}” for “{said}” ({count} times).")
    parts.append(_confidence(evaluation, share, confidence))
    return " ".join(parts)


def _confidence(evaluation: "ClassEvaluation", share: float, confidence: float) -> str:
    """Compare mean confidence and accuracy; a gap that chance explains is called so.

    If the model were calibrated, the number of correct predictions would have the variance Σ c (1 - c) over the
    confidences c, here their means by bin.
    """
    mean = f"The mean confidence, {percent(confidence)},"
    points = abs(round(100 * confidence, 1) - round(100 * share, 1))  # of the two figures as they are printed
    if abs(confidence - share) < 0.02:
        return f"{mean} is close to that, as it should be."
    bins = [(each.count, each.confidence) for each in evaluation.calibration.bins if each.confidence is not None]
    variance = sum(count * sure * (1 - sure) for count, sure in bins)
    side, verdict = ("above", "surer") if confidence > share else ("below", "less sure")
    if abs(confidence - share) * evaluation.samples < Z95 * sqrt(variance):
        return (
            f"{mean} is {points:.1f} points {side} that, which may be chance with {evaluation.samples:,}"
            f" {evaluation.nouns}."
        )
    return f"{mean} is {points:.1f} points {side} that: it is {verdict} than it should be."


def evaluation_tables(evaluation: "ClassEvaluation", rows: int) -> list[Table]:
    """Return the figures, the classes with the lowest F1, and the most frequent confusions.

    Args:
        evaluation: the evaluation.
        rows: maximum number of classes in their table.
    """
    found = sorted(evaluation.met, key=lambda each: 2.0 if each.f1.value is None else each.f1.value)
    more = len(found) - rows
    hidden = f"({more} classes with a higher F1 are not shown; --rows {len(found)} shows all)"
    columns = ["class", evaluation.unit, "recall", "precision", "F1", "95% interval of F1"]
    tables = [
        Table("", ["measure", "value", ""], _figures(evaluation), right=["value"]),
        Table("", columns, [_row(each) for each in found[:rows]], columns[1:], [hidden] if more > 0 else []),
    ]
    if confused := evaluation.most_confused(5):
        pairs = [[truth, predicted, str(count)] for truth, predicted, count in confused]
        tables.append(Table("", ["true class", "predicted", "times"], pairs, right=["times"]))
    return tables


def _figures(evaluation: "ClassEvaluation") -> list[list[str]]:
    calibration = evaluation.calibration
    low, high = percent(evaluation.top1.low), percent(evaluation.top1.high)
    speed = f"{evaluation.throughput:,.0f} {evaluation.unit}/s on {evaluation.device}, batch {evaluation.batch}"
    present = sum(bool(each.support) for each in evaluation.classes)
    top5 = [] if evaluation.top5 is None else [["top-5", percent(evaluation.top5.value, 2), ""]]
    return [
        ["top-1", percent(evaluation.top1.value, 2), f"95% interval {low} to {high}"],
        *top5,
        ["macro F1", percent(evaluation.macro_f1, 2), f"mean over {present} classes"],
        ["calibration error", percent(calibration.ece, 2), f"mean confidence {percent(calibration.confidence)}"],
        ["log-likelihood", f"{-calibration.nll:.4f}", f"mean over {evaluation.unit}, in nats"],
        ["Brier score", f"{calibration.brier:.4f}", "0 is best, 2 is worst"],
        [evaluation.unit, f"{evaluation.samples:,}", f"{evaluation.data}, in {duration(evaluation.seconds)} ({speed})"],
        ["precision", evaluation.precision, arithmetic(evaluation).partition(", ")[2]],
    ]


def _row(each: ClassFigures) -> list[str]:
    shares = [percent(rate.value) for rate in (each.recall, each.precision, each.f1)]
    interval = "" if each.f1.value is None else f"{100 * each.f1.low:.0f}–{100 * each.f1.high:.0f}"
    return [each.label, str(each.support), *shares, interval]
