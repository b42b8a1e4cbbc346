"""Config fields of transformers and timm that our configs do not have: ignored, or unsupported and refused by name.

Each field is inferred from tensor shapes, mapped to a field of our config, ignored because it does not change the
logits (dropout, initialisation, text generation), or fixed: our architecture implements one value of it. The tests
check all fields of the config classes of the installed libraries.
"""

from collections.abc import Iterable, Mapping
from typing import Any

IDLE = frozenset(
    (
        *("architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "_name_or_path", "variant"),
        *("id2label", "label2id", "output_attentions", "output_hidden_states", "return_dict", "use_cache"),
        *("chunk_size_feed_forward", "is_encoder_decoder", "initializer_range", "init_std", "drop_path_rate"),
        *("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "classifier_dropout_prob"),
        *("dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop", "decoder_layerdrop"),
        *("resid_pdrop", "embd_pdrop", "attn_pdrop", "summary_first_dropout", "layer_scale_init_value", "image_size"),
        *("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "forced_eos_token_id"),
        *("stage_names", "out_features", "out_indices", "_out_features", "_out_indices", "encoder_stride"),
        *("pooler_output_size", "pooler_act", "summary_type", "summary_use_proj", "summary_activation"),
        *("summary_proj_to_labels", "max_position_embeddings", "torchscript", "pruned_heads", "task_specific_params"),
        *("finetuning_task", "tokenizer_class", "gradient_checkpointing", "use_bfloat16", "tie_encoder_decoder"),
    )
)
"""Ignored fields: they do not change the logits in evaluation mode."""

BY_SHAPE = frozenset(("num_layers", "hidden_size", "type_vocab_size", "n_inner", "width_factor", "decoder_vocab_size"))
"""Fields that are inferred from tensor shapes."""

FIXED: dict[str, tuple[Any, ...]] = {
    "problem_type": (None, "single_label_classification"),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "tie_word_embeddings": (True, False, None),
    "share_encoder_decoder_embeddings": (True, None),
    "scale_attn_weights": (True, None),
    "scale_attn_by_inverse_layer_idx": (False, None),
    "reorder_and_upcast_attn": (False, None),
    "position_embedding_type": ("absolute", None),
    "qk_channels": (None,),
    "v_channels": (None,),
    "cross_attention_shape_for_attention": ("kv", None),
    "use_query_residual": (True, None),
}
"""Supported values of fields that our architectures implement in one way."""

TASKS = (
    *("SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice", "DoubleHeads"),
    *("NextSentencePrediction", "SemanticSegmentation", "ObjectDetection", "DepthEstimation", "UniversalSegmentation"),
)
"""Substrings of transformers' class names whose task head must not be dropped."""

_DINOV2 = frozenset(
    (
        *("mlp_ratio", "layerscale_value", "apply_layernorm", "reshape_hidden_states", "use_mask_token"),
        *("interpolate_antialias", "interpolate_offset"),  # of older files
    )
)

OF_ONE: dict[str, frozenset[str]] = {
    "poolformer": frozenset(("patch_size", "stride")),
    **dict.fromkeys(("dinov2", "dinov2_with_registers"), _DINOV2),
    "siglip": frozenset(("text_config", "initializer_factor")),
    "siglip_vision_model": frozenset(("intermediate_size",)),
    "segformer": frozenset(  # its norms have 1e-5 whatever it says; the rates are of older files
        ("layer_norm_eps", "semantic_loss_ignore_index", "downsampling_rates", "decoder_hidden_size")
    ),
    "upernet": frozenset(
        (
            *("use_auxiliary_head", "auxiliary_loss_weight", "auxiliary_in_channels", "auxiliary_channels"),
            *("auxiliary_num_convs", "auxiliary_concat_input", "loss_ignore_index"),
        )
    ),
    "reformer": frozenset(
        (
            *("hash_seed", "num_buckets", "axial_norm_std", "chunk_size_lm_head", "num_hidden_layers", "output_past"),
            *("local_attention_probs_dropout_prob", "lsh_attention_probs_dropout_prob", "intermediate_size"),
            *("num_chunks_before", "num_chunks_after"),  # of older files, superseded by fields for each layer type
        )
    ),
    "perceiver": frozenset(
        (
            *("d_model", "layer_norm_eps", "vocab_size", "train_size", "num_frames", "samples_per_patch"),
            *("audio_samples_per_frame", "output_shape", "output_num_channels", "_label_trainable_num_channels"),
        )
    ),
}
"""Fields of one model type that are ignored, or mapped by code of its own."""


def unsupported_fields(config: Mapping[str, Any], described: Mapping[str, Any], carried: frozenset[str]) -> list[str]:
    """Return the fields of transformers' `config.json` whose value our architecture does not implement.

    Args:
        config: contents of the file.
        described: the fields with the values that our architecture implements; a config inside it has its own.
        carried: fields of the file that are mapped to our config.

    Example:
        >>> tower = {"vision_config": {"hidden_act": "gelu"}}
        >>> unsupported_fields({"vision_config": {"hidden_act": "relu"}}, tower, frozenset())
        ['vision_config.hidden_act=relu']
    """
    ignored = IDLE | carried | OF_ONE.get(str(config.get("model_type")), frozenset())
    unsupported = []
    for key, value in config.items():
        if key in ignored:
            continue
        supported = (described[key],) if key in described else FIXED.get(key, (value,))
        if isinstance(value, Mapping) and isinstance(supported[0], Mapping):
            unsupported += [f"{key}.{wrong}" for wrong in unsupported_fields(value, supported[0], frozenset())]
        elif value not in supported:
            unsupported.append(f"{key}={value}")
    return unsupported + _other_heads(config, described)


def _other_heads(config: Mapping[str, Any], described: Mapping[str, Any]) -> list[str]:
    """Return the entries of `architectures` in a `config.json` with the head of another task than ours."""
    architectures, ours = config.get("architectures"), str(described.get("architectures"))
    names = [str(name) for name in architectures] if isinstance(architectures, list) else []
    return [f"architectures={name}" for name in names if any(task in name and task not in ours for task in TASKS)]


def unknown_fields(config: Mapping[str, Any], described: Mapping[str, Any], carried: frozenset[str]) -> list[str]:
    """Return the fields of `config.json` that are in no table of this version and have a value."""
    known = IDLE | BY_SHAPE | carried | FIXED.keys() | described.keys()
    known |= OF_ONE.get(str(config.get("model_type")), frozenset())
    return [key for key, value in config.items() if key not in known and value not in (None, False, {}, [])]


TIMM_BY_SHAPE = frozenset(
    (
        *("patch_size", "in_chans", "num_classes", "embed_dim", "embed_dims", "embed_dim_scale", "dims"),
        *("depth", "depths", "mlp_ratio", "mlp_ratios", "num_levels", "num_blocks"),
        *("sr_ratios", "layers", "kernel_sizes", "stem_type", "conv_mlp", "use_grn", "ls_init_value"),
    )
)
TIMM_CARRIED: dict[str, str] = {
    "num_heads": "num_heads",
    "img_size": "image_size",
    "window_size": "window_size",
    "wss": "window_size",
}
"""Arguments of timm's models that shapes may leave open, and our field for each."""

_PER_STAGE = frozenset(("num_heads",))
_SAME_FOR_ALL = frozenset(("crossvit",))  # both branches have as many heads
TIMM_IDLE = frozenset(
    (
        *("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"),
        *("head_drop_rate", "drop", "weight_init", "fix_init", "device", "dtype", "pretrained", "pretrained_cfg"),
        *("pretrained_cfg_overlay", "cache_dir", "scriptable", "exportable", "checkpoint_path", "strict_img_size"),
        *("dynamic_img_size", "dynamic_img_pad", "head_init_scale", "zero_init_last", "drop_block_rate"),
    )
)
TIMM_FIXED: dict[str, tuple[Any, ...]] = {
    "act_layer": (None, "gelu"),
    "class_token": (None, True),
    "reg_tokens": (None, 0),
    "no_embed_class": (None, False),
    "qkv_bias": (None, True),
    "qk_norm": (None, False),
    "pre_norm": (None, False),
    "init_values": (None,),
    "fc_norm": (None,),
    "final_norm": (None, True),
    "ape": (None, False),
    "output_stride": (None, 32),
}
"""Supported values of arguments of timm's models: those of its variants that our architectures implement."""

TIMM_EQUAL = frozenset(("resnet26", "resnet200", "vit_base_patch14_reg1_tipsv2", "vit_small_patch16_36x1_224"))
"""Models of timm outside the catalogue that compute what ours do at the sizes of their tensors (compared with timm)."""

TIMM_WRAPPER = "timm_wrapper"
"""The `model_type` of timm's models in transformers."""

_TOKEN = frozenset(("vit", "vit_hybrid", "deit", "cait", "xcit", "tnt", "convit", "crossvit", "dinov2", "deepvit"))
_SHAPED = frozenset(("siglip",))  # pooling is inferred from the keys of the attention pooling


def timm_name(config: Mapping[str, Any]) -> str | None:
    """Return the name of timm's model in its `config.json`, without the tag of its weights; None in other files.

    The files of transformers' wrapper of timm's models have the same fields.

    Example:
        >>> timm_name({"architecture": "resnet50.a1_in1k"}), timm_name({"model_type": "vit"})
        ('resnet50', None)
    """
    name, kind = config.get("architecture"), config.get("model_type", TIMM_WRAPPER)
    return name.partition(".")[0] if isinstance(name, str) and kind == TIMM_WRAPPER else None


def carried_arguments(config: Mapping[str, Any], families: Iterable[str]) -> dict[str, Any]:
    """Return the fields of our config that the arguments in timm's `config.json` state.

    Args:
        config: contents of the file.
        families: the architectures that the tensors may be of.

    Example:
        >>> carried_arguments({"model_args": {"num_heads": [1, 2], "img_size": [64, 64], "depth": 2}}, ["pvt_v2"])
        {'num_heads': (1, 2), 'image_size': 64}
    """
    arguments, one = config.get("model_args"), not _SAME_FOR_ALL.isdisjoint(families)
    fields = {}
    for key, value in arguments.items() if isinstance(arguments, Mapping) else ():
        if key in TIMM_CARRIED and value is not None:
            per_stage = isinstance(value, list | tuple) and key in _PER_STAGE and not one
            fields[TIMM_CARRIED[key]] = tuple(value) if per_stage else _one_of(value)
    return {name: value for name, value in fields.items() if value is not None}


def _one_of(value: Any) -> int | None:
    """Return the number that a value is, or that all entries of a list are; else None."""
    entries = list(value) if isinstance(value, list | tuple) else [value]
    equal = bool(entries) and all(type(entry) is int and entry == entries[0] for entry in entries)
    return entries[0] if equal else None


def unsupported_arguments(config: Mapping[str, Any], family: str) -> list[str]:
    """Return the arguments in timm's `config.json` whose value our architecture does not implement.

    Example:
        >>> unsupported_arguments({"model_args": {"depth": 2, "act_layer": "relu"}, "global_pool": "token"}, "vit")
        ['act_layer=relu']
    """
    model_args = config.get("model_args")
    arguments = dict(model_args) if isinstance(model_args, Mapping) else {}
    pools = (None, "", "token") if family in _TOKEN else (None, "", "avg", "fast")
    pool = arguments.pop("global_pool", config.get("global_pool"))
    refused = isinstance(pool, str) and family not in _SHAPED and pool not in pools
    unsupported = [f"global_pool={pool}"] if refused else []
    if pool in (None, "", "token") and family in _TOKEN:
        arguments.pop("fc_norm", None)  # used with mean pooling only
    for key, value in arguments.items():
        if key in TIMM_CARRIED and (value is None or carried_arguments({"model_args": {key: value}}, (family,))):
            continue
        if key not in TIMM_BY_SHAPE | TIMM_IDLE and value not in TIMM_FIXED.get(key, ()):
            unsupported.append(f"{key}={value}")
    return unsupported
