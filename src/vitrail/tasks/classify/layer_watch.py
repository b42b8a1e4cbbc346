"""Tokens of a block, and queries, keys and values of the last self-attention, captured while a model runs."""

from math import ceil
from typing import Any, NamedTuple

from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.parts.attend import Attend


class AttentionOperands(NamedTuple):
    """Operands of a self-attention, in its groups of tokens.

    Args:
        q: queries `(B, G, h, n, d)`.
        k: keys `(B, G, h, n, d)`.
        v: values `(B, G, h, n, d)`.
        bias: addend to the scores, or None.
        slots: token in each place of each group, `(G, n)`; -1 is padding.
        grid: layout of the tokens.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    bias: Tensor | None
    slots: Tensor
    grid: Grid


class LayerWatch:
    """Hooks on a model: the output of one block, and the last attention whose queries are its keys.

    Args:
        model: a classifier of images.
        depth: share of the blocks after which tokens are captured, in (0, 1]; None captures none.
        attention: whether the attention is captured.

    Raises:
        VitrailError: the model has no blocks, or no self-attention over cells.
    """

    def __init__(self, model: nn.Module, depth: float | None, attention: bool):
        self.name = getattr(model, "variant", "") or type(model).__name__
        self.tokens: tuple[Tensor, Grid] | None = None
        self.attended: AttentionOperands | None = None
        self._slots: tuple[Any, Any] = (None, None)
        self._handles: list[Any] = []
        blocks: list[Any] = [
            block for stage in getattr(getattr(model, "backbone", None), "stages", ()) for block in _blocks(stage)
        ]
        if depth is not None:
            if not blocks:
                raise VitrailError(f"{self.name} has no blocks whose features could be compared.")
            block = blocks[ceil(depth * len(blocks)) - 1]
            self._handles.append(block.register_forward_hook(self._keep_tokens, with_kwargs=True))
        if attention:
            mixer, self.leaf = self._last_attention(blocks)
            self._handles.append(mixer.register_forward_pre_hook(self._enter, with_kwargs=True))
            self._handles.append(self.leaf.register_forward_pre_hook(self._attend(mixer)))

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def _last_attention(self, blocks: list[Any]) -> tuple[nn.Module, Attend]:
        for block in reversed(blocks):
            mixer: Any = getattr(block, "token_mixer", None)
            leaf = None if mixer is None else next((part for part in mixer.modules() if isinstance(part, Attend)), None)
            if leaf is not None and hasattr(mixer, "token_index") and not hasattr(mixer, "keys"):
                return mixer, leaf  # pyright: ignore[reportReturnType]
        raise VitrailError(
            f"{self.name} has no self-attention whose maps or values could be compared.\n"
            "Take --distill-features, which compares tokens."
        )

    def _keep_tokens(self, block: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        grid = args[1] if len(args) > 1 else named.get("grid")
        if not isinstance(output, Tensor) or not isinstance(grid, Grid):
            raise VitrailError(f"Blocks of {self.name} give no tokens on a grid, so their features cannot be compared.")
        self.tokens = output, grid

    def _enter(self, mixer: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        grid = args[1] if len(args) > 1 else named["grid"]
        if not isinstance(grid, Grid):
            raise VitrailError(f"Attention of {self.name} has no grid of cells, so it cannot be compared.")
        self._slots = (grid, mixer.token_index(grid))

    def _attend(self, mixer: nn.Module) -> Any:
        def keep(leaf: Any, args: tuple[Any, ...]) -> None:
            grid, slots = self._slots
            q, k, v, bias = leaf.operands(*args)
            if q.shape[-2] != slots.shape[1] or k.shape[-2] != slots.shape[1]:
                raise VitrailError(f"The last attention of {self.name} ({type(mixer).__name__}) is no self-attention.")
            q, k, v = (x.reshape(-1, len(slots), *x.shape[-3:]) for x in (q, k, v))
            self.attended = AttentionOperands(q, k, v, bias, slots.to(q.device), grid)

        return keep


def probabilities(leaf: Attend, attended: AttentionOperands) -> Tensor:
    """Return the attention probabilities of each group, `(B, G, h, n, n)`, in fp32."""
    q, k, bias = attended.q.float(), attended.k.float(), attended.bias
    if len(attended.slots) == 1:
        return leaf.maps(q[:, 0], k[:, 0], None if bias is None else bias.float())[:, None]
    return leaf.maps(q, k, None if bias is None else bias.float())


def _blocks(stage: Any) -> list[Any]:
    return list(getattr(stage, "blocks", ()))
