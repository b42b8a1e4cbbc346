"""Attention replaced by a mixer whose cost grows with the tokens instead of with their square."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from vitrail.edits.edit import Edit, submodule
from vitrail.edits.low_rank import put
from vitrail.errors import VitrailError, unknown
from vitrail.grid import Grid
from vitrail.parts.model import Model
from vitrail.parts.query_value_bias import QueryValueBias
from vitrail.parts.token_mixers.cosine_window_attention import CosineWindowAttention
from vitrail.parts.token_mixers.grid_linformer import GridLinformerAttention
from vitrail.parts.token_mixers.grid_star import GridStarTransformer
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttention
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.window_attention import WindowAttention

ATTENTION = (SelfAttention, WindowAttention, CosineWindowAttention, NeighborhoodAttention)
"""Mixers of exactly these types give their place up; all have `qkv` and `proj`."""


@dataclass(frozen=True)
class SwapAttention(Edit):
    """Put Linformer or a Star-Transformer in the place of attention, with its projections.

    Linformer attends to means over regions, which training changes: full attention if there are as many regions as
    cells. Windows, relative positions and query norms of the replaced attention are gone, and a Star-Transformer is
    another function from the start: train both.

    Args:
        to: `linformer` or `star`.
        size: rank of Linformer, or rounds of the Star-Transformer.
        grids: height, width and prefix tokens of the grid that each mixer gets, by its name.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1)
        >>> SwapAttention("linformer", 50, {"backbone.stages.0.blocks.0.token_mixer": [14, 14, 1]}).apply(model)
        >>> model.backbone.stages[0].blocks[0].token_mixer.project_k.shape
        torch.Size([50, 197])
    """

    kind: ClassVar[str] = "swap_attention"
    to: str
    size: int
    grids: Mapping[str, Sequence[int]]

    def __post_init__(self) -> None:
        if self.to not in MAKES:
            raise unknown("mixer to swap attention for", str(self.to), MAKES)
        if type(self.size) is not int or self.size < 1:
            raise VitrailError(f"size is {self.size!r}; a whole number from 1 up is needed.")
        if not isinstance(self.grids, Mapping) or not self.grids or not all(map(_is_grid, self.grids.values())):
            raise VitrailError(f"Got grids {self.grids!r}; a mapping from mixers to [height, width, prefix] is needed.")
        object.__setattr__(self, "grids", {str(name): tuple(grid) for name, grid in self.grids.items()})

    def apply(self, model: Model) -> None:
        """Replace each mixer."""
        made = {name: self._made(model, name) for name in self.grids}
        for name, mixer in made.items():
            put(model, name, mixer)

    def _made(self, model: Model, name: str) -> nn.Module:
        old = submodule(model, name)
        reason = unswappable_reason(old)
        if reason is not None:
            raise VitrailError(f"The attention of {name} cannot be replaced: {reason}.")
        with torch.device(next(old.parameters()).device):  # on meta too: a model rebuilt without data
            return MAKES[self.to](old, Grid(*self.grids[name]), self.size).train(old.training)

    def summary(self) -> str:
        """Return the kind, the size and the number of the replacements."""
        what = {"linformer": f"Linformer of rank {self.size}", "star": f"Star-Transformer of {self.size} rounds"}
        return f"attention replaced in {len(self.grids)} blocks by {what[self.to]}"


EDIT = SwapAttention


def unswappable_reason(mixer: nn.Module) -> str | None:
    """Return why a mixer cannot be replaced, or None."""
    if type(mixer) not in ATTENTION:
        return f"{type(mixer).__name__} is no attention with qkv and proj"
    qkv, proj = mixer.qkv, mixer.proj
    if type(qkv) not in (nn.Linear, QueryValueBias) or type(proj) is not nn.Linear:
        return f"its projections are {type(qkv).__name__} and {type(proj).__name__}"
    if 3 * proj.in_features != len(_qkv(mixer)[0]) or proj.in_features != proj.out_features:
        return "it has lost heads or channels"
    return None


def swappable_mixers(model: nn.Module) -> list[str]:
    """Return the names of the mixers that can be replaced.

    Example:
        >>> from vitrail.models import create_model
        >>> len(swappable_mixers(create_model("swin_tiny_patch4_window7_224")))
        12
    """
    return [name for name, module in model.named_modules() if unswappable_reason(module) is None]


def _is_grid(value: Any) -> bool:
    if isinstance(value, str) or not isinstance(value, Sequence) or [type(n) for n in value] != [int] * 3:
        return False
    height, width, prefix = value
    return min(height, width) > 0 and prefix >= 0


def _qkv(mixer: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return weight and bias of the projection of queries, keys and values."""
    if type(mixer.qkv) is nn.Linear:
        return mixer.qkv.weight, mixer.qkv.bias
    q, v = mixer.qkv.q_bias, mixer.qkv.v_bias
    return mixer.qkv.linear.weight, torch.cat([q, torch.zeros_like(v), v])


def _linformer(old: Any, grid: Grid, rank: int) -> nn.Module:
    new = GridLinformerAttention(old.proj.out_features, old.num_heads, grid, rank)
    _copy(new.qkv, *_qkv(old))
    _copy(new.proj, old.proj.weight, old.proj.bias)
    return new


def _star(old: Any, grid: Grid, rounds: int) -> nn.Module:
    dim = old.proj.out_features
    new = GridStarTransformer(dim, old.num_heads, rounds)
    weight, bias = _qkv(old)
    for attention in (*new.ring, *new.relay):
        layers: Any = attention
        _copy(layers.q, weight[:dim], None if bias is None else bias[:dim])
        _copy(layers.kv, weight[dim:], None if bias is None else bias[dim:])
        _copy(layers.proj, old.proj.weight, old.proj.bias)
    return new


MAKES: Mapping[str, Callable[[Any, Grid, int], nn.Module]] = {"linformer": _linformer, "star": _star}
"""From a mixer, its grid and a size to its replacement."""


def _copy(layer: nn.Linear, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is None:
            layer.bias.zero_()
        else:
            layer.bias.copy_(bias)
