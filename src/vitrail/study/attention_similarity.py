"""How alike attention maps are: cosine similarity between layers and between heads of one layer.

"DeepViT: Towards Deeper Vision Transformer", equation 1: the cosine of two maps, query by query, on average.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from vitrail.errors import VitrailError
from vitrail.explain.maps import attention_maps
from vitrail.tasks.inference import evaluating


def layer_maps(model: nn.Module, images: Tensor) -> Tensor:
    """Return the maps of all layers, `(layers, B, h, N, N)`.

    Raises:
        VitrailError: the layers do not mix the same tokens with the same heads (a hierarchical model).
    """
    with evaluating(model), torch.no_grad(), attention_maps(model) as maps:
        model(images)
        found = [map.probabilities[:, 0] if len(map.slots) == 1 else map.dense() for map in maps]
    shapes = {tuple(map.shape) for map in found}
    if len(shapes) > 1:
        raise VitrailError(
            f"Maps of different layers can be compared on one grid only; got {len(shapes)} shapes.\n"
            "Choose a model of one stage, such as a ViT."
        )
    return torch.stack(found)


def layer_similarity(maps: Tensor) -> Tensor:
    """Return the mean cosine of the maps of two layers, `(layers, layers)`; the same head of both is compared.

    Example:
        >>> layer_similarity(torch.eye(4)[None, None, None].expand(2, 1, 1, 4, 4)).tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    rows = normalize(maps, dim=-1).flatten(1, 3)  # (layers, B h N, N)
    return torch.einsum("pqk,rqk->pr", rows, rows) / rows.shape[1]


def head_similarity(maps: Tensor) -> Tensor:
    """Return the mean cosine of two different heads in each layer, `(layers,)`."""
    heads = maps.shape[2]
    if heads < 2:
        return maps.new_ones(len(maps))
    rows = normalize(maps, dim=-1)
    total = torch.einsum("lbhqk,lbgqk->l", rows, rows) / (maps.shape[1] * maps.shape[3])
    return (total - heads) / (heads * (heads - 1))
