"""Embeddings in one bit a channel, and search by Hamming distance."""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vitrail.atomic_io import write_file
from vitrail.errors import DataError, VitrailError

_ROWS = 4096
"""Codes that are compared with a query at once."""


@dataclass(frozen=True)
class BinaryCodes:
    """Signs of embeddings around their mean, 64 channels a word: 32 times smaller than fp32.

    The cosine of two mean-centred embeddings is close to cos(pi d / C), with d the Hamming distance of their codes, if
    their directions are random: "Similarity Estimation Techniques from Rounding Algorithms", section 3.

    Args:
        words: codes, `(n, ceil(C / 64))` of 64 bits.
        mean: mean of the embeddings that were indexed, `(C,)`.

    Example:
        >>> codes = BinaryCodes.of(torch.tensor([[1.0, 1.0], [-1.0, 1.0], [0.0, -2.0]]))
        >>> index, distance = codes.search(torch.tensor([[0.9, 1.1]]), k=2)
        >>> index.tolist(), distance.tolist()
        ([[0, 1]], [[0, 1]])
    """

    words: np.ndarray
    mean: Tensor

    @classmethod
    def of(cls, embeddings: Tensor) -> "BinaryCodes":
        """Index embeddings `(n, C)`.

        Raises:
            VitrailError: they have another shape, or values that are not finite.
        """
        if embeddings.ndim != 2 or not len(embeddings) or not bool(embeddings.isfinite().all()):
            raise VitrailError(f"Binary codes need finite embeddings (n, C), got {tuple(embeddings.shape)}.")
        mean = embeddings.float().mean(0)
        return cls(_signs(embeddings, mean), mean)

    def search(self, queries: Tensor, k: int = 10) -> tuple[Tensor, Tensor]:
        """Return indices and Hamming distances of the k nearest codes, each `(M, k)`; ties go to the lowest index.

        Args:
            queries: embeddings `(M, C)`.
            k: neighbors of each; at most the number of codes.

        Raises:
            VitrailError: the queries have other channels.
        """
        if queries.ndim != 2 or queries.shape[1] != len(self.mean):
            raise VitrailError(f"The codes have {len(self.mean)} channels, the queries {tuple(queries.shape)}.")
        k = min(k, len(self.words))
        indices, distances = [], []
        for word in _signs(queries, self.mean):
            parts = [self.words[at : at + _ROWS] ^ word for at in range(0, len(self.words), _ROWS)]
            apart = np.concatenate([np.bitwise_count(part).sum(1, dtype=np.int64) for part in parts])
            order = np.argsort(apart, kind="stable")[:k]
            indices.append(order)
            distances.append(apart[order])
        return torch.from_numpy(np.stack(indices)), torch.from_numpy(np.stack(distances))

    def save(self, path: Path, names: Sequence[str]) -> None:
        """Write the codes with a name for each to a file .npz."""
        buffer = io.BytesIO()
        np.savez(buffer, names=np.array(names, dtype=str), words=self.words, mean=self.mean.numpy())
        write_file(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> tuple["BinaryCodes", tuple[str, ...]]:
        """Read codes and names.

        Raises:
            DataError: it is no such file.
        """
        try:
            with np.load(path) as stored:
                names: list[str] = stored["names"].tolist()
                return cls(stored["words"], torch.from_numpy(stored["mean"])), tuple(names)
        except (ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
            raise DataError(f"{path} is no file of codes of `vitrail embed --codes`: {str(error)[:200]}.") from error

    @property
    def nbytes(self) -> int:
        """Bytes of the codes."""
        return self.words.nbytes


def _signs(embeddings: Tensor, mean: Tensor) -> np.ndarray:
    """Pack signs around the mean into words of 64 bits."""
    bits = (embeddings.detach().float().cpu() > mean.cpu()).numpy()
    rows = np.packbits(np.pad(bits, ((0, 0), (0, -bits.shape[1] % 64))), axis=1, bitorder="little")
    return np.ascontiguousarray(rows).view(np.uint64)
