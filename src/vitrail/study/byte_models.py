"""Small language models of bytes for studies."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vitrail.parts.initialisation import initialise_as_bert
from vitrail.parts.sequence_model import SequenceBackbone, TiedModel
from vitrail.parts.sequence_positions import SequencePosition
from vitrail.parts.stages import Stage
from vitrail.parts.text_embedding import TextEmbedding
from vitrail.parts.text_heads import TiedHead
from vitrail.study.texts import own_text, windows_of

LENGTH, BATCH, TEST_WINDOWS = 64, 16, 64


def byte_model(dim: int, blocks: Iterable[nn.Module], norm: nn.Module) -> TiedModel:
    """Build a language model of bytes from causal blocks.

    Args:
        dim: channels C.
        blocks: each `(x, layout) -> x`, no token seeing later ones.
        norm: after the last block.
    """
    embedding = TextEmbedding(128, dim, [SequencePosition(dim, LENGTH)])
    model = TiedModel(SequenceBackbone(embedding, [Stage(blocks)], norm), TiedHead())
    initialise_as_bert(model)
    return model


def byte_loss(model: nn.Module, draw: torch.Generator | None) -> Tensor:
    """Return the cross entropy of the next byte: of a drawn batch, or of held-out text without `draw`."""
    train, test = own_text()
    if draw is None:
        starts = torch.linspace(0, len(test) - LENGTH - 2, TEST_WINDOWS).long()
        with torch.no_grad():
            return _loss(model, *windows_of(test, starts, LENGTH))
    starts = torch.randint(len(train) - LENGTH - 1, (BATCH,), generator=draw)
    return _loss(model, *windows_of(train, starts, LENGTH))


def _loss(model: nn.Module, ids: Tensor, following: Tensor) -> Tensor:
    return cross_entropy(model(ids).flatten(0, 1), following.flatten())
