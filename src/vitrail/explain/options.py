"""Options of an explanation: method, block, head and query."""

from typing import NamedTuple

from torch import nn

from vitrail.errors import VitrailError, unknown
from vitrail.explain.blocks import attending_blocks, choose, choose_attending, mixing_blocks
from vitrail.explain.token_query import Pixel, Query

OPTIONS = {
    "maps": ("block", "head", "query"),
    "rollout": ("query",),
    "influence": ("block", "query"),
    "saliency": ("query",),
    "gradcam": ("block",),
}
"""What each method can be told."""


class ExplainOptions(NamedTuple):
    """Options of an explanation.

    Args:
        method: `maps`, `rollout`, `influence`, `saliency`, `gradcam`, or `auto`: see `resolve_options`.
        block: for `maps`, `influence` and `gradcam`: its index through the whole model, negative from the end, or its
            address or name as in `MixingBlock`; the last by default.
        head: one head of `maps`; their mean by default.
        query: the query token. By default, for `maps`: the class token, or the mean over all queries if there is none;
            for `rollout`: the tokens that the head reads; for `influence`: the cell in the centre; for `saliency`: the
            predicted class.
    """

    method: str = "auto"
    block: int | str | None = None
    head: int | None = None
    query: Query | None = None

    def describe(self) -> str:
        """Describe the options in a few words.

        Example:
            >>> ExplainOptions("maps", block="3", head=1, query=(5, 7)).describe()
            'block 3, head 1, seen from row 5, column 7'
            >>> ExplainOptions("saliency", query=Pixel(5, 7)).describe()
            'saliency, what moves pixel 5, 7'
        """
        said = [self.method if self.block is None else f"block {self.block}"]
        if self.head is not None:
            said.append(f"head {self.head}")
        if self.query is not None:
            seen = "seen from" if self.method in ("maps", "rollout") else "what moves"
            said.append(f"{seen} {_place(self.query)}")
        return ", ".join(said)


AUTO = ExplainOptions()


def resolve_options(model: nn.Module, look: ExplainOptions) -> ExplainOptions:
    """Resolve `auto` to a method, and the block to its address.

    Without options `auto` is the method for the whole model; else it is a method that takes the given options.

    Raises:
        VitrailError: if the method is unknown, does not take an option that is set, or there is no such block.

    Example:
        >>> from vitrail.models import create_model
        >>> resolve_options(create_model("vit_tiny_patch16_224", depth=2), AUTO).method
        'rollout'
    """
    check_options(look)
    if look.method == "auto":
        look = look._replace(method=_method_for(model, look))
    if look.method == "maps" and attending_blocks(model):
        return look._replace(block=choose_attending(model, look.block).address)
    if look.method in ("influence", "gradcam"):
        return look._replace(block=choose(mixing_blocks(model), -1 if look.block is None else look.block).address)
    return look


def check_options(look: ExplainOptions) -> None:
    """Check that the method takes the options that are set.

    Raises:
        VitrailError: if the method is unknown, or does not take an option that is set.

    Example:
        >>> check_options(ExplainOptions("rollout", head=1))
        Traceback (most recent call last):
            ...
        vitrail.errors.VitrailError: The method rollout takes no head; it can be told the query.
        Methods that take a head: maps.
    """
    if look.method == "auto":
        return
    if look.method not in OPTIONS:
        raise unknown("method", look.method, [*OPTIONS, "auto"])
    for option in ("block", "head", "query"):
        if getattr(look, option) is not None and option not in OPTIONS[look.method]:
            having = ", ".join(method for method, options in OPTIONS.items() if option in options)
            raise VitrailError(
                f"The method {look.method} takes no {option}; it can be told the "
                f"{' and the '.join(OPTIONS[look.method])}.\nMethods that take a {option}: {having}."
            )


def best_method(model: nn.Module) -> str:
    """Return the default method: rollout if the model has maps, else saliency.

    Example:
        >>> from vitrail.models import create_model
        >>> best_method(create_model("vit_tiny_patch16_224", depth=1))
        'rollout'
    """
    return "rollout" if attending_blocks(model) else "saliency"


def _method_for(model: nn.Module, look: ExplainOptions) -> str:
    attending = attending_blocks(model)
    if look == AUTO:
        return best_method(model)
    if look.head is not None:
        return "maps"  # nothing else has heads
    if look.block is not None:
        return "maps" if choose(mixing_blocks(model), look.block) in attending else "influence"
    return "maps" if attending else "influence"


def _place(query: Query) -> str:
    if isinstance(query, Pixel):
        return f"pixel {query.y}, {query.x}"
    return f"token {query}" if isinstance(query, int) else f"row {query[0]}, column {query[1]}"
