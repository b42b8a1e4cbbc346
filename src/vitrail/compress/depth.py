"""Which blocks to keep: evenly spaced ones, or those whose loss hurts least, one by one."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from vitrail.compress.calibration_data import CalibrationBatch, damage, reference_outputs
from vitrail.edits.blocks import droppable_stages
from vitrail.errors import VitrailError


def kept_blocks(
    model: nn.Module, depth: int, probes: Sequence[CalibrationBatch] = (), greedy: bool = True
) -> dict[str, list[int]]:
    """Choose the blocks that stay, by stage; every stage keeps one.

    Args:
        model: the model.
        depth: number of blocks that stay.
        probes: data for the greedy choice; without it the choice is even.
        greedy: whether to drop one by one the block without which the loss, or the change of outputs, is least.

    Raises:
        VitrailError: no blocks can be dropped, or there are fewer than `depth`.

    Example:
        >>> from vitrail.models import create_model
        >>> kept_blocks(create_model("vit_tiny_patch16_224"), 4)
        {'backbone.stages.0': [0, 4, 7, 11]}
    """
    stages = droppable_stages(model)
    total = sum(stages.values())
    if not stages:
        raise VitrailError("No block of this model can be dropped: its blocks are not residual, or in no stage.")
    if not len(stages) <= depth <= total:
        raise VitrailError(f"depth is {depth}; this model can keep {len(stages)} to {total} blocks.")
    if greedy and probes:
        return _greedy(model, stages, depth, probes)
    return {name: evenly(stages[name], count) for name, count in _shares(stages, depth).items()}


def evenly(total: int, count: int) -> list[int]:
    """Choose blocks at even distances, the first and the last among them.

    "Reducing Transformer Depth on Demand with Structured Dropout", section 3.2 ("every other").

    Example:
        >>> evenly(12, 6), evenly(4, 1)
        ([0, 2, 4, 7, 9, 11], [0])
    """
    return [round(i * (total - 1) / max(count - 1, 1)) for i in range(count)]


def _shares(stages: Mapping[str, int], depth: int) -> dict[str, int]:
    """Share blocks out among stages: each drop is from the stage that has the largest share of its blocks left."""
    left = dict(stages)
    while sum(left.values()) > depth:
        name = max((name for name in left if left[name] > 1), key=lambda name: (left[name] / stages[name], left[name]))
        left[name] -= 1
    return left


def _greedy(
    model: nn.Module, stages: Mapping[str, int], depth: int, probes: Sequence[CalibrationBatch]
) -> dict[str, list[int]]:
    keep = {name: list(range(count)) for name, count in stages.items()}
    reference = reference_outputs(model, probes)
    blocks: dict[str, Any] = {name: list(_stage(model, name).blocks) for name in stages}

    def without(name: str, index: int) -> float:
        stage = _stage(model, name)
        whole = stage.blocks
        stage.blocks = nn.ModuleList([blocks[name][i] for i in keep[name] if i != index])
        try:
            return damage(model, probes, reference)
        finally:
            stage.blocks = whole

    try:
        while sum(map(len, keep.values())) > depth:
            choices = [(name, index) for name in keep for index in keep[name] if len(keep[name]) > 1]
            name, index = min(choices, key=lambda choice: without(*choice))
            keep[name].remove(index)
            _stage(model, name).blocks = nn.ModuleList([blocks[name][i] for i in keep[name]])
    finally:
        for name, whole in blocks.items():
            _stage(model, name).blocks = nn.ModuleList(whole)
    return keep


def _stage(model: nn.Module, name: str) -> Any:
    return model.get_submodule(name)
