"""Heads of a BERT and of its relatives, by kind."""

from collections.abc import Callable

from torch import nn

from vitrail.errors import unknown
from vitrail.parts.heads import LinearHead
from vitrail.parts.sequence_model import SequenceBackbone, SequenceModel, TiedModel
from vitrail.parts.text_heads import FirstTokenPooler, MeanOfSequence, PretrainingHead, SentenceVector, TiedHead


def with_head(
    kind: str, backbone: SequenceBackbone, words: Callable[[], TiedHead], dim: int, num_classes: int, dropout: float
) -> SequenceModel:
    """Return the model of a backbone with a head.

    Args:
        kind: `pretraining`, `masked` (words alone), `classes` (of the first token), `mean` (classes of the mean of the
            tokens) or `vector` (of a sentence).
        backbone: the encoder.
        words: function that makes the head of masked words.
        dim: channels C of the tokens.
        num_classes: number of classes, if the head has some.
        dropout: rate of dropped channels before a classifier while training.

    Raises:
        VitrailError: there is no such kind.
    """
    heads: dict[str, Callable[[], SequenceModel]] = {
        "pretraining": lambda: TiedModel(backbone, PretrainingHead(words(), LinearHead(FirstTokenPooler(dim), dim, 2))),
        "masked": lambda: TiedModel(backbone, words()),
        "classes": lambda: SequenceModel(backbone, LinearHead(FirstTokenPooler(dim, dropout), dim, num_classes)),
        "mean": lambda: SequenceModel(
            backbone, LinearHead(nn.Sequential(MeanOfSequence(), nn.Dropout(dropout)), dim, num_classes)
        ),
        "vector": lambda: SequenceModel(backbone, SentenceVector()),
    }
    if kind not in heads:
        raise unknown("head", kind, heads)
    return heads[kind]()
