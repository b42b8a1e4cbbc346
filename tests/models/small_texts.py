"""A small model of every text architecture, every weight drawn at random."""

from typing import Any

import torch

from vitrail.layouts import TokenSequence
from vitrail.models import create_model

VOCABULARY = 50
_SIZES: dict[str, Any] = {"dim": 32, "depth": 2, "num_heads": 4, "vocab_size": VOCABULARY}
_BERT: dict[str, Any] = {**_SIZES, "mlp_ratio": 2.0, "max_length": 20}
_REFORMER: dict[str, Any] = {
    "dim": 32,
    "num_heads": 4,
    "head_dim": 6,
    "hidden": 48,
    "vocab_size": VOCABULARY,
    "attn_layers": ("local", "lsh"),
    "position_shape": (4, 5),
    "position_dims": (12, 20),
    "local_chunk": 4,
    "lsh_chunk": 8,
    "buckets": (4,),
}
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert_tiny", _BERT),
    "bert masked": ("bert_base_uncased", {**_BERT, "head": "masked"}),
    "bert classes": ("bert_tiny", {**_BERT, "head": "classes", "num_classes": 3}),
    "bert vector": ("all_minilm_l6_v2", _BERT),
    "albert": ("albert_base_v2", {**_BERT, "word_dim": 16}),
    "albert masked": ("albert_base_v2", {**_BERT, "word_dim": 16, "head": "masked"}),
    "albert classes": ("albert_base_v2", {**_BERT, "word_dim": 16, "head": "classes", "num_classes": 3}),
    "convbert": ("conv_bert_base", {**_BERT, "kernel_size": 3}),
    "gpt": ("openai_gpt", {**_SIZES, "max_length": 20}),
    "gpt2": ("gpt2", {**_SIZES, "max_length": 20}),
    "lstm": ("lstm_sst", {"dim": 12, "hidden": 8, "depth": 2, "vocab_size": VOCABULARY, "num_classes": 3}),
    "bilstm": ("bilstm_sst", {"dim": 12, "hidden": 8, "vocab_size": VOCABULARY}),
    "reformer": ("reformer_crime_and_punishment", _REFORMER),
    "retnet": ("retnet_1b3", _SIZES),
    "pixel_gpt": ("pixel_gpt_xxs", {"dim": 32, "depth": 2, "num_heads": 4, "colors": VOCABULARY - 1, "side": 5}),
    "text_decoder": ("text_decoder_tiny", _SIZES),
    "text_encoder": ("text_encoder_tiny", _SIZES),
    "transformer": ("transformer_base_wmt_en_de", {**_SIZES, "hidden": 64}),
    "transformer pre": ("transformer_base_wmt_en_de", {**_SIZES, "hidden": 64, "norm": "pre"}),
    "transformer marian": ("opus_mt_en_de", {**_SIZES, "hidden": 64}),
}


def small(name: str, **overrides: Any) -> Any:
    """Make a small model in evaluation mode, all its weights random and none small."""
    variant, sizes = SMALL[name]
    model = create_model(variant, **{**sizes, **overrides}).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            fan_in = parameter.shape[-1] if parameter.ndim > 1 else 1
            one = parameter.ndim == 1 and "norm" in key
            parameter.copy_(torch.randn_like(parameter) * 0.5 / fan_in**0.5 + one)
    return model


def answer(model: Any, ids: torch.Tensor, lengths: torch.Tensor | None = None) -> list[torch.Tensor]:
    """Return the outputs of a batch as a list; a translation reads the same ids on both sides."""
    layout = TokenSequence(ids.shape[1], lengths=lengths)
    out = model(ids, ids, layout, layout) if hasattr(model, "encode") else model(ids, layout)
    return list(out) if isinstance(out, tuple) else [out]
