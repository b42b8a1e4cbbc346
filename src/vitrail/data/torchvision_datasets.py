"""Published data sets by the names that torchvision gives them: `torchvision:CIFAR10@FOLDER`."""

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from vitrail.atomic_io import make_folder
from vitrail.data.dataset import Arrays, Files, ImageSet
from vitrail.data.image_io import printable
from vitrail.data.index import Split
from vitrail.errors import DataError, unknown

PREFIX = "torchvision:"
FOLDER = "data"
"""Where the data sets lie unless the name says otherwise."""

_Splits = Mapping[Split, dict[str, Any]]
_FLAG: _Splits = {"train": {"train": True}, "test": {"train": False}}
_TWO: _Splits = {"train": {"split": "train"}, "test": {"split": "test"}}
_THREE: _Splits = {**_TWO, "val": {"split": "val"}}
_ONE: _Splits = {"train": {}}

IN_MEMORY: dict[str, _Splits] = {
    "MNIST": _FLAG,
    "FashionMNIST": _FLAG,
    "KMNIST": _FLAG,
    "USPS": _FLAG,
    "CIFAR10": _FLAG,
    "CIFAR100": _FLAG,
    "SVHN": _TWO,
    "STL10": _TWO,
}
"""Data sets that torchvision reads into one array, and how it calls their splits."""

IN_FILES: dict[str, _Splits] = {
    "Country211": {**_TWO, "val": {"split": "valid"}},
    "DTD": _THREE,
    "EuroSAT": _ONE,
    "FGVCAircraft": _THREE,
    "Flowers102": _THREE,
    "Food101": _TWO,
    "Imagenette": {"train": {"split": "train"}, "val": {"split": "val"}},
    "RenderedSST2": _THREE,
    "SUN397": _ONE,
    "StanfordCars": _TWO,
}
"""Data sets that are folders of images; torchvision knows the labels, and we read the images."""


def open_torchvision(spec: str, download: bool) -> dict[Split, ImageSet]:
    """Open a data set of torchvision.

    Args:
        spec: `torchvision:NAME` or `torchvision:NAME@FOLDER`.
        download: let torchvision download missing files.

    Raises:
        VitrailError: no such data set.
        DataError: it is not in the folder, or broken.
    """
    name, _, folder = spec.removeprefix(PREFIX).partition("@")
    if name not in IN_MEMORY | IN_FILES:
        raise unknown("torchvision data set", name, [*IN_MEMORY, *IN_FILES])
    root = Path(folder or FOLDER).expanduser()
    parts = (IN_MEMORY | IN_FILES)[name]
    peers: dict[Split, Any] = {split: _open(name, root, download, options) for split, options in parts.items()}
    read = _from_memory if name in IN_MEMORY else _from_files
    found: dict[Split, tuple[list[str], np.ndarray, Any]] = {split: read(split, peer) for split, peer in peers.items()}
    classes = _classes(peers["train"], [labels for _, labels, _ in found.values()])
    sets: dict[Split, ImageSet] = {}
    for split, (ids, labels, store) in found.items():
        sets[split] = ImageSet(f"{name} {split}", classes, ids, labels, store)
    return sets


def _open(name: str, root: Path, download: bool, options: dict[str, Any]) -> Any:
    from torchvision import datasets

    if name in IN_FILES:
        options = {**options, "loader": Path}  # hand out paths: the images are read by `open_image`
    if download:
        make_folder(root)
    try:
        return getattr(datasets, name)(str(root), download=download, **options)
    except (RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise DataError(
            f"torchvision's {name} cannot be opened in {printable(root)}: {reason}.\n"
            + ("" if download else f"Download it (vitrail data check {quote(f'{PREFIX}{name}@{root}')} --download), ")
            + f"or name the folder that holds it: {PREFIX}{name}@FOLDER."
        ) from error


def _from_memory(split: str, peer: Any) -> tuple[list[str], np.ndarray, Any]:
    pixels = np.asarray(peer.data)
    if pixels.ndim == 3:
        pixels = pixels[:, None]  # (n, Y, X) -> (n, 1, Y, X)
    elif pixels.shape[-1] == 3:
        pixels = pixels.transpose(0, 3, 1, 2)  # (n, Y, X, C) -> (n, C, Y, X)
    labels = np.asarray(peer.targets if hasattr(peer, "targets") else peer.labels, dtype=np.int64)
    return [f"{split}/{number:05d}" for number in range(len(pixels))], labels, Arrays(pixels)


def _from_files(split: str, peer: Any) -> tuple[list[str], np.ndarray, Any]:
    places, labels = zip(*(peer[number] for number in range(len(peer))), strict=True)
    return [f"{split}/{printable(place.name)}" for place in places], np.asarray(labels), Files(places)


def _classes(train: Any, labels: list[np.ndarray]) -> tuple[str, ...]:
    named = getattr(train, "classes", None) or []
    count = int(max(part.max() for part in labels)) + 1
    return tuple(str(one) for one in named) if len(named) >= count else tuple(str(number) for number in range(count))
