"""Images of a study as tensors: the embedded digits, or a data set of the user's, at one small size."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from vitrail.data.dataset import ImageSet
from vitrail.data.datasets import open_dataset
from vitrail.errors import DataError

MOST_TRAIN, MOST_TEST = 4000, 1000
"""Images that are read of a larger data set, the same ones each time."""


@dataclass(frozen=True, eq=False)
class StudyImages:
    """Images and labels of both splits.

    Args:
        name: of the data set.
        classes: number of classes K.
        side: side of the images in pixels.
        train: `(n, C, Y, X)`, mean 0 and deviation 1 over the training images.
        train_labels: `(n,)`.
        test: test images, scaled alike.
        test_labels: `(m,)`.
    """

    name: str
    classes: int
    side: int
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor

    @property
    def channels(self) -> int:
        """Channels C."""
        return self.train.shape[1]

    def take(self, count: int, seed: int) -> "StudyImages":
        """Return `count` training images, as many of each class as possible, drawn by the seed; the test set stays."""
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))
        labels = self.train_labels[order]
        places = torch.zeros_like(labels)
        for label in range(self.classes):
            mine = labels == label
            places[mine] = torch.arange(int(mine.sum()))
        chosen = order[places.argsort(stable=True)[:count]]
        return StudyImages(
            self.name,
            self.classes,
            self.side,
            self.train[chosen],
            self.train_labels[chosen],
            self.test,
            self.test_labels,
        )

    def at(self, side: int) -> Tensor:
        """Return the test images at another size."""
        return resized(self.test, side)


@lru_cache(maxsize=4)
def load_images(data: str, side: int, most: int | None = None) -> StudyImages:
    """Read a data set at one size.

    Args:
        data: `digits`, or what `vitrail train --data` takes.
        side: side of the images in pixels; other shapes are stretched.
        most: training images at most, and test images; by default `MOST_TRAIN` and `MOST_TEST`.

    Raises:
        DataError: there are fewer than two classes, or the data set cannot be read.
    """
    splits = open_dataset(data)
    if len(splits.classes) < 2:
        raise DataError(f"{splits.name} has {len(splits.classes)} class; a study needs two or more.")
    chosen = {split: _few(images, most or (MOST_TRAIN if split == "train" else MOST_TEST)) for split, images in splits}
    test = chosen.get("test") or chosen.get("val")
    if "train" not in chosen or test is None:
        raise DataError(f"{splits.name} needs images to train and to test on; it has {', '.join(chosen)}.")
    (train, labels), (held, held_labels) = _tensors(chosen["train"], side), _tensors(test, side)
    mean, std = train.mean((0, 2, 3), keepdim=True), train.std((0, 2, 3), keepdim=True).clamp_min(1e-6)
    return StudyImages(
        splits.name, len(splits.classes), side, (train - mean) / std, labels, (held - mean) / std, held_labels
    )


def _few(images: ImageSet, limit: int) -> ImageSet:
    if len(images) <= limit:
        return images
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:limit]
    return images.take(order.numpy())


def _tensors(images: ImageSet, side: int) -> tuple[Tensor, Tensor]:
    samples = [images[number] for number in range(len(images))]
    pixels = [resized(sample.image[None].float() / 255, side) for sample in samples]
    return torch.cat(pixels), torch.tensor([sample.label for sample in samples])


def resized(images: Tensor, side: int) -> Tensor:
    """Return images at a size: bilinear, with antialiasing where they shrink."""
    if images.shape[-2:] == (side, side):
        return images
    return interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turn (10°), scale (10 %) and shift (10 %) each image at random, without mirroring, which digits do not bear."""
    angle, scale, x, y = (2 * torch.rand(4, len(images), generator=generator) - 1) * torch.tensor(
        [[0.17], [0.1], [0.2], [0.2]]
    )
    cos, sin = angle.cos() * (1 + scale), angle.sin() * (1 + scale)
    matrix = torch.stack([torch.stack([cos, -sin, x], -1), torch.stack([sin, cos, y], -1)], 1)
    grid = affine_grid(matrix, list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)
