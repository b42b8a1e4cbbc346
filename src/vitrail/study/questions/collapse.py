"""Attention collapse: do the maps of deep layers become alike, and how is it prevented?

"DeepViT: Towards Deeper Vision Transformer", sections 3 and 4: maps of ViT's deep layers are similar, re-attention or a
wider model makes them differ.
"""

from typing import Any

from vitrail.inference.model_loading import find_model
from vitrail.study.attention_similarity import head_similarity, layer_maps, layer_similarity
from vitrail.study.charts import Curve, dot_chart, gallery, line_chart, matrix, with_interval
from vitrail.study.images import load_images, resized
from vitrail.study.intervals import mean_interval
from vitrail.study.learner import LearnSettings, learn
from vitrail.study.plan import Conclusion, Condition, Results, StudyFigure, StudyOptions, StudyPlan
from vitrail.study.sentences import points, sentence
from vitrail.study.small_models import variant
from vitrail.tasks.table import Table

PLAIN, MIXED, WIDE, GIVEN = "ViT", "re-attention", "wider heads", "given model"
VARIANTS = {PLAIN: "vit_tiny_patch16_224", MIXED: "deepvit_patch16_224_re_attn_16b", WIDE: "vit_tiny_patch16_224"}


def conditions(options: StudyOptions) -> list[Condition]:
    """ViT, ViT with re-attention, ViT with twice the width, and the given model."""
    depth, dim = options.pick((3, 16), (12, 32))
    arms = [
        Condition(name, {"depth": depth, "dim": dim * (2 if name == WIDE else 1), "heads": options.pick(2, 4)})
        for name in VARIANTS
    ]
    return [*arms, *([Condition(GIVEN)] if options.model else [])]


def measure(condition: Condition, seed: int, options: StudyOptions) -> dict[str, Any]:
    """Train one arm and compare the maps of its layers and heads on test images."""
    data = load_images(options.data, options.pick(16, 24), options.pick(64, None))
    if condition.name == GIVEN:
        model: Any = find_model(options.model or "", options.weights, device="cpu")
        side, channels = model.preprocess.size, model.config.in_channels
        images, accuracy = resized(data.test[8 * seed : 8 * seed + 8], side).expand(-1, channels, -1, -1), None
    else:
        numbers = {"depth": condition["depth"], "dim": condition["dim"], "num_heads": condition["heads"]}
        model = variant(VARIANTS[condition.name], data, patch_size=4, mlp_ratio=2.0, drop_path=0.0, **numbers)
        accuracy = learn(model, data, LearnSettings(steps=options.updates(3, 150), lr=1e-3), seed).accuracy
        images = data.test[:32]
    maps = layer_maps(model, images)
    between = layer_similarity(maps)
    neighbours = between.diagonal(1)
    return {
        "accuracy": accuracy,
        "between": [[round(value, 4) for value in row] for row in between.tolist()],
        "heads": head_similarity(maps).tolist(),
        "neighbours": neighbours.tolist(),
        "deep": float(neighbours[len(neighbours) // 2 :].mean()),
        "early": float(neighbours[: len(neighbours) // 2 or 1].mean()),
    }


def conclude(results: Results, options: StudyOptions) -> Conclusion:
    """Compare the similarity of neighbouring layers in the deeper half."""
    names = results.names()
    trained = [name for name in names if name != GIVEN]
    parts = []
    if PLAIN in names:
        rows = results.rows(PLAIN)
        growth = mean_interval([row["deep"] - row["early"] for row in rows])
        parts.append(
            f"in the ViT neighbouring layers have a similarity of {results.mean(PLAIN, 'deep').mean:.2f} in the deeper "
            f"half, against the first half {points(growth, unit='in cosine', scale=1, digits=2)}"
        )
        for name in (MIXED, WIDE):
            if name in names:
                gap = results.difference(name, PLAIN, "deep")
                gain = results.difference(name, PLAIN, "accuracy")
                parts.append(
                    f"{name} against it: similarity {points(gap, unit='in cosine', scale=1, digits=2)}, "
                    f"accuracy {points(gain)}"
                )
    if GIVEN in names:
        parts.append(f"in the given model it is {with_interval(results.mean(GIVEN, 'deep'), digits=2)}")
    return Conclusion(
        sentence(parts),
        "Depth and training: DeepViT reports collapse beyond 12 to 16 layers after 300 epochs on ImageNet; 12 narrow "
        "layers after seconds on small images have had little time for it. --model with trained weights measures "
        "real ones.",
        _figures(results, names, trained),
        [_table(results, names)],
    )


def _figures(results: Results, names: list[str], trained: list[str]) -> list[StudyFigure]:
    by_layer, by_head, tiles = [], [], []
    for name in names:
        rows = results.rows(name)
        for curves, metric in ((by_layer, "neighbours"), (by_head, "heads")):
            columns = zip(*(row[metric] for row in rows), strict=True)
            curves.append(Curve(name, [(i + 1, mean_interval(column)) for i, column in enumerate(columns)]))
        tiles.append((name, matrix(rows[0]["between"], f"similarity of the layers of {name}", 0.0, 1.0)))
    rows = [(name, results.share(name, "accuracy")) for name in trained]
    return [
        StudyFigure(
            "Neighbouring layers",
            line_chart(by_layer, "layer", "cosine similarity to the next layer"),
            "1: both layers attend alike. Bands are 95 % intervals over seeds.",
        ),
        StudyFigure(
            "Heads of one layer",
            line_chart(by_head, "layer", "cosine similarity of two heads"),
            "Low: heads attend to different places. Maps after re-attention are mixtures of heads, and may be "
            "negative.",
        ),
        StudyFigure(
            "All layers",
            gallery(tiles, len(tiles)),
            "Cosine similarity of the maps of each pair of layers, first seed; a full square is 1.",
            wide=True,
        ),
        StudyFigure(
            "Accuracy",
            dot_chart(rows, "test accuracy", percent=True),
            "Mean over seeds with its 95 % interval.",
            wide=True,
        ),
    ]


def _table(results: Results, names: list[str]) -> Table:
    cells = []
    for name in names:
        known = results.rows(name)[0]["accuracy"] is not None
        row = [with_interval(results.mean(name, metric), digits=2) for metric in ("early", "deep")]
        heads = mean_interval([sum(one["heads"]) / len(one["heads"]) for one in results.rows(name)])
        right = with_interval(results.share(name, "accuracy"), percent=True) if known else ""
        cells.append([name, *row, with_interval(heads, digits=2), right])
    columns = ["model", "layers, first half", "layers, second half", "heads", "accuracy"]
    return Table("Cosine similarity of attention maps", columns, cells, right=columns[1:])


PLAN = StudyPlan(
    "collapse",
    "Do attention maps become alike with depth, and does re-attention or a wider model prevent it?",
    "A deep ViT, the same with re-attention, and one of twice the width train with the same seeds; then the attention "
    "maps of every pair of layers and of heads are compared by their cosine on test images.",
    conditions,
    measure,
    conclude,
    examines=True,
)
