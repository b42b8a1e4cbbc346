"""Attention maps in a compact binary form, for a viewer that shows every layer and head of one image.

    file  := length of header (uint32) | header (JSON, padded with spaces to 4 bytes) | layer*
    layer := slots int32 (G, n) | keys int32 (G, m) | row maxima float32 (G, h, n) | levels int8 (G, h, n, m) | padding

Little endian, each layer padded to 4 bytes. A weight is `level / 127 * row maximum`, so that its error is at most 0.4 %
of the largest weight of its row; heads that are mixed after the softmax have negative weights. Groups are kept as the
block has them: a window model sends its windows and no zeros between them.
"""

import json
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vitrail.data.transform import EvalTransform
from vitrail.errors import VitrailError
from vitrail.explain.blocks import attending_blocks, backbone_of, choose
from vitrail.explain.maps import AttentionMap, attention_maps, no_maps
from vitrail.explain.overlay import seen
from vitrail.explain.token_query import Query
from vitrail.parts.model import Model
from vitrail.tasks import data_url
from vitrail.tasks.inference import device_of, evaluating

MOST_WEIGHTS = 8_000_000
"""Weights of one answer, a byte each. A model with more sends one layer an answer, a larger layer one query."""


class LayerInfo(NamedTuple):
    """A layer with attention maps: its address (`2.1`) and the name of its token mixer."""

    address: str
    name: str


def layers_with_maps(model: nn.Module) -> list[LayerInfo]:
    """List the layers of a model that have attention maps, first to last; none if it has no maps.

    Example:
        >>> from vitrail.models import create_model
        >>> [layer.address for layer in layers_with_maps(create_model("vit_tiny_patch16_224", depth=2))]
        ['0', '1']
    """
    try:
        return [LayerInfo(block.address, type(block.module).__name__) for block in attending_blocks(model)]
    except VitrailError:  # no backbone
        return []


def encode_image_maps(model: Model, image: Image.Image, layer: str = "", query: int | None = None) -> bytes:
    """Run a model on an image and return its attention maps, see the description of the module.

    Args:
        model: a model of images with a backbone.
        image: the image; the model's own preprocessing is applied.
        layer: address of the only layer to send; by default all layers, or the last one if all are too many.
        query: token whose row alone is sent, as one group; it requires a layer.

    Raises:
        VitrailError: the model has no maps, or there is no such layer or token.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=2, image_size=32)
        >>> answer = decode_maps(encode_image_maps(model, Image.new("RGB", (40, 40))))
        >>> answer.header["grid"], [one.levels.shape for one in answer.layers]
        ([2, 2], [(1, 3, 5, 5), (1, 3, 5, 5)])
    """
    if not attending_blocks(model):
        raise no_maps(model)
    images = EvalTransform(model.preprocess)(image)[None].to(device_of(model))
    backbone = backbone_of(model)
    with evaluating(model), torch.no_grad(), attention_maps(backbone) as maps:
        backbone(images)
    if query is not None and not layer:
        raise VitrailError("A query needs a layer: name one of them.")
    chosen = _chosen(maps, layer)
    head = {
        "image": list(images.shape[-2:]),
        "seen": data_url.encode(seen(images, model.preprocess, least=1)[0]),
        "layers": [_facts(map) for map in maps],
    }
    return encode(head, chosen, query)


@torch.no_grad()
def encode(head: dict[str, Any], maps: Sequence[AttentionMap], query: Query | None = None) -> bytes:
    """Encode some maps under a header, which gets `sent`: what the file holds, in order."""
    bodies = [_whole(map) if query is None else _row(map, query) for map in maps]
    sent = [
        {"layer": map.block.address, "query": query, "shape": list(levels.shape), **_place(map)}
        for map, (_, _, _, levels) in zip(maps, bodies, strict=True)
    ]
    first = _place(maps[0]) if maps else {}
    header = json.dumps({**head, **first, "sent": sent}).encode()
    header += b" " * (-len(header) % 4)
    chunks = [struct.pack("<I", len(header)), header]
    for slots, keys, maxima, levels in bodies:
        chunks += [slots.astype("<i4").tobytes(), keys.astype("<i4").tobytes(), maxima.astype("<f4").tobytes()]
        chunks += [levels.tobytes(), bytes(-levels.size % 4)]
    return b"".join(chunks)


