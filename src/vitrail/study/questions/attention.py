"""Does attention explain? Deletion and insertion scores of seven heatmaps, against random ones.

"Attention is not Explanation" and its replies; the scores are those of "RISE", section 4.1.
"""

from typing import Any

import torch

from vitrail.study.charts import with_interval
from vitrail.study.given import examined, thumbnail
from vitrail.study.heat_figures import RANDOM, by_image, heat_figures
from vitrail.study.heat_methods import METHODS, perturbation
from vitrail.study.intervals import Estimate, bootstrap, mean_interval, rank
from vitrail.study.plan import Conclusion, Condition, Results, StudyOptions, StudyPlan
from vitrail.study.sentences import listed, ranked, sentence
from vitrail.tasks.table import Table

SHOWN = 3
"""Images of the gallery."""


def conditions(options: StudyOptions) -> list[Condition]:
    """One arm a method."""
    return [Condition(name, {"steps": options.pick(2, 8)}) for name in METHODS]


def measure(condition: Condition, seed: int, options: StudyOptions) -> dict[str, Any]:
    """Explain the class that the model names, and score the heatmap image by image."""
    model, images = examined(options, seed)
    if not len(images):
        return {"deletion": [], "insertion": [], "deleted": [], "inserted": [], "heat": [], "images": []}
    with torch.no_grad():
        target = model(images).argmax(1)
    heat = METHODS[condition.name](model, images, target)
    deleted, inserted = perturbation(model, images, heat, target, condition["steps"])
    shown = min(SHOWN, len(images)) if seed == 0 else 0
    return {
        "deletion": deleted.mean(1).tolist(),
        "insertion": inserted.mean(1).tolist(),
        "deleted": deleted.mean(0).tolist(),
        "inserted": inserted.mean(0).tolist(),
        "heat": [
            [[round(v, 4) for v in row] for row in one] for one in (heat / heat.amax((1, 2), True))[:shown].tolist()
        ],
        "images": [thumbnail(image) for image in images[:shown]] if condition.name == RANDOM else [],
    }


def conclude(results: Results, options: StudyOptions) -> Conclusion:
    """Compare each method with random heatmaps, image by image, and rank the significant ones."""
    names = [name for name in results.names() if name != RANDOM]
    gaps: dict[str, tuple[Estimate, Estimate]] = {}
    total = {
        name: [
            i - d
            for i, d in zip(by_image(results, name, "insertion"), by_image(results, name, "deletion"), strict=True)
        ]
        for name in results.names()
    }
    for name in names if RANDOM in total else []:
        gaps[name] = (
            bootstrap(by_image(results, RANDOM, "deletion"), by_image(results, name, "deletion"), 2 * len(names)),
            bootstrap(by_image(results, name, "insertion"), by_image(results, RANDOM, "insertion"), 2 * len(names)),
        )
    both = [name for name, (deletion, insertion) in gaps.items() if deletion.sign > 0 and insertion.sign > 0]
    one = [name for name, pair in gaps.items() if name not in both and any(gap.sign > 0 for gap in pair)]
    neither = [name for name in names if name not in both and name not in one]
    count = len(total[names[0]]) if names else 0
    parts = [
        f"over {count} images, {listed(both)} explain better than chance by deletion and insertion"
        if both
        else f"over {count} images no method beats chance by both scores"
    ]
    parts += [f"{listed(one)} by one of them"] if one else []
    parts += [f"{listed(neither)} by neither"] if neither else []
    if len(both) > 1:
        ranking = rank({name: dict(enumerate(total[name])) for name in both})
        parts.append(ranked(ranking, "insertion minus deletion"))
    return Conclusion(
        sentence(parts),
        "The model and the images, above all: a small ViT on digits and a ViT-Ti on photographs need not agree "
        "(--model with --data). Deleted patches are grey, which no training image was; a blurred or painted filling "
        "moves all scores.",
        heat_figures(results),
        [_table(results, gaps)],
        decided=bool(both),
    )


def _table(results: Results, gaps: dict[str, tuple[Estimate, Estimate]]) -> Table:
    cells = []
    for name in results.names():
        areas = [mean_interval(by_image(results, name, metric)) for metric in ("deletion", "insertion")]
        pair = [with_interval(gap, digits=3) for gap in gaps.get(name, ())] or ["", ""]
        cells.append([name, *(f"{area.mean:.3f}" for area in areas), *pair])
    columns = ["method", "deletion", "insertion", "deletion below random", "insertion above random"]
    note = "Paired bootstrap over images; intervals hold together for all comparisons. Above zero: better than random."
    return Table("Areas under the curves", columns, cells, right=columns[1:], notes=[note])


PLAN = StudyPlan(
    "attention",
    "Does attention explain what a model answers?",
    "Seven heatmaps order the patches of each image; patches are deleted or inserted in that order while the "
    "probability "
    "of the class is recorded, and the areas under both curves are compared with those of random orders, image by "
    "image.",
    conditions,
    measure,
    conclude,
    examines=True,
    trains=False,
)
