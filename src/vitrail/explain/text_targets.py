"""Scores of a text model to explain: its class, its next token, the word of a mask, or the vector of the sentence."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from vitrail.errors import VitrailError
from vitrail.explain.blocks import name_of
from vitrail.parts.model import Model
from vitrail.tasks.classes.class_names import class_names
from vitrail.tasks.pretrain.training import MASK
from vitrail.tasks.sentiment.word_effects import log_odds


class TextTarget(NamedTuple):
    """A score of a text.

    Args:
        answer: the output of the model in words, such as `positive 97.1%`.
        score: `(outputs, ids, lengths) -> (B,)`, for any batch of texts.
        differentiable: whether its gradient shows anything: the similarity of a vector with itself is at its maximum.
    """

    answer: str
    score: Callable[[Tensor, Tensor, Tensor], Tensor]
    differentiable: bool = True


def find_targets(model: Model, outputs: Any, ids: Sequence[int]) -> list[TextTarget]:
    """Return the scores of one text that its model is used for: one, or one a mask.

    Args:
        model: a model of texts with its vocabulary.
        outputs: its outputs for the text alone.
        ids: token ids of the text.

    Raises:
        VitrailError: the text has no mask to explain, or models of this task are not explained.
    """
    kinds = {"language": _next_token, "masked": _masks, "pretrain": _masks, "vector": _vector, "sentiment": _class}
    if model.task not in kinds:
        raise VitrailError(
            f"{name_of(model)} is a model of the task {model.task}, and a text is explained for models of these: "
            f"{', '.join(sorted(kinds))}, translate."
        )
    return kinds[model.task](model, outputs, ids)


def _class(model: Model, outputs: Tensor, ids: Sequence[int]) -> list[TextTarget]:
    names, shares = class_names(model, outputs.shape[-1], None), outputs[0].float().softmax(-1)
    best = int(shares.argmax())
    return [TextTarget(f"{names[best]} {float(shares[best]):.1%}", lambda out, ids, lengths: log_odds(out, best))]


def _next_token(model: Model, outputs: Tensor, ids: Sequence[int]) -> list[TextTarget]:
    shares = outputs[0, -1].float().softmax(-1)
    best = shares.topk(min(3, len(shares)))
    named = [
        f"{_quoted(model, token)} {share:.1%}" for token, share in zip(*map(Tensor.tolist, best[::-1]), strict=True)
    ]

    def score(out: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
        return log_odds(out[torch.arange(len(out), device=out.device), lengths - 1], int(best.indices[0]))

    return [TextTarget(f"next: {', '.join(named)}", score)]


def _masks(model: Model, outputs: Any, ids: Sequence[int]) -> list[TextTarget]:
    words, mask = _words(outputs), model.inputs.id_of(MASK)
    places = [place for place, token in enumerate(ids) if token == mask]
    if not places:
        raise VitrailError(
            f"{name_of(model)} fills masked words, and the text has no {MASK}. Put one in place of a word, such as"
            f' --text "A {MASK} runs in the snow."'
        )
    found = []
    for number, place in enumerate(places):
        shares = words[0, place].float().softmax(-1)
        best = int(shares.argmax())
        answer = f"{MASK} {number + 1}: {_quoted(model, best)} {float(shares[best]):.1%}"
        found.append(TextTarget(answer, _mask_score(mask, number, best)))
    return found


def _mask_score(mask: int, number: int, best: int) -> Callable[[Any, Tensor, Tensor], Tensor]:
    def score(out: Any, ids: Tensor, lengths: Tensor) -> Tensor:
        masked = ids == mask
        place = (masked & (masked.cumsum(dim=1) == number + 1)).long().argmax(dim=1)
        return log_odds(_words(out)[torch.arange(len(ids), device=ids.device), place], best)

    return score


def _vector(model: Model, outputs: Tensor, ids: Sequence[int]) -> list[TextTarget]:
    own = outputs.detach()
    score = TextTarget("vector of the sentence", lambda out, ids, lengths: cosine_similarity(out, own), False)
    return [score]


def _words(outputs: Any) -> Tensor:
    return outputs[0] if isinstance(outputs, tuple) else outputs


def _quoted(model: Model, token: int) -> str:
    return repr(model.inputs.decode([token], special=True))