class DecodedLayer(NamedTuple):
    """One layer: `slots (G, n)`, `keys (G, m)`, `maxima (G, h, n)` and `levels (G, h, n, m)`."""

    slots: np.ndarray
    keys: np.ndarray
    maxima: np.ndarray
    levels: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """Attention probabilities `(G, h, n, m)`."""
        return self.levels.astype(np.float32) / 127 * self.maxima[..., None]


class DecodedMaps(NamedTuple):
    """Header and layers of a file of maps."""

    header: dict[str, Any]
    layers: list[DecodedLayer]


def decode_maps(data: bytes) -> DecodedMaps:
    """Read a file of maps: the readable counterpart of the viewer's decoder."""
    length = struct.unpack_from("<I", data)[0]
    header, at = json.loads(data[4 : 4 + length]), 4 + length
    layers = []

    def take(kind: str, *shape: int) -> np.ndarray:
        nonlocal at
        count = int(np.prod(shape))
        values = np.frombuffer(data, kind, count, at).reshape(shape)
        at += values.nbytes
        return values

    for each in header["sent"]:
        groups, heads, n, m = each["shape"]
        slots, keys, maxima = take("<i4", groups, n), take("<i4", groups, m), take("<f4", groups, heads, n)
        layers.append(DecodedLayer(slots, keys, maxima, take("i1", groups, heads, n, m)))
        at += -(groups * heads * n * m) % 4
    return DecodedMaps(header, layers)


def quantise(weights: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest magnitude of each row `(...)` and the levels `(..., m)` of int8.

    Example:
        >>> maxima, levels = quantise(torch.tensor([[0.25, -0.5]]))
        >>> maxima.tolist(), levels.tolist()
        ([0.5], [[64, -127]])
    """
    maxima = weights.abs().amax(-1)
    levels = (weights / maxima.clamp_min(1e-30)[..., None] * 127).round().to(torch.int8)
    return maxima.cpu().numpy(), levels.cpu().numpy()


def _chosen(maps: Sequence[AttentionMap], layer: str) -> list[AttentionMap]:
    if layer:
        block = choose([map.block for map in maps], layer)
        return [map for map in maps if map.block is block]
    total = sum(_count(map) for map in maps)
    return list(maps) if total <= MOST_WEIGHTS else [maps[-1]]


def _count(map: AttentionMap) -> int:
    return map.slots.numel() * map.heads * map.keys.shape[1]


def _facts(map: AttentionMap) -> dict[str, Any]:
    kind = type(map.block.module).__name__
    return {"address": map.block.address, "mixer": kind, "heads": map.heads, "rows_only": _count(map) > MOST_WEIGHTS}


def _place(map: AttentionMap) -> dict[str, Any]:
    return {"grid": [map.grid.h, map.grid.w], "prefix": map.grid.prefix, "cell": list(map.cell)}


def _whole(map: AttentionMap) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    if _count(map) > MOST_WEIGHTS:  # its rows are sent one by one
        empty = np.zeros((0, map.slots.shape[1])), np.zeros((0, map.keys.shape[1]))
        return *empty, np.zeros((0, map.heads, 0)), np.zeros((0, map.heads, map.slots.shape[1], 0), np.int8)
    maxima, levels = quantise(map.probabilities[0].float())  # (G, h, n, m)
    return map.slots.cpu().numpy(), map.keys.cpu().numpy(), maxima, levels


def _row(map: AttentionMap, query: Query) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    token = map.place.token(query)
    if not bool((map.slots == token).any()):
        raise VitrailError(f"Token {token} is no query of {map.block.title}: it attends to nothing there.")
    maxima, levels = quantise(map.row(token).float()[:1, :, None])  # (1, h, 1, N)
    return np.array([[token]]), np.arange(map.grid.tokens)[None], maxima, levels
