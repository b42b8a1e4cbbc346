"""A training run of a model that completes images: colours, pixel sequences, loss in nats per pixel."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitrail.data.dataset import ImageSet
from vitrail.data.datasets import Splits
from vitrail.data.image_io import ImageDecodeError
from vitrail.data.index import DataProblem, Split
from vitrail.data.packed import unreadable_images
from vitrail.data.sampler import ResumableSampler
from vitrail.data.token_windows import WindowBatch
from vitrail.errors import VitrailError
from vitrail.models import create_model, task_of
from vitrail.parts.model import Model
from vitrail.parts.pixel_model import PixelModel
from vitrail.tasks.complete.completion import PixelShape, to_pixels
from vitrail.tasks.complete.options import TrainOptions
from vitrail.tasks.language.metric import LanguageMetric, TextSize, language_loss
from vitrail.tasks.task import RunSpec, Share
from vitrail.tasks.text_models import meta_copy

_SAMPLED = 20_000


class PixelMetric(LanguageMetric):
    """Loss in nats per pixel, over all pixels."""

    def __init__(self, device: torch.device | str = "cpu"):
        super().__init__(TextSize(1, 1), device)

    def compute(self) -> dict[str, float]:
        """Return the loss, in nats and bits per pixel."""
        count, total = self.sums.tolist()
        return {"loss": total / count, "nats": total / count, "bits_per_pixel": total / count / float(np.log(2))}


class PixelLoader:
    """Batches of images as sequences of colours.

    Args:
        dataset: the images.
        ids: `(n, Y * X)` colours.
        start: id of the start token.
        order: sampler of the steps.
        skipped: reasons of the images that were left out, by name.
    """

    def __init__(
        self,
        dataset: ImageSet,
        ids: Tensor,
        start: int,
        order: ResumableSampler,
        skipped: Mapping[str, str] | None = None,
    ):
        self.dataset, self.ids, self.start, self.order = dataset, ids, start, order
        self.skipped = dict(skipped or {})

    @property
    def steps(self) -> int:
        """Steps an epoch, the same on every rank."""
        return self.order.steps

    def epoch(self, epoch: int = 0, start_step: int = 0) -> Iterator[WindowBatch]:
        """Yield this rank's batches from `start_step` on."""
        for index in self.order.batches(epoch, start_step):
            targets = self.ids[index].long()
            inputs = torch.cat([torch.full_like(targets[:, :1], self.start), targets[:, :-1]], dim=1)
            yield WindowBatch(inputs, targets, torch.from_numpy(index))


class CompletionTraining:
    """A model of pixels bound to images.

    Args:
        options: none of its own.
        run: data and model of the run.
        splits: the images.
    """

    unit = "pixels"

    def __init__(self, options: TrainOptions, run: RunSpec, splits: Splits):
        if task_of(run.variant) != "complete":
            raise VitrailError(f"{run.variant} does not complete images; see: vitrail models --task complete")
        torch.manual_seed(run.seed)
        model: Any = create_model(run.variant, weights=run.weights, **run.overrides)
        self.model: PixelModel = model
        self.model.task = "complete"
        bad = getattr(options, "bad", "fail")
        read = {split: read_pixels(each, self.model.config, bad) for split, each in splits if split != "test"}
        self.images = {split: images for split, (images, _, _) in read.items()}
        self.skipped = {split: {fault.id: fault.reason for fault in faults} for split, (_, _, faults) in read.items()}
        pixels = {split: each for split, (_, each, _) in read.items()}
        if run.weights is None:
            self.model.colors.copy_(find_colors(pixels["train"], len(self.model.colors), run.seed))
        self.ids = {split: quantise_all(self.model, images) for split, images in pixels.items()}

    def describe(self) -> str:
        """Return the numbers of images and colours."""
        config: Any = self.model.config
        return f"{len(self.ids['train']):,} images of {config.side} x {config.side} pixels, {config.colors} colours"

    def to(self, device: torch.device) -> None:
        """Move the model."""
        self.model.to(device)

    def loaders(self, share: Share, batch: int, eval_batch: int) -> tuple[PixelLoader, PixelLoader]:
        """Return the loaders of training and validation batches."""
        ranks: Any = {"rank": share.rank, "world": share.size}
        order = ResumableSampler(len(self.images["train"]), batch, share.seed, **ranks)
        still = ResumableSampler(len(self.images["val"]), eval_batch, shuffle=False, drop_last=False, **ranks)
        return self._loader("train", order), self._loader("val", still)

    def _loader(self, split: Split, order: ResumableSampler) -> PixelLoader:
        return PixelLoader(self.images[split], self.ids[split], self.model.start, order, self.skipped[split])

    def transform_batch(self, batch: WindowBatch, seed: int, step: int) -> WindowBatch:
        """Return the batch as it is."""
        return batch

    def forward(self, model: Model, batch: WindowBatch) -> Tensor:
        """Return the scores of each pixel's colours."""
        return model(batch.ids)

    def loss(self, outputs: Tensor, batch: WindowBatch) -> Tensor:
        """Return the mean loss of the pixels."""
        return language_loss(outputs, batch.targets)

    def metric(self, device: torch.device) -> PixelMetric:
        """Return an empty accumulator."""
        return PixelMetric(device)

    def dummy_batch(self, size: int) -> WindowBatch:
        """Return random images."""
        ids = torch.randint(self.model.start, (size, self.ids["train"].shape[1]))
        return WindowBatch(ids, ids, torch.arange(size))

    def metadata(self) -> dict[str, Any]:
        """Return nothing: the colours are in the state dict."""
        return {}

    def meta_model(self) -> Model:
        """Return the model on the meta device."""
        return meta_copy(self.model)


