"""Settings of compression: parts to remove, and their selection. No torch: the command line reads its help here."""

from dataclasses import dataclass, fields
from typing import Literal

from vitrail.errors import VitrailError

SCORES = ("gradient", "gradient-l2", "activation", "l0", "magnitude", "random")


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
    width: float | None = None
    """Share of the channels of the residual stream that stay in every stage, such as 0.75; multiples of 16."""
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
    score: Literal["gradient", "gradient-l2", "activation", "l0", "magnitude", "random"] | None = None
    """Score of channels and heads. On data: the gradient of a gate, the same with every layer's scores at one length
    (-l2), the size of what they add, or gates learned under an L0 penalty (l0). Else the size of their weights, or
    random. Default gradient with --data, else magnitude."""
    gate_steps: int = 200
    """With score l0: updates of the gates, a batch of 16 each; the weights stay as they are."""
    attention: Literal["linformer", "star"] | None = None
    """Mixer that takes the place of attention over images, with its projections; train on it."""
    attention_size: int | None = None
    """Rank of Linformer (default 64), or rounds of the Star-Transformer (default 2)."""
    tokens_merge: int = 0
    """Tokens that every block of a plain Transformer merges with similar ones (ToMe); its weights stay as they are.
    Optimized, a ViT of 197 tokens is faster from about 12 on, not with fewer."""
    tokens_keep: float | None = None
    """Share of the tokens to keep, three times, by the attention of the class token; the others are fused (EViT).
    Faster from about 0.7 down, at 64 pixels only in batches."""
    tokens_learn: float | None = None
    """Share of the tokens to keep, three times, by predictors (DynamicViT); train the result on, with --teacher."""
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
        for name in ("rank_energy", "rank_share", "width"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) <= 1:
                raise VitrailError(f"{name} is {getattr(self, name)}; it is a share above 0 and up to 1.")
        if self.rank_energy is not None and self.rank_share is not None:
            raise VitrailError("rank_energy and rank_share both choose the ranks; give one of them.")
        if self.depth is not None and self.depth < 1:
            raise VitrailError(f"depth is {self.depth}; at least one block stays.")
        shares = {name: getattr(self, name) for name in ("tokens_keep", "tokens_learn")}
        given = [name for name, share in shares.items() if share is not None]
        if self.tokens_merge < 0 or len(given) + bool(self.tokens_merge) > 1:
            raise VitrailError("tokens_merge counts from 0 up; give one of tokens_merge, tokens_keep and tokens_learn.")
        for name in given:
            if not 0 < shares[name] < 1:
                raise VitrailError(f"{name} is {shares[name]}; it is a share between 0 and 1, such as 0.7.")
        if self.weights_bits is not None and self.round_weights is not None:
            raise VitrailError("round_weights is for training, weights_bits for after it; give one of them.")
        if self.weights_loss <= 0:
            raise VitrailError(f"weights_loss is {self.weights_loss}; it is above 0.")
        if self.attention_size is not None and (self.attention is None or self.attention_size < 1):
            raise VitrailError("attention_size is a number from 1 up, and goes with attention (linformer or star).")
        if self.gate_steps < 1:
            raise VitrailError(f"gate_steps is {self.gate_steps}; at least one update is needed.")
        if self.score == "l0" and self.width is not None:
            raise VitrailError("score l0 is for heads and mlp; narrow the stream (width) in a call of its own.")
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
            "width": None if self.width in (None, 1) else f"width {self.width:.0%}",
            "heads": f"heads -{self.heads:.0%}" if self.heads else None,
            "mlp": f"mlp -{self.mlp:.0%}" if self.mlp else None,
            "rank_energy": None if self.rank_energy is None else f"energy {self.rank_energy:g}",
            "rank_share": None if self.rank_share is None else f"ranks to {self.rank_share:.0%}",
            "attention": None if self.attention is None else f"{self.attention} for attention",
            "tokens_merge": f"merge {self.tokens_merge}" if self.tokens_merge else None,
            "tokens_keep": None if self.tokens_keep is None else f"keep {self.tokens_keep:.0%} of tokens",
            "tokens_learn": None if self.tokens_learn is None else f"learn to keep {self.tokens_learn:.0%} of tokens",
            "weights_bits": None if self.weights_bits is None else f"weights {self.weights_bits}",
            "round_weights": None if self.round_weights is None else f"rounded to {self.round_weights} bits",
        }
        return ", ".join(text for name in told if (text := told[name]))


FLAGS = tuple(field.name for field in fields(CompressSettings))
