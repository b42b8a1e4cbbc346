"""Cache of feature vectors on disk, shared by `vitrail probe` and by trainings of the last layer alone."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from vitrail.cache import cache_folder, fingerprint, written
from vitrail.data.prefetch import balanced_batch_size, batched, prefetch_map
from vitrail.tasks.task import Dataset

_LAST = "head.linear."
"""Parameters after the vectors: the same backbone has the same vectors under any of them."""


class FeatureReader(Protocol):
    """Reader of features, see `vitrail.tasks.features`."""

    @property
    def model(self) -> nn.Module:
        """The model."""
        ...

    def job(self) -> list[object]:
        """Return the options that determine the vectors, apart from the weights."""
        ...

    def sample(self, data: Any, number: int) -> object:
        """Return an input of a data set."""
        ...

    def vectors(self, loaded: list[Any]) -> Tensor:
        """Return the vectors of loaded inputs, `(B, C)` on the CPU."""
        ...


def features_digest(reader: FeatureReader) -> str:
    """Return a short hash of all that the vectors of an input depend on: weights and options."""
    digest = hashlib.sha256()
    for name, value in sorted(reader.model.state_dict().items()):
        if not name.startswith(_LAST):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(memoryview(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
    digest.update(json.dumps(reader.job()).encode())
    return digest.hexdigest()[:12]


def feature_file(digest: str, data: Dataset) -> Path:
    """Return the file of the vectors of a data set."""
    own: Any = data
    content = own.digest() if hasattr(own, "digest") else fingerprint(*own.ids, *own.texts)
    return cache_folder("features") / f"{fingerprint(digest, content)}.npy"


def cached_features(
    reader: FeatureReader, digest: str, data: Dataset, batch: int, progress: Callable[[int, int], None] | None = None
) -> Tensor:
    """Return the vectors of a set `(n, C)`, from the cache if these weights have seen this data.

    Args:
        reader: reader of the features.
        digest: hash of weights and options, see `features_digest`.
        data: a data set of images or texts.
        batch: samples in a batch.
        progress: receives the numbers of samples done and of all samples.
    """
    path = feature_file(digest, data)
    if path.exists():
        return torch.from_numpy(np.load(path))
    loaded = prefetch_map(lambda number: reader.sample(data, number), range(len(data)), window=2 * batch)
    rows: list[Tensor] = []
    for group in batched(loaded, balanced_batch_size(batch, len(data))):
        rows.append(reader.vectors(group))
        if progress is not None:
            progress(sum(map(len, rows)), len(data))
    vectors = torch.cat(rows)
    with written(path) as file:
        np.save(file, vectors.numpy())
    return vectors