def read_pixels(images: ImageSet, config: PixelShape, bad: str = "fail") -> tuple[ImageSet, Tensor, list[DataProblem]]:
    """Read all images of a set.

    Args:
        images: the set.
        config: size and channels of the model.
        bad: `fail` raises for unreadable images, `skip` leaves them out.

    Returns:
        The images that were read, their pixels `(n, C, Y, X)` of uint8, and what was left out.

    Raises:
        DataError: an image cannot be read (with `bad="skip"`: none can).
    """
    mode = "L" if config.channels == 1 else "RGB"
    found, faults = dict[int, Tensor](), list[DataProblem]()
    for number in range(len(images)):
        try:
            found[number] = to_pixels(images.image(number, mode), config)
        except ImageDecodeError as error:
            faults.append(DataProblem(images.ids[number], error.reason, error.kind))
    if faults and (bad == "fail" or not found):
        raise unreadable_images(images.name, faults)
    pixels = (torch.stack(list(found.values())) * 255).round().byte()
    return images.take(list(found)) if faults else images, pixels, faults


def find_colors(pixels: Tensor, count: int, seed: int) -> Tensor:
    """Return the `count` centres of k-means over pixels, `(K, C)` in [0, 1], sorted.

    "Generative Pretraining from Pixels", section 3.1. Fewer different colours than centres repeat the last.

    Example:
        >>> pixels = torch.tensor([0, 0, 0, 255, 255], dtype=torch.uint8).reshape(1, 1, 1, 5)
        >>> find_colors(pixels, 2, seed=0).flatten().tolist()
        [0.0, 1.0]
    """
    flat = pixels.permute(0, 2, 3, 1).flatten(0, 2).numpy()
    chosen = flat[:: max(1, len(flat) // _SAMPLED)].astype(np.float64) / 255
    distinct = np.unique(chosen, axis=0)
    if len(distinct) > count:
        from sklearn.cluster import KMeans  # 140 MB and two seconds of imports

        once: Any = 1  # the stubs know only auto
        distinct = KMeans(count, n_init=once, random_state=seed).fit(chosen).cluster_centers_
    ordered = distinct[np.lexsort(distinct.T)]
    repeated = np.concatenate([ordered, np.repeat(ordered[-1:], count - len(ordered), axis=0)])
    return torch.from_numpy(repeated).float()


def quantise_all(model: Model, pixels: Tensor, batch: int = 256) -> Tensor:
    """Return the colours of images of uint8, `(n, Y * X)`."""
    return torch.cat([model.quantise(part.float() / 255).int() for part in pixels.split(batch)])
