"""Lottery tickets: does a small subnetwork with its first weights train as well as the whole?

"The Lottery Ticket Hypothesis" with the controls of "Sanity-Checking Pruning Methods: Random Tickets can Win the
Jackpot": random masks with the same share in each matrix, and the same masks with new first weights.
"""

from dataclasses import replace
from typing import Any

import torch

from vitrail.study.charts import Curve, line_chart, with_interval
from vitrail.study.images import StudyImages, load_images
from vitrail.study.intervals import Estimate, difference, share_interval
from vitrail.study.learner import LearnSettings
from vitrail.study.plan import Conclusion, Condition, Results, StudyFigure, StudyOptions, StudyPlan
from vitrail.study.pruned_training import Masks, full_masks, left, pruned, shuffled, train_ticket
from vitrail.study.sentences import points, sentence
from vitrail.study.small_models import variant
from vitrail.tasks.table import Table

INIT, EARLY = "rewound to init", "rewound to early steps"
CONTROLS = ("random ticket", "reinitialised ticket")
WINNERS = {INIT: 0.0, EARLY: 0.1}
"""Share of the steps after which the weights are kept to rewind to."""

ROUNDS, SHARE = 5, 0.5
COMPARISONS = 3


def conditions(options: StudyOptions) -> list[Condition]:
    """Both kinds of rewinding; the controls share the masks of the first."""
    rounds = options.pick(1, ROUNDS)
    return [Condition(name, {"early": early, "rounds": rounds, "share": SHARE}) for name, early in WINNERS.items()]


def measure(condition: Condition, seed: int, options: StudyOptions) -> dict[str, Any]:
    """Prune round by round; at every level train the ticket, and of tickets rewound to init the controls."""
    data = load_images(options.data, 16, options.pick(48, None))
    settings = LearnSettings(options.updates(2, 100), lr=3e-3)
    model, again = _model(data, options), _model(data, options)
    first = {name: value.clone() for name, value in model.state_dict().items()}
    other = {name: value.clone() for name, value in again.state_dict().items()}
    masks, start = full_masks(model), first
    if condition["early"]:
        steps = max(1, round(condition["early"] * settings.steps))
        train_ticket(model, first, masks, data, replace(settings, steps=steps), seed)
        start = {name: value.clone() for name, value in model.state_dict().items()}
    levels, found = [1.0], {condition.name: [train_ticket(model, start, masks, data, settings, seed)]}
    found |= {name: list(found[condition.name]) for name in CONTROLS if not condition["early"]}
    for round_number in range(condition["rounds"]):
        masks = pruned(masks, model, condition["share"])
        levels.append(left(masks))
        if not condition["early"]:
            arms: dict[str, tuple[dict[str, torch.Tensor], Masks]] = {
                CONTROLS[0]: (first, shuffled(masks, 100 * seed + round_number)),
                CONTROLS[1]: (other, masks),
            }
            for name, (state, kept) in arms.items():
                found[name].append(train_ticket(model, state, kept, data, settings, seed))
        found[condition.name].append(train_ticket(model, start, masks, data, settings, seed))
    return {"left": levels, "accuracy": found}


def _model(data: StudyImages, options: StudyOptions) -> Any:
    numbers = {"dim": options.pick(16, 48), "depth": options.pick(1, 3), "num_heads": 4}
    return variant("vit_tiny_patch16_224", data, patch_size=4, mlp_ratio=4.0, drop_path=0.0, **numbers)


def conclude(results: Results, options: StudyOptions) -> Conclusion:
    """At each level, compare tickets with the whole network and with the controls."""
    arms: dict[str, dict[int, list[float]]] = {}
    for (_, seed), row in results.cells.items():
        for name, values in row["accuracy"].items():
            arms.setdefault(name, {})[seed] = values
    levels = next(iter(results.cells.values()))["left"]
    last = len(levels) - 1

    def gap(one: str, level: int, other: str, other_level: int) -> Estimate:
        seeds = sorted(arms[one].keys() & arms[other].keys())
        pair = [arms[one][s][level] for s in seeds], [arms[other][s][other_level] for s in seeds]
        return difference(*pair, comparisons=COMPARISONS * last)

    parts = []
    for name in WINNERS:
        if name in arms:
            gaps = [gap(name, level, name, 0) for level in range(1, last + 1)]
            lost = next((i for i, found in enumerate(gaps) if found.sign < 0), last)
            smallest = f"down to {levels[lost]:.0%} of the weights" if lost else "at no level"
            parts.append(
                f"tickets {name} are not shown to be worse than the whole network {smallest}; "
                f"at {levels[last]:.0%}: {points(gaps[-1])}"
            )
    if INIT in arms:
        for control in CONTROLS:
            parts.append(
                f"tickets {INIT} against the {control} at {levels[last]:.0%}: {points(gap(INIT, last, control, last))}"
            )
    curves = [
        Curve(name, [(100 * level, share_interval([v[i] for v in seeds.values()])) for i, level in enumerate(levels)])
        for name, seeds in arms.items()
    ]
    cells = [
        [name, *(with_interval(point, percent=True) for _, point in reversed(curve.points))]
        for name, curve in zip(arms, curves, strict=True)
    ]
    columns = ["ticket", *(f"{level:.0%}" for level in reversed(levels))]
    return Conclusion(
        sentence(parts),
        "Size and length of training: a network with many more weights than the data need leaves room for random "
        "tickets; "
        "large learning rates need the rewinding to early steps. Intervals are simultaneous over levels, so more "
        "seeds help.",
        [
            StudyFigure(
                "Accuracy by weights left",
                line_chart(curves, "weights left (%)", "test accuracy", percent=True, log_x=True),
                "Matrices of the blocks are pruned by magnitude, half of the rest a round. Bands are 95 % "
                "intervals over seeds.",
                wide=True,
            )
        ],
        [Table("Accuracy by share of weights left", columns, cells, right=columns[1:])],
    )


PLAN = StudyPlan(
    "tickets",
    "Are there winning lottery tickets in a small ViT, and do random tickets lose?",
    "Weights of the blocks are pruned by magnitude round by round and rewound, to the first weights or to those "
    "after a "
    "tenth of the steps; controls are random masks with the same share in each matrix, and the same masks with new "
    "weights.",
    conditions,
    measure,
    conclude,
)
