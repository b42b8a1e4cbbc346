"""Description of blocks: token mixers without windows, channel mixers, and whole blocks of convolutions."""

from collections.abc import Iterator
from typing import Any

import torch

from vitrail.parts.attend import Attend
from vitrail.parts.positions import RelativePositionBias, relative_index
from vitrail.parts.routing import Routing
from vitrail.trace import views
from vitrail.trace.attention import attention_formulas, attention_views
from vitrail.trace.frame import TraceFrame
from vitrail.trace.layers import layer_formula
from vitrail.trace.record import Call, grid_of
from vitrail.trace.walk import Walk, millions, same_tensor

_SIDE = ("norm", "scale", "drop_path", "res_scale")


def block(walk: Walk, call: Call) -> Iterator[TraceFrame]:
    """Describe a block of mixers: the frames of each mixer, its norm counted with it; the last shows the result."""
    frames: list[TraceFrame] = []
    pending: list[Call] = []
    for child in call.children:
        name = child.path.removeprefix(f"{call.path}.")
        if name.startswith(_SIDE):
            pending.append(child)
            continue
        new = list(walk.frames(child))
        if new:
            _add_counts(walk, new[0], pending)
            pending = []
        frames += new
    if not frames:
        yield from walk.leaf(call)
        return
    last = frames[-1]
    _add_counts(walk, last, [call])
    last.views += walk.heat(call, "length of each vector after the block")
    last.shape_out = list(call.y.shape) if call.y is not None else last.shape_out
    yield from frames


def _add_counts(walk: Walk, frame: TraceFrame, calls: list[Call]) -> None:
    for call in calls:
        parameters, macs = walk.counts.take(call)
        frame.parameters += parameters
        if frame.multiply_adds is not None and macs is not None:
            frame.multiply_adds += macs


def whole_block(walk: Walk, call: Call) -> Iterator[TraceFrame]:
    """Describe a block without separate mixers by its layers, with the attention inside it."""
    lines = [line for each in call.walk() if not each.children and (line := layer_formula(each))]
    found: list[views.View] = []
    for each in call.walk():
        if any(isinstance(child.module, Attend) for child in each.children):
            lines += attention_formulas(each)[:2] if each.x is not None else []
            found += attention_views(walk, each)
    if _adds_input(call):
        lines.append("y = x + branch(x)")
    yield walk.frame(
        call, call.name, lines[:16], views=found + walk.heat(call, "length of each vector after the block")
    )


def _adds_input(call: Call) -> bool:
    x, y = call.x, call.y
    return x is not None and y is not None and x.shape == y.shape


def mlp(walk: Walk, call: Call) -> Iterator[TraceFrame]:
    """Describe a channel mixer."""
    lines = [line for each in call.walk() if not each.children and (line := layer_formula(each))]
    x = call.x
    title = "MLP" if call.name == "MLP" else call.name
    layers = [each.module for each in call.walk() if isinstance(each.module, torch.nn.Linear)]
    if call.name == "MLP" and len(layers) == 2 and x is not None:
        n, hidden, c = x.shape[:-1].numel(), layers[0].out_features, x.shape[-1]
        lines = [
            f"y = W₂ act(W₁ x): {c} → {hidden} → {layers[1].out_features} for each of {n} tokens",
            f"2·{n}·{c}·{hidden} = {millions(2 * n * c * hidden)} multiply-adds",
        ]
    yield walk.frame(call, title, lines, "Each token alone: channels are mixed, cells are not.")


def experts(walk: Walk, call: Call) -> Iterator[TraceFrame]:
    """Describe a mixture of experts: which expert each token goes to first."""
    grid = grid_of(call.args)
    routing = next((found for each in call.walk() if (found := _routing(each.output))), None)
    if routing is None or grid is None:
        yield from mixer(walk, call)
        return
    shares = routing.combine[0].sum(-1)  # (N, E, P) -> (N, E)
    count = shares.shape[1]
    formulas = [
        f"{count} experts; {int((shares > 0).sum())} places for {len(shares)} tokens",
        "y = sum of gate · expert(x)",
    ]
    cells = shares[grid.prefix :].T.unflatten(1, (grid.h, grid.w))
    view = views.maps(cells, "gate of each expert for each cell", [f"expert {i}" for i in range(count)])
    yield walk.frame(call, "Mixture of experts", formulas, "A router sends each token to few of the MLPs.", [view])


