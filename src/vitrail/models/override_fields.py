"""Fields of the configs as keywords of `create_model`, for editors and type checkers.

Written from the configs of all architectures by `python tests/models/test_override_fields.py`; the comment names one or
two of those that have the field.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from vitrail.point_sampling import PointSampling
from vitrail.preprocess import Preprocess


class ModelFields(TypedDict, total=False):
    """Overrides of a published variant; which of them it has is checked when it is built."""

    image_size: int  # every family of images: side of the square
    patch_size: int  # vit, vit_hybrid and 17 more
    dim: int  # vit, vit_hybrid and 48 more
    depth: int  # vit, vit_hybrid and 30 more
    num_heads: Sequence[int] | int  # vit, vit_hybrid and 43 more
    mlp_ratio: float  # vit, vit_hybrid and 36 more
    drop_path: float  # vit, vit_hybrid and 39 more
    num_classes: int  # vit, vit_hybrid and 51 more
    in_channels: int  # vit, vit_hybrid and 49 more
    norm_eps: float  # vit, deit and 4 more
    preprocess: Preprocess  # vit, vit_hybrid and 42 more
    depths: Sequence[int]  # vit_hybrid, swin and 20 more
    distilled: bool  # deit
    distilled_head: bool  # deit
    window_size: int | None  # swin, swin_v2 and 3 more
    edge: str  # swin, swin_v2
    pretrained_windows: Sequence[int]  # swin_v2
    dims: Sequence[int]  # nest, pvt and 5 more
    padding: str  # nest
    sr_ratios: Sequence[int]  # pvt, pvt_v2 and 1 more
    mlp_ratios: Sequence[float]  # pvt, pvt_v2 and 1 more
    reduction_eps: float  # pvt, pvt_v2
    linear: bool  # pvt_v2
    layer_scale: float | None  # nat, dinat and 5 more
    kernel_size: int  # nat, dinat and 3 more
    dilations: Sequence[int]  # dinat, dinat_s
    pooling: str  # poolformer
    token_mixers: Sequence[str]  # metaformer
    response_norm: bool  # convnext
    last_norm_eps: float  # convnext
    colors: int  # igpt, pixel_gpt
    expert_blocks: Sequence[int]  # vmoe
    num_experts: int  # vmoe
    selected: int  # vmoe
    capacity: float  # vmoe
    noise: float  # vmoe
    priority: str  # vmoe
    attention: Sequence[Sequence[int]] | Sequence[int]  # botnet, halonet
    stem: str  # botnet, sasa
    last_stride: int  # botnet
    scaled_positions: bool  # botnet
    halo: int  # halonet
    act: str  # halonet
    blocks: Sequence[Sequence[int]]  # nonlocal_resnet
    pairs: str  # nonlocal_resnet
    tokenizer: str  # vt_resnet
    tokens: int  # vt_resnet
    inputs: str  # perceiver
    latents: int  # perceiver, perceiver_iterative
    repeats: int  # perceiver
    reads: int  # perceiver_iterative
    token_ratio: float  # mixer
    stride: int  # cct
    conv_layers: int | None  # cct
    inner_dim: int  # tnt
    inner_heads: int  # tnt
    words: str  # tnt
    pegs: int  # cpvt
    pool: str  # cpvt, siglip
    class_depth: int  # cait, convit and 1 more
    locality: float  # convit
    class_norm: str  # xcit
    registers: int  # dinov2
    channel_mixer: str  # dinov2, eva02
    gelu: str  # siglip
    fine_dim: int  # crossvit
    coarse_dim: int  # crossvit
    coarse_depth: int  # crossvit
    patches: str  # crossvit
    fine_patch: int  # crossvit
    coarse_patch: int  # crossvit
    scale: float | int  # crossvit, swin2sr and 1 more
    hidden: int  # transformer, reformer and 3 more
    vocab_size: int  # transformer, bert and 9 more
    dropout: float  # transformer, bert and 15 more
    norm: str  # transformer
    form: str  # transformer
    max_length: int  # bert, albert and 3 more
    head: str  # bert, albert
    word_dim: int  # albert
    head_ratio: int  # convbert
    channels: int  # pixel_gpt, upernet and 4 more
    side: int  # pixel_gpt
    head_dim: int  # reformer
    attn_layers: Sequence[str]  # reformer
    position_shape: Sequence[int]  # reformer
    position_dims: Sequence[int]  # reformer
    local_chunk: int  # reformer
    lsh_chunk: int  # reformer
    buckets: Sequence[int]  # reformer
    rounds: int  # reformer
    hash_seed: int  # reformer
    directions: int  # lstm
    upsampler: str  # swin2sr, swinir
    pixel_range: float  # swin2sr, swinir
    convolution: str  # swinir
    backbone: str  # upernet, segformer and 3 more
    backbone_config: Mapping[str, Any]  # upernet, segformer and 3 more
    pool_scales: Sequence[int]  # upernet
    auxiliary_channels: int  # upernet
    level_norm: str  # faster_rcnn, mask_rcnn
    anchor_scale: float  # faster_rcnn, mask_rcnn
    global_dim: int  # pointnet, pointnet_parts
    transforms: bool  # pointnet
    penalty: float  # pointnet, pointnet_parts
    sampling: PointSampling  # pointnet, pointnet_parts and 3 more
    encoder_depth: int  # set_transformer
    inducing_points: int  # set_transformer
    seeds: int  # set_transformer
    decoder_depth: int  # set_transformer
    sort_nets: int  # point_transformer, point_transformer_parts
    picks: int  # point_transformer, point_transformer_parts
    centers: Sequence[int]  # point_transformer, point_transformer_parts
    radius: float  # point_transformer, point_transformer_parts
    ball_size: int  # point_transformer, point_transformer_parts
