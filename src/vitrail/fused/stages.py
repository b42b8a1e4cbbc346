"""Stages that are converted as a whole."""

import torch
from torch import nn

from vitrail.fused import bottlenecks
from vitrail.fused.conv_bottlenecks import fuse_conv_stage
from vitrail.fused.visual_tokens import fuse_visual_stage
from vitrail.parts.attention_bottlenecks import AttentionBottleneck
from vitrail.parts.stages import Stage
from vitrail.parts.visual_tokens import TokenStep, VisualTransformerBlock


def fuse_stage(stage: Stage, dtype: torch.dtype) -> nn.Module:
    """Return the fused stage of bottlenecks or of visual tokens; other stages as they are, to convert their blocks.

    Raises:
        NotConverted: a block or one of its parts is unknown, or a library cannot be built.
    """
    modules = [stage.entry, *stage.blocks]
    if any(isinstance(module, AttentionBottleneck) for module in modules):
        return fuse_conv_stage(stage, dtype)
    if any(isinstance(module, TokenStep | VisualTransformerBlock) for module in modules):
        return fuse_visual_stage(stage, dtype)
    return bottlenecks.fuse_stage(stage, dtype)
