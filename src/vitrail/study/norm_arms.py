"""Blocks with norms first or last, of three kinds, and their gradients before the first step."""

from typing import Any

from torch import nn
from torch.nn.functional import cross_entropy

from vitrail.parts.blocks import Block
from vitrail.parts.causal_attend import CausalAttend
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.model import Model
from vitrail.parts.sequence_blocks import PostNormBlock
from vitrail.parts.sequence_norms import PowerNorm
from vitrail.parts.shared_mlp import PointBatchNorm
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.study.images import StudyImages

NORMS: dict[str, Any] = {"LayerNorm": nn.LayerNorm, "BatchNorm": PointBatchNorm, "PowerNorm": PowerNorm}


BLOCKS: dict[str, Any] = {"first": Block, "last": PostNormBlock}


def blocks(dim: int, depth: int, order: str, norm: str, causal: bool = False) -> list[nn.Module]:
    """Build the blocks of one arm."""
    build, make = BLOCKS[order], NORMS[norm]
    return [
        build(make(dim), SelfAttention(dim, 2, attend=CausalAttend() if causal else None), make(dim), MLP(dim, 2 * dim))
        for _ in range(depth)
    ]


def first_gradients(model: Model, data: StudyImages) -> list[float]:
    """Return the norm of the gradient of the MLP's second layer in each block, on one batch."""
    model.train()
    cross_entropy(model(data.train[:64]), data.train_labels[:64]).backward()
    backbone: Any = model.backbone
    norms = [float(block.channel_mixer.fc2.weight.grad.norm()) for block in backbone.stages[0].blocks]
    model.zero_grad(set_to_none=True)
    return norms
