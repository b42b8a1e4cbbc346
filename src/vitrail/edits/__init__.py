"""Edits: changes of a built model that a model folder states and `load_model` replays."""

EDITS = {
    "prune_heads": "heads",
    "prune_hidden": "hidden",
    "drop_blocks": "blocks",
    "low_rank": "low_rank",
    "merge_tokens": "merge_tokens",
    "prune_tokens": "prune_tokens",
}
"""File of this room that holds the class of each edit, as `EDIT`, by the name that `config.json` states."""
