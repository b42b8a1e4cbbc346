"""CNN or Transformer: accuracy by number of images, with and without augmentation; shift consistency; receptive field.

"An Image is Worth 16x16 Words", section 4.3: with few images the locality of convolutions helps, with many it does not.
"""

from typing import Any

import torch

from vitrail.explain.saliency import receptive_field
from vitrail.study.charts import with_interval
from vitrail.study.families import CNNS, FAMILIES, TRANSFORMERS, probe, shifted
from vitrail.study.family_figures import GIVEN, family_figures, title
from vitrail.study.images import load_images
from vitrail.study.intervals import Estimate, mean_interval, rank
from vitrail.study.learner import LearnSettings, learn, predicted
from vitrail.study.plan import Conclusion, Condition, Results, StudyOptions, StudyPlan
from vitrail.study.sentences import points, ranked, sentence
from vitrail.study.small_models import variant
from vitrail.tasks.table import Table

SIDE, STEPS = 32, 150
SHIFTS = ((0, 1), (1, 0), (2, 2), (-2, 1), (3, -3))


def conditions(options: StudyOptions) -> list[Condition]:
    """Each family by number of images, with and without augmentation; the given weights by number of images."""
    counts = options.pick((20,), (100, 300, 1200))
    arms = [(name, count, augmented) for augmented in (False, True) for count in counts for name in FAMILIES]
    arms += [(GIVEN, count, False) for count in counts if options.model]
    return [
        Condition(title(name, count, augmented), {"family": name, "count": count, "augmented": augmented})
        for name, count, augmented in arms
    ]


def measure(condition: Condition, seed: int, options: StudyOptions) -> dict[str, Any]:
    """Train one arm, and measure its response to shifts and its receptive field."""
    data = load_images(options.data, SIDE, options.pick(64, None)).take(condition["count"], seed)
    if condition["family"] == GIVEN:
        return {"accuracy": probe(data, options)}
    name, numbers = FAMILIES[condition["family"]]
    model = variant(name, data, **numbers)
    settings = LearnSettings(options.updates(2, STEPS), lr=1e-3, augmented=condition["augmented"])
    learned = learn(model, data, settings, seed)
    images = data.test[:200]
    plain = predicted(model, images).argmax(1)
    kept = [(predicted(model, shifted(images, *by)).argmax(1) == plain).float().mean() for by in SHIFTS]
    field = receptive_field(model, data.test[:8], probes=options.pick(2, 8)).mean(0)
    return {
        "accuracy": learned.accuracy,
        "consistency": float(torch.stack(kept).mean()),
        "area": float(field.sum() ** 2 / field.square().sum() / field.numel()),
        "field": [[round(v, 3) for v in row] for row in (field / field.max()).tolist()] if seed == 0 else [],
    }


def gap(results: Results, count: int, augmented: bool) -> Estimate | None:
    """Return the difference of the means of CNNs and Transformers, over seeds."""
    names = [[title(name, count, augmented) for name in group] for group in (CNNS, TRANSFORMERS)]
    if not {name for group in names for name in group} <= set(results.names()):
        return None
    tables = [[results.values(name, "accuracy") for name in group] for group in names]
    seeds = set.intersection(*(set(values) for group in tables for values in group))
    return mean_interval(
        [
            sum(v[s] for v in tables[0]) / len(tables[0]) - sum(v[s] for v in tables[1]) / len(tables[1])
            for s in sorted(seeds)
        ]
    )


def conclude(results: Results, options: StudyOptions) -> Conclusion:
    """Compare both groups by number of images; rank shift consistency at the largest number."""
    counts = sorted({c["count"] for c in results.conditions})
    parts, rows = [], []
    for augmented in (False, True):
        gaps = [(count, found) for count in counts if (found := gap(results, count, augmented)) is not None]
        told = "with augmentation" if augmented else "without augmentation"
        if gaps:
            parts.append(
                f"CNNs against Transformers {told}: " + ", ".join(f"{points(g)} at {n} images" for n, g in gaps)
            )
        rows += [(f"{n} images{', augmented' if augmented else ''}", g) for n, g in gaps]
    full = {name: title(name, counts[-1], False) for name in FAMILIES}
    done = {name: arm for name, arm in full.items() if arm in results.names()}
    if len(done) > 1:
        values = {name: results.values(arm, "consistency") for name, arm in done.items()}
        parts.append(ranked(rank(values), f"shift consistency at {counts[-1]} images"))
    parts = parts or ["too few cells are finished for a comparison"]
    return Conclusion(
        sentence(parts),
        f"Budget and size: {options.updates(2, STEPS)} steps are a short training, in which what learns fast wins; "
        "--steps, --data with more images, and --model with pretrained weights, are where Transformers gain.",
        family_figures(results, counts, rows, done),
        [_table(results)],
        decided=any(found.sign for _, found in rows),
    )


def _table(results: Results) -> Table:
    cells = []
    for name in results.names():
        frozen = name.startswith(GIVEN)
        more = (
            []
            if frozen
            else [with_interval(results.share(name, metric), percent=True) for metric in ("consistency", "area")]
        )
        cells.append([name, with_interval(results.share(name, "accuracy"), percent=True), *(more or ["", ""])])
    columns = ["condition", "test accuracy", "shift consistency", "receptive field"]
    note = (
        "Shift consistency: answers that stay when the image moves by 1 to 3 pixels. Receptive field: effective "
        "share of the pixels, (sum g)² / (n sum g²)."
    )
    return Table("All conditions", columns, cells, right=columns[1:], notes=[note])


PLAN = StudyPlan(
    "cnn",
    "When is a CNN better than a Transformer?",
    "Small ResNets (BiT), ConvNeXts, ViTs and Swins train on subsets of the data with the same seeds, with and without "
    "augmentation; then images are shifted to see whether answers stay, and gradients show how far each model looks.",
    conditions,
    measure,
    conclude,
    examines=True,
)
