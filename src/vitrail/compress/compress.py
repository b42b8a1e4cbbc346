"""Compression of a model: blocks, width, heads, hidden channels, ranks, tokens, bits, in order, as edits of a copy."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from vitrail.compress.calibration_data import CalibrationBatch
from vitrail.compress.depth import kept_blocks
from vitrail.compress.l0_gates import l0_scores
from vitrail.compress.moments import InputMoments, input_moments
from vitrail.compress.ranks import low_rank_layers, nearest_factors, ranks_by_budget, ranks_by_energy, spectrum
from vitrail.compress.refit import put_weights, refit_inputs
from vitrail.compress.scores import head_scores, hidden_scores
from vitrail.compress.sensitivity import BITS, layer_sensitivity, mean_squares, mixed_formats, quantize_all
from vitrail.compress.settings import CompressSettings
from vitrail.compress.swap import swap_attention
from vitrail.compress.width import prune_width
from vitrail.edits.blocks import DropBlocks, droppable_stages
from vitrail.edits.edit import apply_edits
from vitrail.edits.fake_quantize import FakeQuantizeWeights
from vitrail.edits.heads import PruneHeads, head_reasons, prunable_heads
from vitrail.edits.hidden import PruneHidden, prunable_hidden
from vitrail.edits.learn_tokens import LearnTokens
from vitrail.edits.low_rank import LowRank
from vitrail.edits.merge_tokens import MergeTokens
from vitrail.edits.prune_tokens import PruneTokens
from vitrail.edits.quantize import quantizable_layers, quantize_weights
from vitrail.edits.slicing import group_index
from vitrail.errors import VitrailError
from vitrail.parts.exported_file import check_layers
from vitrail.parts.model import Model

SIZES = {"linformer": 64, "star": 2}
"""Rank and rounds of what takes the place of attention."""

STEP = 16
"""Hidden channels are removed in steps of this: widths that are multiples of a vector register compute faster."""


def compress(
    model: Model,
    settings: CompressSettings,
    probes: Sequence[CalibrationBatch] = (),
    note: Callable[[str], None] = print,
) -> Model:
    """Return a compressed copy of a model, in evaluation mode; its `edits` list the changes.

    Args:
        model: a model of any task.
        settings: parts to remove.
        probes: batches of data from `open_probes`; without them weights alone decide.
        note: receives messages about layers that could not be compressed, and parts that remove nothing.

    Raises:
        VitrailError: nothing of the kind can be removed from this model, the settings remove nothing at all, or a score
            needs data.

    Example:
        >>> import vitrail
        >>> model = vitrail.create_model("vit_tiny_patch16_224", depth=2, num_classes=3)
        >>> small = compress(model, CompressSettings(heads=0.5, mlp=0.5))
        >>> [edit.summary() for edit in small.edits]
        ['heads removed: 3 left in 2 layers', 'hidden channels removed: 768 left in 2 MLPs']
    """
    check_layers(model, "its weights are needed to compress it")
    if hasattr(model, "unconverted"):
        raise VitrailError("This model is optimized already. Compress the model that it was made from.")
    small = deepcopy(model).eval()
    how = settings.score or ("gradient" if probes else "magnitude")
    if how in ("gradient", "gradient-l2", "activation", "l0") and not probes:
        raise VitrailError(f"score={how} is computed on data. Give --data, or take magnitude or random.")
    idle: list[str] = []  # why a part removes nothing
    if settings.depth is not None:
        drop_blocks(small, kept_blocks(small, settings.depth, probes, settings.blocks != "even"), idle)
    refit = probes if settings.refit else ()
    if settings.width not in (None, 1):
        prune_width(small, settings.width, how, probes, settings.seed, settings.refit)
    if settings.heads:
        _tell_refused(small, note)
        if reason := idle_share("heads", settings.heads, prunable_heads(small).values(), _heads_removed):
            idle.append(f"{reason} Their number is rounded, and every layer keeps one.")
        else:
            prune_heads(small, kept_heads(_head_scores(small, settings, how, probes), settings.heads), refit)
    if settings.mlp:
        if reason := idle_share("mlp", settings.mlp, prunable_hidden(small).values(), _hidden_removed):
            idle.append(f"{reason} Widths stay multiples of {STEP}.")
        else:
            prune_hidden(small, kept_hidden(_hidden_scores(small, settings, how, probes), settings.mlp), refit)
    if settings.rank_energy is not None or settings.rank_share is not None:
        lower_ranks(small, settings, refit)
    if settings.attention is not None:
        swap_attention(small, settings.attention, settings.attention_size or SIZES[settings.attention])
    reduce_tokens(small, settings)
    store_weights(small, settings, probes, note)
    if idle and len(small.edits) == len(model.edits):
        raise VitrailError("\n".join(["Nothing would be removed from this model.", *idle]))
    for reason in idle:
        note(f"note: {reason}")
    return small


def drop_blocks(model: Model, keep: Mapping[str, Sequence[int]], idle: list[str]) -> None:
    """Drop blocks in place; a reason is added to `idle` if all of them stay."""
    count = sum(droppable_stages(model).values())
    if sum(map(len, keep.values())) < count:
        apply_edits(model, DropBlocks(keep))
    else:
        idle.append(f"depth={count} drops no block: the model has {count}.")


def idle_share(
    name: str, share: float, sizes: Iterable[int], removed: Callable[[Sequence[int], float], int]
) -> str | None:
    """Return why a share removes nothing, with the least share that removes something; None if it does.

    Args:
        name: setting that has the share.
        share: share to remove.
        sizes: size of each layer; none are left to the error of the choice.
        removed: number that goes, by sizes and share.

    Example:
        >>> idle_share("heads", 0.01, [3, 3], _heads_removed)
        'heads=0.01 removes nothing: the least share that does is 0.084.'
    """
    found = list(sizes)
    if not found or removed(found, share):
        return None
    least = next((n / 1000 for n in range(1, 1000) if removed(found, n / 1000)), None)
    return f"{name}={share:g} removes nothing: " + (
        "no share does." if least is None else f"the least share that does is {least:g}."
    )


def _heads_removed(counts: Sequence[int], share: float) -> int:
    """Return how many heads go, of layers with some: not the last of a layer."""
    return min(round(share * sum(counts)), sum(counts) - len(counts))


def _hidden_removed(widths: Sequence[int], share: float) -> int:
    """Return how many hidden channels go, of MLPs with some."""
    return sum(width - _width(width, share) for width in widths)


def reduce_tokens(model: Model, settings: CompressSettings) -> None:
    """Merge or prune tokens of plain Transformers in place."""
    if settings.tokens_merge:
        apply_edits(model, MergeTokens.constant(model, settings.tokens_merge))
    if settings.tokens_keep is not None:
        apply_edits(model, PruneTokens.quarters(model, settings.tokens_keep))
    if settings.tokens_learn is not None:
        apply_edits(model, LearnTokens.quarters(model, settings.tokens_learn))


def store_weights(
    model: Model, settings: CompressSettings, probes: Sequence[CalibrationBatch], note: Callable[[str], None]
) -> None:
    """Quantize or round the weights of linear layers in place.

    Raises:
        VitrailError: formats are to be mixed without data, or no layer can be quantized.
    """
    if settings.round_weights is not None:
        formats = dict.fromkeys(quantizable_layers(model), BITS[settings.round_weights])
        apply_edits(model, FakeQuantizeWeights(formats))
    if settings.weights_bits == "mixed":
        found = layer_sensitivity(model, probes, note=note)
        formats, loss = mixed_formats(model, found, probes, settings.weights_loss)
        note(f"mixed formats: the loss on the data grows by {loss:.3g}, of {settings.weights_loss:g} allowed")
        quantize_weights(model, formats, mean_squares(model, quantizable_layers(model), probes))
    elif settings.weights_bits is not None:
        quantize_all(model, settings.weights_bits, probes)


def _tell_refused(model: nn.Module, note: Callable[[str], None]) -> None:
    reasons: dict[str, list[str]] = {}
    for name, reason in head_reasons(model).items():
        if reason is not None:
            reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        note(f"{len(names)} layers keep all heads, first {names[0]}: {reason}")


def _head_scores(model: Model, settings: CompressSettings, how: str, probes: Sequence[CalibrationBatch]) -> Any:
    if how == "l0":
        return _learned_gates(model, settings, probes, ".proj", prunable_heads(model), settings.heads)
    return head_scores(model, how, probes, settings.seed)


def _hidden_scores(model: Model, settings: CompressSettings, how: str, probes: Sequence[CalibrationBatch]) -> Any:
    if how == "l0":
        return _learned_gates(model, settings, probes, ".fc2", prunable_hidden(model), settings.mlp)
    return hidden_scores(model, how, probes, settings.seed)


def _learned_gates(
    model: Model,
    settings: CompressSettings,
    probes: Sequence[CalibrationBatch],
    layer: str,
    counts: Mapping[str, int],
    removed: float,
) -> Any:
    """Return the log-odds of gates on the inputs of a layer of each mixer."""
    inputs = {name + layer: count for name, count in counts.items()}
    odds = l0_scores(model, inputs, probes, 1 - removed, settings.gate_steps, settings.seed)
    return {name.removesuffix(layer): found for name, found in odds.items()}


def kept_heads(scores: Mapping[str, Tensor], share: float) -> dict[str, list[int]]:
    """Choose the heads that stay: the lowest scores of all layers go, but not the last head of a layer.

    Raises:
        VitrailError: there are no heads to choose from.

    Example:
        >>> import torch
        >>> kept_heads({"a": torch.tensor([0.9, 0.1]), "b": torch.tensor([0.2, 0.1])}, 0.5)
        {'a': [0], 'b': [0]}
    """
    if not scores:
        raise VitrailError("This model has no attention whose heads can be removed.")
    order = sorted((float(score), name, head) for name, values in scores.items() for head, score in enumerate(values))
    left = {name: len(values) for name, values in scores.items()}
    gone: dict[str, set[int]] = {name: set() for name in scores}
    most = round(share * len(order))
    for _, name, head in order:
        if most and left[name] > 1:
            gone[name].add(head)
            left[name] -= 1
            most -= 1
    return {name: [head for head in range(len(values)) if head not in gone[name]] for name, values in scores.items()}


def kept_hidden(scores: Mapping[str, Tensor], share: float) -> dict[str, list[int]]:
    """Choose the hidden channels that stay: in each MLP those with the highest scores, a multiple of 16 of them.

    Raises:
        VitrailError: there are no hidden channels to choose from.

    Example:
        >>> import torch
        >>> [len(kept) for kept in kept_hidden({"a": torch.rand(100), "b": torch.rand(20)}, 0.5).values()]
        [48, 16]
    """
    if not scores:
        raise VitrailError("This model has no MLP whose hidden channels can be removed.")
    return {name: sorted(values.topk(_width(len(values), share)).indices.tolist()) for name, values in scores.items()}


def _width(width: int, share: float) -> int:
    """Return the width after removing a share: the nearest multiple of `STEP`, at least one."""
    return min(width, max(STEP, round(width * (1 - share) / STEP) * STEP))


def prune_heads(model: Model, keep: Mapping[str, Sequence[int]], probes: Sequence[CalibrationBatch] = ()) -> None:
    """Remove heads in place; with probes the output projection is fitted to its former outputs."""
    heads = prunable_heads(model)
    keep = {name: kept for name, kept in keep.items() if len(kept) < heads[name]}
    kept_inputs = {}
    for name, kept in keep.items():
        width = model.get_submodule(f"{name}.proj").in_features
        kept_inputs[f"{name}.proj"] = group_index(width, 1, heads[name], kept).tolist()  # pyright: ignore[reportArgumentType]
    if keep:
        _edit_and_refit(model, PruneHeads(keep), kept_inputs, probes)


def prune_hidden(model: Model, keep: Mapping[str, Sequence[int]], probes: Sequence[CalibrationBatch] = ()) -> None:
    """Remove hidden channels in place; with probes the last layer is fitted to its former outputs."""
    widths = prunable_hidden(model)
    keep = {name: kept for name, kept in keep.items() if len(kept) < widths[name]}
    if keep:
        _edit_and_refit(model, PruneHidden(keep), {f"{name}.fc2": list(kept) for name, kept in keep.items()}, probes)


def _edit_and_refit(model: Model, edit: Any, kept: dict[str, list[int]], probes: Sequence[CalibrationBatch]) -> None:
    kept = {name: inputs for name, inputs in kept.items() if type(model.get_submodule(name)) is nn.Linear and probes}
    moments = input_moments(model, kept, probes)
    layers: dict[str, Any] = {name: model.get_submodule(name) for name in kept}
    before = {
        name: (layer.weight.detach().clone(), None if layer.bias is None else layer.bias.detach().clone())
        for name, layer in layers.items()
    }
    apply_edits(model, edit)
    refit_inputs(before, model, kept, moments)


def lower_ranks(model: Model, settings: CompressSettings, probes: Sequence[CalibrationBatch] = ()) -> None:
    """Factorize linear layers in place; with probes the factors are nearest on data.

    Raises:
        VitrailError: no layer would become smaller.
    """
    layers = low_rank_layers(model)
    moments: dict[str, InputMoments] = input_moments(model, layers, probes) if probes else {}
    spectra = {name: spectrum(layer, moments.get(name)) for name, layer in layers.items()}
    shapes = {name: (layer.out_features, layer.in_features) for name, layer in layers.items()}
    if settings.rank_energy is not None:
        ranks = ranks_by_energy(spectra, shapes, settings.rank_energy)
    else:
        ranks = ranks_by_budget(spectra, shapes, settings.rank_share or 1.0)
    if not ranks:
        raise VitrailError("At these ranks no linear layer would become smaller. Give a smaller rank_energy.")
    near = {name: nearest_factors(layers[name], ranks[name], moments[name]) for name in ranks if name in moments}
    apply_edits(model, LowRank(ranks))
    for name, (second, first, bias) in near.items():
        layer: Any = model.get_submodule(name)
        put_weights(layer.second, second, bias)
        put_weights(layer.first, first, None)
