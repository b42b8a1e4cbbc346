"""Attention maps of any model, while the fast kernel runs.

A fused kernel never holds the map. So the queries, keys and biases that reach each `Attend` leaf are kept, and the leaf
computes the map from them when it is asked for, by the readable reference: memory grows with N, not with N squared.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, overload

import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.explain.blocks import MixingBlock, attending_blocks, backbone_of, choose, leaf_of, name_of
from vitrail.explain.token_map import BlockContext, TokenMap
from vitrail.grid import Grid
from vitrail.parts.token_reduction import FewerTokensStage


class AttentionMap(TokenMap):
    """The attention of one block.

    Args:
        place: block, grid and image size.
        scores: the queries, keys and bias that reached the leaf.
        batch: images B.
    """

    def __init__(self, place: BlockContext, scores: tuple[Tensor, Tensor, Tensor | None], batch: int):
        mixer: Any = place.block.module
        slots = mixer.token_index(place.grid)
        super().__init__(place, slots, mixer.keys(place.grid) if hasattr(mixer, "keys") else slots)
        self._coverage = mixer.coverage(place.grid) if hasattr(mixer, "coverage") else None
        self._leaf, self._scores, self._batch = leaf_of(mixer), scores, batch

    @property
    def heads(self) -> int:
        """Number of heads h."""
        return self.block.module.num_heads  # pyright: ignore[reportReturnType]

    @property
    def key_probabilities(self) -> Tensor:
        """Attention probabilities over the keys that reached the leaf, `(B, G, h, n, M)`, M fewer on a reduced map."""
        q, k, bias = self._scores
        assert self._leaf is not None
        maps = self._leaf.maps(q.float(), k.float(), None if bias is None else bias.float())
        return maps.reshape(self._batch, len(self.slots), *maps.shape[-3:])

    @property
    def probabilities(self) -> Tensor:
        """Attention probabilities `(B, G, h, n, m)` in fp32, computed anew each time; rows sum to one.

        A key that stands for several tokens (a reduced map) shares its probability among them by its coverage, alike
        for the cells of a square: the projection that made the key weighs them otherwise, so this is a first-order
        account, as rollout is.
        """
        maps = self.key_probabilities
        return maps if self._coverage is None else maps @ self._coverage.to(maps)  # (n, M) x (M, N)


class AttentionMaps(Sequence[AttentionMap]):
    """The maps of the latest forward pass, first block first; found by index, or by block: `2.1`, or its name."""

    def __init__(self) -> None:
        self._maps: list[AttentionMap] = []

    @overload
    def __getitem__(self, which: int | str) -> AttentionMap: ...
    @overload
    def __getitem__(self, which: slice) -> list[AttentionMap]: ...
    def __getitem__(self, which: int | str | slice) -> AttentionMap | list[AttentionMap]:
        if isinstance(which, slice):
            return self._maps[which]
        if not self._maps:
            raise VitrailError("There are no maps yet: run model(images) within `with attention_maps(model) as maps:`.")
        block = choose([map.block for map in self._maps], which)
        return next(map for map in self._maps if map.block is block)

    def __len__(self) -> int:
        return len(self._maps)

    def __iter__(self) -> Iterator[AttentionMap]:
        return iter(self._maps)


@contextmanager
def attention_maps(model: nn.Module, on_map: Callable[[AttentionMap], None] | None = None) -> Iterator[AttentionMaps]:
    """Capture the attention of every block that computes any, whatever kernel runs.

    A new forward pass replaces the maps of the one before it. The model is not changed: hooks are gone when the block
    ends, also when it ends in an error, and the training mode is left alone.

    Args:
        model: a model from `create_model` or `load_model`, or a backbone.
        on_map: called with each map as its block runs; then nothing is kept and memory holds one block at a time.

    Raises:
        VitrailError: if the model computes no attention, or did not run within the block.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=2).eval()
        >>> with attention_maps(model) as maps:
        ...     logits = model(torch.zeros(1, 3, 32, 48))
        >>> maps[-1].probabilities.shape, maps[-1].row_map((0, 0)).shape
        (torch.Size([1, 1, 3, 7, 7]), torch.Size([1, 3, 2, 3]))
    """
    blocks = attending_blocks(model)
    if not blocks:
        raise no_maps(model)
    tap = _Tap(on_map)
    with ExitStack() as hooks:
        for handle in tap.attach(model, blocks):
            hooks.callback(handle.remove)
        yield tap.maps
    if not tap.ran:
        raise VitrailError(f"{name_of(model)} did not run within `with attention_maps(model)`, so there are no maps.")


class _Tap:
    """State of the hooks between the start of the backbone, of a mixer and of its attention leaf."""

    def __init__(self, on_map: Callable[[AttentionMap], None] | None):
        self.maps, self.ran = AttentionMaps(), False
        self._keep = on_map or self.maps._maps.append
        self._picture, self._batch, self._grid = (0, 0), 0, Grid(0, 0)

    def attach(self, model: nn.Module, blocks: list[MixingBlock]) -> Iterator[Any]:
        yield backbone_of(model).register_forward_pre_hook(self._start, with_kwargs=True)
        for block in blocks:
            leaf = leaf_of(block.module)
            assert leaf is not None
            yield block.module.register_forward_pre_hook(self._enter, with_kwargs=True)
            yield leaf.register_forward_pre_hook(self._attend(block))

    def _start(self, _: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.maps._maps.clear()
        images = args[0] if args else named["images"]
        self._picture, self._batch = tuple(images.shape[-2:]), len(images)

    def _enter(self, _: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._grid = args[1] if len(args) > 1 else named["grid"]

    def _attend(self, block: MixingBlock) -> Callable[..., None]:
        def keep(leaf: Any, args: tuple[Any, ...]) -> None:
            q, k, _, bias = leaf.operands(*(x.detach() if isinstance(x, Tensor) else x for x in args))
            self.ran = True
            self._keep(AttentionMap(BlockContext(block, self._grid, self._picture), (q, k, bias), self._batch))

        return keep


@cache
def families_with_maps() -> list[str]:
    """Return the families of image classifiers with softmax attention; a second on the first call."""
    from vitrail.models import create_model, family_of, list_models

    first = {family_of(name): name for name in reversed(list_models(task="classify"))}
    with torch.device("meta"):
        return sorted(family for family, name in first.items() if attending_blocks(create_model(name)))


def no_maps(model: nn.Module) -> VitrailError:
    """Build the error for a model without attention: which models have maps, and the methods of this one."""
    if any(isinstance(part, FewerTokensStage) for part in model.modules()):
        return VitrailError(
            f"The blocks of {name_of(model)} see fewer or merged tokens, which have no place in the image, so it has no"
            " attention maps.\nExplain the model before its tokens were reduced, or take the method saliency."
        )
    having = families_with_maps()
    return VitrailError(
        f"{name_of(model)} computes no softmax attention, so it has no attention maps.\n"
        f"Models of these families have them: {', '.join(having)}.\n"
        "What this model offers: influence_maps(model, images) of vitrail.explain.influence, how each token moves\n"
        "each other, and saliency(model, images) of vitrail.explain.saliency.\n"
        "On the command line: --method influence or --method saliency."
    )
