"""Vectors of images and texts, and the nearest neighbours among them."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from vitrail.data.image_io import ImageDecodeError
from vitrail.data.prefetch import balanced_batch_size, batched, prefetch_map
from vitrail.errors import DataError, VitrailError
from vitrail.inference.model_loading import ModelSource, find_model
from vitrail.tasks.features import ImageFeatures, Pool, TextFeatures, feature_reader


class Embedded(NamedTuple):
    """The vector of an input, or the reason why there is none.

    Args:
        name: path of the input, or its name.
        vector: `(C,)` of float32, or None.
        error: reason why it cannot be read.
    """

    name: str
    vector: np.ndarray | None
    error: str | None = None


class Embeddings(NamedTuple):
    """Vectors `(n, C)` of float32 with the names of their inputs; `notes` reports texts that were cut."""

    names: tuple[str, ...]
    vectors: np.ndarray
    notes: str = ""


def embed(
    model: ModelSource, inputs: object, *, pool: Pool = "auto", batch: int = 32, device: str = "auto"
) -> Embeddings:
    """Return the vectors of images or texts.

    Args:
        model: a model, a model folder or a run folder.
        inputs: what `vitrail.predict` takes for a model of this kind.
        pool: `auto` (input of the head's last layer, else the mean), `mean` or `first`.
        batch: inputs in a batch.
        device: `auto`, `cpu`, `cuda`, ...

    Raises:
        DataError: an input cannot be read.

    Example:
        >>> from vitrail.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=1, image_size=32)
        >>> embed(model, np.zeros((40, 50, 3), "uint8")).vectors.shape
        (1, 192)
    """
    reader = feature_reader(find_model(model, device=device, headless=True), pool)
    found = list(vectors_of(reader, reader.collect(inputs), batch))
    failed = next((one for one in found if one.error is not None), None)
    if failed is not None:
        raise DataError(f"{failed.name}: {failed.error}")
    vectors = np.stack([one.vector for one in found if one.vector is not None])
    return Embeddings(tuple(one.name for one in found), vectors, reader.notes())


def vectors_of(reader: ImageFeatures | TextFeatures, inputs: Iterable[Any], batch: int) -> Iterator[Embedded]:
    """Yield the vector of each input in order; inputs are read in threads during the forward pass."""
    if batch < 1:
        raise VitrailError(f"batch is {batch}; it must be at least 1.")
    inputs = list(inputs)
    reader.begin(len(inputs))

    def load(item: Any) -> tuple[Any, Any]:
        try:
            return item, reader.load(item)
        except DataError as error:
            return item, error

    loaded = prefetch_map(load, inputs, window=2 * batch, gate=reader.gate)
    for group in batched(loaded, balanced_batch_size(batch, len(inputs))):
        good = [value for _, value in group if not isinstance(value, DataError)]
        rows = iter(reader.vectors(good).numpy() if good else ())
        for item, value in group:
            if isinstance(value, DataError):
                reason = value.reason if isinstance(value, ImageDecodeError) else str(value)
                yield Embedded(item.name, None, reason)
            else:
                yield Embedded(item.name, np.array(next(rows), dtype=np.float32))


def neighbours(vectors: np.ndarray, queries: Iterable[int], count: int) -> list[list[tuple[int, float]]]:
    """Return for each query its `count` nearest others with their cosines, the nearest first; exact.

    Example:
        >>> found = neighbours(np.array([[1.0, 0], [0, 1], [0.9, 0.1]], "float32"), [0], 2)
        >>> [number for number, _ in found[0]]
        [2, 1]
    """
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
    found = []
    for query in queries:
        cosines = unit @ unit[query]
        order = [int(i) for i in np.argsort(-cosines, kind="stable")[: count + 1] if i != query][:count]
        found.append([(i, float(cosines[i])) for i in order])
    return found
