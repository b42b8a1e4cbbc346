"""Words and tokens that decided: occlusion of words, gradients of tokens, attention rollout from the score to them."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitrail.explain.text_targets import TextTarget, find_targets
from vitrail.parts.exported_file import check_layers
from vitrail.parts.model import Model
from vitrail.tasks.inference import device_of, evaluating
from vitrail.tasks.pretrain.training import MASK
from vitrail.tasks.sentiment.word_effects import WordEffect, occlusion, words_read
from vitrail.tasks.text_inputs import most_tokens, need_vocabulary, pad_ids, padded_layout
from vitrail.tasks.text_maps import MOST_TOKENS, self_attention
from vitrail.text.vocabulary import EncodedTexts, clean

_BATCH = 16


class TextExplanation(NamedTuple):
    """Reasons of one output of a text model.

    Args:
        text: the text.
        answer: the output in words.
        words: effect of each word on the score, by occlusion.
        tokens: the tokens.
        gradient: gradient times embedding of each token, `(N,)`; None of a vector.
        rollout: share of each token in the attention from the score through all layers, `(N,)`; None without maps.
        maps: `(L, h, N, N)` attention probabilities; None without, or if the text is long.
        truncated: tokens that were cut off.
    """

    text: str
    answer: str
    words: tuple[WordEffect, ...]
    tokens: tuple[str, ...]
    gradient: Tensor | None
    rollout: Tensor | None
    maps: Tensor | None
    truncated: int


def explain_text(model: Model, text: str) -> list[TextExplanation]:
    """Explain the outputs of a model for one text: its class, its next token, or the word of each mask.

    Args:
        model: a model of texts with its vocabulary.
        text: the text.

    Raises:
        VitrailError: the text has no token, or the model's task is not explained.
    """
    check_layers(model, "its layers are needed to look inside")
    vocabulary = need_vocabulary(model)
    longest = most_tokens(model.config, model.metadata.get("max_length"))
    text, special = clean(text)[0], model.task != "language"
    encoded = vocabulary.encode([text], max_length=longest, special=special)
    ids = list(encoded.ids[0]) or [0]
    with evaluating(model), torch.no_grad():
        targets = find_targets(model, _outputs(model, [ids])[0], ids)
    maps = self_attention(model, ids) if len(ids) <= MOST_TOKENS else None
    tokens = tuple(vocabulary.decode([token], special=True) or "·" for token in ids)
    found = []
    for target in targets:
        words = _occluded(model, text, target, longest, special)
        gradient, reading = gradients(model, ids, target) if target.differentiable else (None, None)
        shares = None if maps is None or reading is None else rollout_of(maps, reading)
        found.append(TextExplanation(text, target.answer, words, tokens, gradient, shares, maps, encoded.truncated[0]))
    return found


def gradients(model: Model, ids: Sequence[int], target: TextTarget) -> tuple[Tensor, Tensor]:
    """Return how each token moves a score, and how strongly the head reads each token of the last layer.

    g_i = x_i . d score / d x_i, x the word vectors: the change of the score, to first order, if the vector of token i
    were zero.

    "Visualizing and Understanding Neural Models in NLP"; "Not Just a Black Box: Learning Important Features Through
    Propagating Activation Differences", section 2 (gradient times input).

    Args:
        model: a model of texts.
        ids: token ids N.
        target: the score.

    Returns:
        `(N,)` with signs, and `(N,)` norms that sum to one.
    """
    with evaluating(model), torch.enable_grad(), _kept(model) as kept:
        outputs, padded, lengths = _outputs(model, [ids])
        score = target.score(outputs, padded, lengths).sum()
        by_word, by_token = torch.autograd.grad(score, [kept["words"], kept["tokens"]])
    reading = by_token[0].float().norm(dim=-1)
    effect = (kept["words"].detach() * by_word)[0].float().sum(dim=-1)
    return effect.cpu(), (reading / reading.sum().clamp_min(1e-30)).cpu()


def rollout_of(maps: Tensor, reading: Tensor) -> Tensor:
    """Return the share of each token in the attention from the head back to the words, `(N,)`; they sum to one.

    r = reading A'_L ... A'_1, A' = rows of (mean over heads of A + I) / 2

    "Quantifying Attention Flow in Transformers", section 3: a first-order account, which ignores values and MLPs.

    Args:
        maps: `(L, h, N, N)`.
        reading: `(N,)`, how strongly the head reads each token.

    Example:
        >>> rollout_of(torch.full((1, 1, 2, 2), 0.5), torch.tensor([1.0, 0.0])).tolist()
        [0.75, 0.25]
    """
    row = reading.double()
    for layer in reversed(maps.double().mean(dim=1)):
        row = (row @ layer + row) / 2
    return row.float()


@contextmanager
def _kept(model: Model) -> Iterator[dict[str, Tensor]]:
    """Keep the word vectors, as a leaf of the graph, and the tokens that the head reads."""
    kept: dict[str, Tensor] = {}

    def words(module: Any, inputs: Any, output: Tensor) -> Tensor:
        kept["words"] = output.detach().requires_grad_()
        return kept["words"]

    def tokens(module: Any, inputs: Any, output: Any) -> None:
        kept["tokens"] = output.tokens

    backbone: Any = model.backbone
    hooks = [
        backbone.embedding.words.register_forward_hook(words),
        backbone.register_forward_hook(tokens),
    ]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _occluded(model: Model, text: str, target: TextTarget, longest: int, special: bool) -> tuple[WordEffect, ...]:
    """Return the effect of each word; masks are no words."""

    def encode(*texts: str) -> EncodedTexts:
        return model.inputs.encode(texts, max_length=longest, special=special)

    def score(texts: Sequence[str]) -> Tensor:
        ids = encode(*texts).ids
        parts = (ids[start : start + _BATCH] for start in range(0, len(ids), _BATCH))
        return torch.cat([target.score(*_outputs(model, part)).double().cpu() for part in parts])

    with evaluating(model):
        words = re.findall(r"\s*\S+\s*", text)
        read = words_read(words, longest, lambda part: encode(part).truncated[0])
        found = (*occlusion(words[:read], score), *(WordEffect(word.strip(), None) for word in words[read:]))
    return tuple(word._replace(effect=None) if MASK in word.word else word for word in found)


def _outputs(model: Model, texts: Sequence[Sequence[int]]) -> tuple[Any, Tensor, Tensor]:
    device = device_of(model)
    ids, lengths = (value.to(device) for value in pad_ids(texts))
    return model(ids, padded_layout(ids, lengths)), ids, lengths
