"""Settings of compression: parts to remove, and their selection. No torch: the command line reads its help here."""

from dataclasses import dataclass, fields
from typing import Literal

from vitrail.errors import VitrailError

SCORES = ("gradient", "gradient-l2", "activation", "magnitude", "random")


@dataclass(frozen=True)
class CompressSettings:
    """Edits of one compression; they are made in this order.

    Example:
        >>> CompressSettings(heads=0.5, depth=9).words()
        'depth 9, heads -50%'
        >>> CompressSettings(heads=1.0)
        Traceback (most recent call last):
            ...
        vitrail.errors.VitrailError: heads is 1.0; a share below 1 can be removed, such as 0.5.
    """

    depth: int | None = None
    """Number of blocks that stay, of all stages together."""
    heads: float = 0.0
    """Share of the attention heads to remove, over all layers; every layer keeps one."""
    mlp: float = 0.0
    """Share of the hidden channels of every MLP to remove; widths stay multiples of 16."""
    rank_energy: float | None = None
    """Lower the rank of each linear layer as far as this share of its energy stays, where that saves weights."""
    rank_share: float | None = None
    """Lower ranks until this share of the weights of linear layers is left, where the least energy is lost."""
    blocks: Literal["greedy", "even"] | None = None
    """Choice of the blocks to drop: one by one the block that changes the outputs least (with --data), or evenly."""
    score: Literal["gradient", "gradient-l2", "activation", "magnitude", "random"] | None = None
    """Score of heads and hidden channels. On data: the gradient of a gate, the same with every layer's scores at one
    length (-l2), or the size of what they add. Else the size of their weights, or random. Default gradient with
    --data, else magnitude."""
    tokens_merge: int = 0
    """Tokens that every block of a plain Transformer merges with similar ones (ToMe); its weights stay as they are."""
    tokens_keep: float | None = None
    """Share of the tokens to keep, three times, by the attention of the class token; the others are fused (EViT)."""
    weights_bits: Literal["8", "4", "codebook", "mixed"] | None = None
    """Weights of linear layers in 8 bits, 4 bits, as 16 values for each 64 channels, or mixed: chosen by layer, with
    --data, as far as the loss grows by at most --weights-loss. Smaller, not faster."""
    weights_loss: float = 0.01
    """With mixed: most that the loss on the data may grow (without labels, the relative change of the outputs)."""
    round_weights: Literal["8", "4"] | None = None
    """Round the weights in each forward pass and keep them in fp32: train the result on, then give --weights-bits."""
    refit: bool = True
    """With data, fit the layer after what was removed to its former outputs by least squares."""
    seed: int = 0
    """Seed of random scores."""

    def __post_init__(self) -> None:
        for name in ("heads", "mlp"):
            if not 0 <= getattr(self, name) < 1:
                raise VitrailError(f"{name} is {getattr(self, name)}; a share below 1 can be removed, such as 0.5.")
        for name in ("rank_energy", "rank_share"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) <= 1:
                raise VitrailError(f"{name} is {getattr(self, name)}; it is a share above 0 and up to 1.")
        if self.rank_energy is not None and self.rank_share is not None:
            raise VitrailError("rank_energy and rank_share both choose the ranks; give one of them.")
        if self.depth is not None and self.depth < 1:
            raise VitrailError(f"depth is {self.depth}; at least one block stays.")
        if self.tokens_merge < 0 or (self.tokens_merge and self.tokens_keep is not None):
            raise VitrailError("tokens_merge counts from 0 up, and is not combined with tokens_keep.")
        if self.tokens_keep is not None and not 0 < self.tokens_keep < 1:
            raise VitrailError(f"tokens_keep is {self.tokens_keep}; it is a share between 0 and 1, such as 0.7.")
        if self.weights_bits is not None and self.round_weights is not None:
            raise VitrailError("round_weights is for training, weights_bits for after it; give one of them.")
        if self.weights_loss <= 0:
            raise VitrailError(f"weights_loss is {self.weights_loss}; it is above 0.")
        if self.score is not None and self.score not in SCORES:
            raise VitrailError(f"score is {self.score}; choose one of {', '.join(SCORES)}.")

    @property
    def empty(self) -> bool:
        """Whether nothing is removed."""
        return not self.words()

    def words(self) -> str:
        """Return a short description of the removed parts."""
        told = {
            "depth": None if self.depth is None else f"depth {self.depth}",
            "heads": f"heads -{self.heads:.0%}" if self.heads else None,
            "mlp": f"mlp -{self.mlp:.0%}" if self.mlp else None,
            "rank_energy": None if self.rank_energy is None else f"energy {self.rank_energy:g}",
            "rank_share": None if self.rank_share is None else f"ranks to {self.rank_share:.0%}",
            "tokens_merge": f"merge {self.tokens_merge}" if self.tokens_merge else None,
            "tokens_keep": None if self.tokens_keep is None else f"keep {self.tokens_keep:.0%} of tokens",
            "weights_bits": None if self.weights_bits is None else f"weights {self.weights_bits}",
            "round_weights": None if self.round_weights is None else f"rounded to {self.round_weights} bits",
        }
        return ", ".join(text for name in told if (text := told[name]))


FLAGS = tuple(field.name for field in fields(CompressSettings))
