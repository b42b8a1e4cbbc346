"""Residual streams made narrower: scores of their channels, the choice, and least squares for their readers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vitrail.compress.calibration_data import CalibrationBatch
from vitrail.compress.moments import InputMoments
from vitrail.compress.refit import put_weights
from vitrail.compress.scores import layer_scores
from vitrail.edits.edit import apply_edits
from vitrail.edits.slicing import find, group_index
from vitrail.edits.stream_layouts import Stream, streams
from vitrail.edits.width import PruneWidth
from vitrail.errors import VitrailError
from vitrail.parts.model import Model
from vitrail.tasks.inference import evaluating

STEP = 16
"""Channels are removed in steps of this, so that rows stay multiples of a vector register."""


def prune_width(
    model: Model, share: float, how: str, probes: Sequence[CalibrationBatch] = (), seed: int = 0, refit: bool = True
) -> None:
    """Narrow every residual stream of a model in place; with probes the layers that read it are fitted again.

    Args:
        model: a classifier of the table `edits/stream_layouts.py`.
        share: share of the channels that stay; widths are multiples of 16.
        how: score, as in `head_scores`.
        probes: batches of data.
        seed: seed of random scores.
        refit: whether to fit the readers by least squares, if there are probes.

    Raises:
        VitrailError: a module of the model is not in the table, or nothing would go.
    """
    found = streams(model)
    keep = {name: kept_channels(stream_scores(model, one, how, probes, seed), share) for name, one in found.items()}
    keep = {name: kept for name, kept in keep.items() if len(kept) < found[name].width}
    if not keep:
        widths = ", ".join(str(one.width) for one in found.values())
        raise VitrailError(
            f"width={share:g} removes nothing from streams of {widths} channels: they stay multiples of {STEP}."
        )
    whole = deepcopy(model) if probes and refit else None
    apply_edits(model, PruneWidth(keep))
    if whole is not None:
        refit_readers(whole, model, {name: (found[name], kept) for name, kept in keep.items()}, probes)


def kept_channels(scores: Tensor, share: float) -> list[int]:
    """Choose the channels with the highest scores: the nearest multiple of 16, at least one.

    Example:
        >>> len(kept_channels(torch.rand(96), 0.7)), kept_channels(torch.tensor([1.0, 3.0]), 0.5)
        (64, [0, 1])
    """
    count = min(len(scores), max(STEP, round(share * len(scores) / STEP) * STEP))
    return sorted(scores.topk(count).indices.tolist())


def stream_scores(
    model: nn.Module, stream: Stream, how: str, probes: Sequence[CalibrationBatch] = (), seed: int = 0
) -> Tensor:
    """Return a score of each channel of a stream, `(C,)`, summed over the linear layers that read it.

    gradient: sum over layers of E |dL / dg_c|, g_c a factor of the channel in the layer's input. magnitude: the length
    of the channel's columns in all of them times that of its rows in the layers that write it.
    """
    if how == "magnitude":
        read, written = (_lengths(model, stream, axis) for axis in (1, 0))
        return (read * written).sqrt()
    parts = {axis.path.rpartition(".")[0].removesuffix(".linear"): axis.parts for axis in stream.axes if axis.axis == 1}
    readers = {name: parts[name] * stream.width for name in stream.norms if name in parts and _is_linear(model, name)}
    scores = layer_scores(model, readers, how, probes, seed)
    total = torch.zeros(stream.width, dtype=torch.float64)
    for name, found in scores.items():
        total += found.double().view(parts[name], -1).sum(0)
    return total


def _is_linear(model: nn.Module, name: str) -> bool:
    return not isinstance(model.get_submodule(name), nn.Conv2d)


def _lengths(model: nn.Module, stream: Stream, axis: int) -> Tensor:
    """Return the squared length of each channel over the weights with an axis over the stream."""
    total = torch.zeros(stream.width, dtype=torch.float64)
    for path, at, parts in stream.axes:
        owner, last = find(model, path, at)
        value = getattr(owner, last).detach().double().cpu()
        if at == axis and last == "weight" and value.ndim > 1:
            total += value.movedim(axis, 0).flatten(1).square().sum(1).view(parts, -1).sum(0)
    return total


class ReaderMoments(NamedTuple):
    """Moments of a layer's input in the narrow model with those of its input in the whole one.

    Args:
        inputs: of the narrow input x.
        mean: mean of the whole input z, `(C,)`.
        cross: covariance of z and x, `(C, K)`.
    """

    inputs: InputMoments
    mean: Tensor
    cross: Tensor

    @classmethod
    def of(cls, z: Tensor, x: Tensor) -> "ReaderMoments":
        """Return the sums of one batch, not yet divided by its rows."""
        return cls(InputMoments(x.sum(0), x.T @ x, len(x)), z.sum(0), z.T @ x)

    def plus(self, other: "ReaderMoments") -> "ReaderMoments":
        """Return the sums of both."""
        one, two = self.inputs, other.inputs
        inputs = InputMoments(one.mean + two.mean, one.covariance + two.covariance, one.rows + two.rows)
        return ReaderMoments(inputs, self.mean + other.mean, self.cross + other.cross)

    def centred(self, centre: bool) -> "ReaderMoments":
        """Return means and covariances of sums; without a bias to fit, mean products."""
        rows = self.inputs.rows
        x, z = self.inputs.mean / rows, self.mean / rows
        square, cross = self.inputs.covariance / rows, self.cross / rows
        if centre:
            square, cross = square - x[:, None] * x, cross - z[:, None] * x
        return ReaderMoments(InputMoments(x, square, rows), z, cross)


def fitted_reader(
    weight: Tensor, bias: Tensor | None, kept: Tensor, sums: ReaderMoments
) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of a layer whose input lost channels, nearest to its former outputs.

    min E |W' x + b' - W z - b|^2 + e |W' - W_K|^2:  W' = (W C_zx + e W_K) (C_xx + e I)^-1,  b' = b + W m_z - W' m_x

    x is not a part of z: a norm over the channels K divides by another deviation, which W' makes good.

    Args:
        weight: W, `(out, C)`.
        bias: b, `(out,)`, or None.
        kept: inputs K that stay.
        sums: moments of both inputs.
    """
    found = sums.centred(bias is not None)
    whole, square = weight.detach().double(), found.inputs.covariance.to(weight.device)
    small = found.inputs.ridge(square)
    eye = torch.eye(len(square), dtype=square.dtype, device=square.device)
    left = whole @ found.cross.to(weight.device) + small * whole[:, kept]
    new = torch.linalg.solve(square + small * eye, left.mT).mT
    if bias is None:
        return new.to(weight.dtype), None
    shift = whole @ found.mean.to(weight.device) - new @ found.inputs.mean.to(weight.device)
    return new.to(weight.dtype), (bias.detach().double() + shift).to(bias.dtype)


