"""Edits: changes of a built model that a model folder states and `load_model` replays."""

EDITS = {
    "prune_heads": "heads",
    "prune_hidden": "hidden",
    "prune_width": "width",
    "drop_blocks": "blocks",
    "low_rank": "low_rank",
    "swap_attention": "swap_attention",
    "lora": "lora",
    "merge_tokens": "merge_tokens",
    "prune_tokens": "prune_tokens",
    "learn_tokens": "learn_tokens",
    "quantize_weights": "quantize",
    "fake_quantize": "fake_quantize",
}
"""File of this room that holds the class of each edit, as `EDIT`, by the name that `config.json` states."""
