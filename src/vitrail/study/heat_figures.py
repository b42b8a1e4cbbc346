"""Figures of the study of heatmaps: curves, heatmaps next to their images, scores."""

from vitrail.study.charts import Curve, dot_chart, gallery, line_chart, matrix
from vitrail.study.intervals import mean_interval
from vitrail.study.plan import Results, StudyFigure

RANDOM = "random"


def by_image(results: Results, name: str, metric: str) -> list[float]:
    """Return the scores of all images of the seeds that every method has."""
    common = set.intersection(*({seed for found, seed in results.cells if found == other} for other in results.names()))
    return [v for seed in sorted(common) for v in results.cells[name, seed][metric]]


def heat_figures(results: Results) -> list[StudyFigure]:
    """Draw both curves, the heatmaps of the first images, and the scores of the methods."""
    figures, tiles = [], []
    for metric, title in (("deleted", "Deletion"), ("inserted", "Insertion")):
        curves = []
        for name in results.names():
            columns = list(zip(*(row[metric] for row in results.rows(name) if row[metric]), strict=True))
            curves.append(
                Curve.plain(
                    name,
                    [i / (len(columns) - 1) for i in range(len(columns))],
                    [mean_interval(c).mean for c in columns],
                )
            )
        note = "Falls early for a good explanation." if metric == "deleted" else "Rises early for a good explanation."
        figures.append(
            StudyFigure(
                title,
                line_chart(curves, "share of patches", "probability of the class"),
                f"Most important patches first. {note}",
            )
        )
    first = {name: results.rows(name)[0] for name in results.names()}
    images = first[RANDOM]["images"] if RANDOM in first else []
    for i, image in enumerate(images):
        tiles.append(("image", image))
        tiles += [(name, matrix(row["heat"][i], f"{name}, image {i + 1}")) for name, row in first.items()]
    figures.append(
        StudyFigure(
            "Heatmaps",
            gallery(tiles, 1 + len(first)),
            "The first images with the value of each patch for the class that the model names.",
            wide=True,
        )
    )
    scores = [
        (
            name,
            mean_interval(
                [
                    i - d
                    for i, d in zip(
                        by_image(results, name, "insertion"), by_image(results, name, "deletion"), strict=True
                    )
                ]
            ),
        )
        for name in results.names()
    ]
    figures.append(
        StudyFigure(
            "Insertion minus deletion",
            dot_chart(scores, "area under insertion minus area under deletion"),
            "Mean over images with its 95 % interval; higher is better.",
            wide=True,
        )
    )
    return figures