def refit_readers(
    whole: Model, narrow: Model, kept: Mapping[str, tuple[Stream, Sequence[int]]], probes: Sequence[CalibrationBatch]
) -> None:
    """Fit the linear layers that read narrowed streams: those behind a norm in one pass, then the head.

    Args:
        whole: the model before.
        narrow: the model after, changed in place.
        kept: stream and channels that stayed.
        probes: batches of data.
    """
    inputs: dict[str, Tensor] = {}
    sums: dict[str, ReaderMoments] = {}

    def add(name: str, z: Tensor, x: Tensor) -> None:
        found = ReaderMoments.of(z.flatten(0, -2).double(), x.flatten(0, -2).double())
        sums[name] = sums[name].plus(found) if name in sums else found

    with torch.no_grad(), evaluating(whole), evaluating(narrow), ExitStack() as stack:
        for stream, channels in kept.values():
            for reader, norm in stream.norms.items():
                if type(narrow.get_submodule(reader)) is nn.Linear and norm is not None:
                    index = _inputs(whole, reader, stream, channels)
                    inputs[reader] = index
                    stack.enter_context(_watch_pair(whole, narrow, norm, reader, index, add))
        for probe in probes:
            probe.run(whole)
    written = {axis.path: channels for stream, channels in kept.values() for axis in stream.axes if axis.axis == 0}
    for name, found in sums.items():
        _put(whole, narrow, name, inputs[name], found, written.get(f"{name}.weight"))
    _refit_head(whole, narrow, kept, probes)


def _inputs(model: nn.Module, reader: str, stream: Stream, channels: Sequence[int]) -> Tensor:
    size = model.get_submodule(reader).in_features
    return group_index(size, size // stream.width, stream.width, channels)  # pyright: ignore[reportArgumentType, reportOperatorIssue]


@contextmanager
def _watch_pair(
    whole: nn.Module, narrow: nn.Module, norm: str, reader: str, index: Tensor, add: Callable[..., None]
) -> Iterator[None]:
    """Call `add` with the input of a layer, and with what the narrow norm makes of the channels kept."""
    thin: Any = narrow.get_submodule(norm)
    seen: dict[str, Tensor] = {}

    def after_norm(module: nn.Module, given: tuple[Any, ...], out: Tensor) -> None:
        seen["z"], seen["x"] = out, given[0]

    def before_reader(module: nn.Module, given: tuple[Any, ...]) -> None:
        z = given[0]
        if "z" in seen and z.shape == seen["z"].shape and torch.equal(z, seen["z"]):  # nothing between the two
            add(reader, z, thin(seen["x"][..., index.to(z.device)]))

    handles = [
        whole.get_submodule(norm).register_forward_hook(after_norm),
        whole.get_submodule(reader).register_forward_pre_hook(before_reader),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _refit_head(whole: Model, narrow: Model, kept: Any, probes: Sequence[CalibrationBatch]) -> None:
    """Fit the layers of the head to those of the whole model, each on the inputs that its own model gives it."""
    stream, channels = list(kept.values())[-1]
    for name in (name for name in stream.norms if name.startswith("head.")):
        if type(narrow.get_submodule(name)) is not nn.Linear:
            continue
        sums = None
        for probe in probes:
            z, x = (_input_of(model, name, probe).flatten(0, -2).double() for model in (whole, narrow))
            found = ReaderMoments.of(z, x)
            sums = found if sums is None else sums.plus(found)
        assert sums is not None, "there are probes"
        _put(whole, narrow, name, _inputs(whole, name, stream, channels), sums)


def _input_of(model: nn.Module, name: str, probe: CalibrationBatch) -> Tensor:
    seen: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda module, given: seen.append(given[0].detach()))
    try:
        with torch.no_grad(), evaluating(model):
            probe.run(model)
    finally:
        handle.remove()
    return seen[-1]


def _put(
    whole: nn.Module,
    narrow: nn.Module,
    name: str,
    index: Tensor,
    sums: ReaderMoments,
    rows: Sequence[int] | None = None,
) -> None:
    """Fill a layer; of its outputs some rows may be left, as in a merging, which writes a stream too."""
    before: Any = whole.get_submodule(name)
    some = slice(None) if rows is None else list(rows)
    bias = None if before.bias is None else before.bias[some]
    put_weights(
        narrow.get_submodule(name),
        *fitted_reader(before.weight[some], bias, index.to(before.weight.device), sums),
    )