def _routing(output: Any) -> Routing | None:
    found = output[0] if isinstance(output, tuple) and output else None
    return found if isinstance(found, Routing) else None


def neighborhood(walk: Walk, call: Call) -> Iterator[TraceFrame]:
    """Describe neighborhood attention: its keys, its positions, its probabilities."""
    module: Any = call.module
    grid, x = grid_of(call.args), call.x
    assert grid is not None and x is not None
    k, d, n = module.attend.kernel_size, module.attend.dilation, grid.h * grid.w
    c = x.shape[-1]
    formulas = [
        f"each of {grid.h}·{grid.w} = {n} queries has {k}·{k} = {k * k} keys" + (f", {d} cells apart" if d > 1 else ""),
        f"4NC² + 2Nk²C = 4·{n}·{c}² + 2·{n}·{k * k}·{c} = {millions(4 * n * c * c + 2 * n * k * k * c)} multiply-adds",
        f"B[i, j] = table[(yᵢ − yⱼ + {k - 1})·{2 * k - 1} + (xᵢ − xⱼ + {k - 1})]",
    ]
    text = "At a border the neighborhood is shifted inwards, so it always has the same number of keys."
    position: RelativePositionBias = module.position
    table = position.table.detach().T.unflatten(1, (2 * k - 1, 2 * k - 1))
    index = relative_index(k, k).flatten(2).flatten(0, 1)
    found = attention_views(walk, call, "attention within the neighborhood of the chosen cell")
    found.append(views.bias(table, index, (k, k), "relative position bias"))
    yield walk.frame(call, call.name, formulas, text, found)


def token_mlp(walk: Walk, call: Call) -> Iterator[TraceFrame]:
    """Describe the token-mixing MLP: the first hidden units as maps of the weights of each cell."""
    grid, x = grid_of(call.args), call.x
    assert grid is not None and x is not None
    layers = [each.module for each in call.walk() if isinstance(each.module, torch.nn.Linear)]
    lines = [line for each in call.walk() if not each.children and (line := layer_formula(each))]
    found = []
    if layers and layers[0].in_features == grid.h * grid.w:
        weights = layers[0].weight[:12].unflatten(1, (grid.h, grid.w))
        found.append(views.maps(weights, "weights of the first hidden units: one value for each cell"))
    text = "The tokens are transposed: each channel is a vector over all cells, and one MLP mixes it."
    yield walk.frame(call, "Token-mixing MLP", lines, text, found + walk.heat(call, "length of the mixed vectors"))


def pooling(walk: Walk, call: Call) -> Iterator[TraceFrame]:
    """Describe PoolFormer's mixer."""
    grid, x = grid_of(call.args), call.x
    assert grid is not None and x is not None
    formulas = ["y = mean of the cells around x, minus x; no weights", f"{grid.h}·{grid.w} cells of {x.shape[-1]}"]
    found = [views.token_norms(x, grid, walk.image, "length of the normalised tokens", walk.heat_cells)]
    yield walk.frame(
        call,
        "Pooling",
        formulas,
        "Each cell becomes the difference to its neighbours' mean.",
        found + walk.heat(call, "length of the pooled vectors"),
    )


def mixer(walk: Walk, call: Call) -> Iterator[TraceFrame]:
    """Describe any other token mixer: its attention if it has some, its layers, its result."""
    if same_tensor(call):
        yield walk.frame(call, call.name, ["y = x"], "Tokens are not mixed here.")
        return
    lines = [line for each in call.walk() if not each.children and (line := layer_formula(each))]
    with_maps = any(isinstance(each.module, Attend) for each in call.walk())
    found = attention_views(walk, call) if with_maps else []
    lines = [*(attention_formulas(call)[:2] if with_maps else []), *lines]
    yield walk.frame(call, call.name, lines[:12], views=found + walk.heat(call, "length of the mixed vectors"))
