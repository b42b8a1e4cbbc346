"""Public weights by the name of their variant: the repository of `models.published`, at one commit.

The commit is resolved at the first download and kept in the cache (`$VITRAIL_CACHE/hub/pretrained.json`): later uses
take the same weights, without a network.
"""

import json
from contextlib import suppress
from typing import Any

from vitrail.atomic_io import write_file
from vitrail.cache import cache_folder
from vitrail.errors import VitrailError
from vitrail.models.published.hosted import HOSTED, Hosted
from vitrail.weights.hub import pinned

PRETRAINED = "pretrained"
"""Name of the weights of a variant, where a file is expected."""


def find_hosted(variant: str) -> Hosted:
    """Return the public weights of a variant.

    Raises:
        VitrailError: none are known.

    Example:
        >>> find_hosted("vit_tiny_patch16_224").hub
        'timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k'
    """
    if variant in HOSTED:
        return HOSTED[variant]
    from vitrail.models import catalogue

    known = catalogue()
    family = [name for name in HOSTED if known.get(name) == known.get(variant)]
    near = f"Variants of its family that have: {', '.join(family[:4])}.\n" if family else ""
    raise VitrailError(
        f"No public weights of {variant} are known.\n{near}"
        "Give a file, a folder or hf:org/name@revision, or train it from random weights."
    )


def pinned_weights(variant: str) -> str:
    """Return the hub id of a variant's public weights with its commit."""
    repo = find_hosted(variant).hub
    kept = _read()
    if repo not in kept:
        kept[repo] = pinned(f"hf:{repo}").rpartition("@")[2]
        write_file(_path(), (json.dumps(kept, indent=2, sort_keys=True) + "\n").encode())
    return f"hf:{repo}@{kept[repo]}"


def kept_commit(variant: str) -> str | None:
    """Return the commit of a variant's public weights, if they were resolved before on this machine."""
    return _read().get(HOSTED[variant].hub) if variant in HOSTED else None


def _read() -> dict[str, Any]:
    with suppress(OSError, ValueError):
        kept = json.loads(_path().read_bytes())
        return kept if isinstance(kept, dict) else {}
    return {}


def _path() -> Any:
    return cache_folder("hub") / "pretrained.json"
