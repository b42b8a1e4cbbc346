"""Self-attention of a text in every layer and head, for viewers."""

import base64
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vitrail.parts.attend import Attend
from vitrail.parts.model import Model
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.text_inputs import pad_ids, padded_layout
from vitrail.text.vocabulary import Vocabulary

MOST_TOKENS = 256
"""Tokens of a text up to which maps are sent: their number grows with the square."""


def self_attention(model: Model, ids: Sequence[int]) -> Tensor | None:
    """Return `(L, h, N, N)` attention probabilities of all layers for one text.

    None for a model whose layers have no such maps, or maps of different shapes: recurrent or factorized attention.

    Args:
        model: a model of texts, in evaluation mode.
        ids: token ids N.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("text_encoder_tiny", dim=16, depth=2, num_heads=4, vocab_size=9).eval()
        >>> self_attention(model, [1, 2, 3]).shape
        torch.Size([2, 4, 3, 3])
    """
    found: list[Tensor] = []

    def keep(attend: Any, arguments: tuple[Any, ...]) -> None:
        q, k, _, bias = attend.operands(*arguments)
        found.append(attend.maps(q, k, bias).float().cpu())

    hooks = [module.register_forward_pre_hook(keep) for module in model.modules() if isinstance(module, Attend)]
    try:
        with inference_mode_for(model) as device:
            padded, lengths = (value.to(device) for value in pad_ids([ids]))
            model(padded, padded_layout(padded, lengths))
    finally:
        for hook in hooks:
            hook.remove()
    n = len(ids)
    if not found or any(maps.shape != (1, found[0].shape[1], n, n) for maps in found):
        return None
    return torch.cat(found)


def alignment_view(source: Sequence[str], target: Sequence[str], maps: Tensor | None) -> dict[str, Any]:
    """Return tokens and maps `(L, h, N, M)` as plain values.

    `maps` is base64 of uint8, where 255 is a probability of one. Without maps there are no tokens.

    Example:
        >>> alignment_view(["a"], ["b"], torch.ones(1, 1, 1, 1))["maps"]
        '/w=='
    """
    if maps is None:
        return {"source": [], "target": [], "layers": 0, "heads": 0, "maps": ""}
    levels = (maps * 255).round().clamp(0, 255).byte().numpy()
    return {
        "source": list(source),
        "target": list(target),
        "layers": maps.shape[0],
        "heads": maps.shape[1],
        "maps": base64.b64encode(levels.tobytes()).decode(),
    }


def text_view(model: Model, vocabulary: Vocabulary, ids: Sequence[int]) -> dict[str, Any]:
    """Return the tokens of a text and its self-attention as `alignment_view`; long texts and models without have none.

    Args:
        model: a model of texts, in evaluation mode.
        vocabulary: its vocabulary.
        ids: token ids.
    """
    maps = self_attention(model, ids) if 0 < len(ids) <= MOST_TOKENS else None
    tokens = [vocabulary.decode([token], special=True) or "·" for token in ids]
    return alignment_view(tokens, tokens, maps)
