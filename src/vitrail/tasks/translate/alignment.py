"""Alignment of a translation: cross-attention of every head of every decoder layer, as one HTML page."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitrail.layouts import TokenSequence
from vitrail.parts.exported_file import check_layers
from vitrail.parts.model import Model
from vitrail.parts.token_mixers.cross_attention import CrossAttention
from vitrail.tasks.attention_page import attention_page
from vitrail.tasks.inference import inference_mode_for
from vitrail.tasks.text_maps import alignment_view
from vitrail.tasks.translate.translator import Translated, Translator


class Alignment(NamedTuple):
    """Cross-attention of a translation.

    Args:
        source: tokens of the text, the end included.
        target: tokens of the translation, the end included.
        maps: `(L, h, N, M)` attention probabilities: layers, heads, target tokens, source tokens.
        text: the text.
        translation: its translation.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    maps: Tensor
    text: str
    translation: str


def align(translator: Translator, text: str, translated: Translated) -> Alignment:
    """Return the cross-attention with which a model predicts each token of a translation.

    Row n of a map belongs to target token n: the attention of the decoder position that predicts it.

    Args:
        translator: the model.
        text: the text.
        translated: its translation.
    """
    maps = cross_attention(translator.model, translated.source, (translator.start, *translated.tokens[:-1]))
    show = translator.vocabulary.decode
    source, target = (
        tuple(show([token], special=True) or "·" for token in ids) for ids in (translated.source, translated.tokens)
    )
    return Alignment(source, target, maps, text, translated.text)


def cross_attention(model: Model, source: Sequence[int], target: Sequence[int]) -> Tensor:
    """Return `(L, h, N, M)` cross-attention probabilities of all layers, for one pair of token ids.

    Example:
        >>> import torch
        >>> from vitrail.models import create_model
        >>> model = create_model("transformer_tiny_multi30k", dim=8, depth=2, num_heads=1, vocab_size=9).eval()
        >>> torch.as_tensor(cross_attention(model, [4, 5, 6], [1, 3])).shape
        torch.Size([2, 1, 2, 3])
    """
    check_layers(model, "its layers are needed for the alignment")
    found: list[Tensor] = []

    def keep(attend: Any, arguments: tuple[Any, ...]) -> None:
        q, k, _, bias = (*arguments, None)[:4]
        found.append(attend.maps(q, k, bias)[0].float().cpu())

    mixers = [module for module in model.decoder.modules() if isinstance(module, CrossAttention)]
    hooks = [mixer.attend.register_forward_pre_hook(keep) for mixer in mixers]
    try:
        with inference_mode_for(model) as device:
            memory = model.encode(torch.tensor([source], device=device))
            layout = TokenSequence(len(target), memory=memory)
            model.decode_features(torch.tensor([target], device=device), layout)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(found)


def alignment_page(alignments: Sequence[Alignment], model: str) -> str:
    """Return a page with every layer and head of some alignments; it loads nothing from elsewhere."""
    views = [
        {**alignment_view(each.source, each.target, each.maps), "caption": f"{each.text} → {each.translation}"}
        for each in alignments
    ]
    lead = f"Cross-attention of {model}: the tokens of the text that each token of the translation was made from."
    caption = "A row is a token of the translation, a column a token of the text, the depth its probability."
    return attention_page("Where each word comes from", lead, views, caption, verb="translate")
