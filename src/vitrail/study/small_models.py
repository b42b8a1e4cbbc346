"""Small classifiers for studies: one assembly for mixers, norms and positions, and small variants of the catalogue."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from vitrail.models import create_model
from vitrail.parts.backbone import Backbone, Classifier
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.embeddings import Embedding, PatchEmbedding
from vitrail.parts.heads import LinearHead, MeanToken
from vitrail.parts.initialisation import initialise
from vitrail.parts.stages import Stage
from vitrail.preprocess import Preprocess
from vitrail.study.images import StudyImages


def assemble(
    data: StudyImages,
    dim: int,
    blocks: Iterable[nn.Module],
    patch_size: int,
    steps: Sequence[nn.Module] = (),
    norm: nn.Module | None = None,
) -> Classifier:
    """Build a classifier of one stage that reads the mean of its tokens.

    Args:
        data: gives channels and classes.
        dim: channels C.
        blocks: of the stage.
        patch_size: side of a patch in pixels.
        steps: layers on the tokens before the stage, such as positions.
        norm: after the stage; LayerNorm by default.
    """
    embedding = Embedding(PatchEmbedding(data.channels, dim, patch_size), steps)
    backbone = Backbone(embedding, [Stage(blocks)], norm or nn.LayerNorm(dim))
    model = Classifier(backbone, LinearHead(MeanToken(), dim, data.classes))
    initialise(model)
    return model


def pre_norm_block(dim: int, mixer: nn.Module, mlp_ratio: float = 2.0, hidden: int | None = None) -> Block:
    """Build the MetaFormer block with LayerNorm and an MLP."""
    return Block(nn.LayerNorm(dim), mixer, nn.LayerNorm(dim), MLP(dim, hidden or int(dim * mlp_ratio)))


def variant(name: str, data: StudyImages, **numbers: Any) -> Classifier:
    """Build a variant of the catalogue for the images of a study.

    Args:
        name: in the catalogue.
        data: gives channels, classes and the size of the images.
        numbers: fields of its config that make it small.
    """
    half = (0.5,) * data.channels
    preprocess = Preprocess(data.side, crop=1.0, mean=half, std=half)
    model: Any = create_model(
        name, num_classes=data.classes, in_channels=data.channels, preprocess=preprocess, **numbers
    )
    return model
