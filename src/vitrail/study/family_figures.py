"""Figures of the study of CNNs and Transformers: accuracy by number of images, differences, receptive fields."""

from collections.abc import Sequence

from vitrail.study.charts import Curve, dot_chart, gallery, line_chart, matrix
from vitrail.study.families import FAMILIES
from vitrail.study.intervals import Estimate
from vitrail.study.plan import Results, StudyFigure

GIVEN = "given model, frozen"


def title(name: str, count: int, augmented: bool) -> str:
    """Name an arm."""
    return f"{name}, {count} images{', augmented' if augmented else ''}"


def family_figures(
    results: Results, counts: list[int], rows: Sequence[tuple[str, Estimate]], done: dict[str, str]
) -> list[StudyFigure]:
    """Draw accuracy by number of images, the difference of both groups, and receptive fields."""
    figures = []
    for augmented in (False, True):
        curves = []
        for name in (*FAMILIES, GIVEN):
            arms = [(n, title(name, n, augmented)) for n in counts if title(name, n, augmented) in results.names()]
            if arms:
                curves.append(Curve(name, [(n, results.share(arm, "accuracy")) for n, arm in arms]))
        told = "With augmentation" if augmented else "Without augmentation"
        figures.append(
            StudyFigure(
                told,
                line_chart(curves, "training images", "test accuracy", percent=True, log_x=True),
                "Bands are 95 % intervals over seeds.",
            )
        )
    figures.append(
        StudyFigure(
            "CNNs minus Transformers",
            dot_chart(rows, "difference of mean accuracy", percent=True, zero=True),
            "Right of the line CNNs are better. Paired by seed, 95 % intervals.",
            wide=True,
        )
    )
    fields = [(name, results.rows(arm)[0]["field"]) for name, arm in done.items()]
    tiles = [(name, matrix(field, f"effective receptive field of {name}")) for name, field in fields if field]
    if tiles:
        figures.append(
            StudyFigure(
                "Effective receptive field",
                gallery(tiles, len(tiles)),
                "How strongly each pixel moves the centre cell of the last stage, after training, first seed.",
                wide=True,
            )
        )
    return figures
