"""A training run that restores images: its patches, degradation, loss and metric."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vitrail.data.degradations import parse
from vitrail.data.restoration_set import RestorationSet, RestorationSplits, listed, pair_faults
from vitrail.data.sampler import ResumableSampler
from vitrail.errors import VitrailError
from vitrail.models import create_model, find, list_models
from vitrail.parts.model import Model
from vitrail.tasks.restore.metric import RestorationMetric, usual_protocol
from vitrail.tasks.restore.options import TrainOptions
from vitrail.tasks.restore.patches import PatchLoader, PatchSet, RestoreBatch, WholePairs
from vitrail.tasks.task import RunSpec, Share


def charbonnier(output: Tensor, truth: Tensor) -> Tensor:
    """Return the mean of `sqrt(d² + 1e-6)`, a smooth L1.

    Example:
        >>> round(charbonnier(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 0.0])).item(), 3)
        2.0
    """
    return ((output.float() - truth) ** 2 + 1e-6).sqrt().mean()


def l1(output: Tensor, truth: Tensor) -> Tensor:
    """Return the mean absolute error.

    Example:
        >>> l1(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 0.0])).item()
        2.0
    """
    return (output.float() - truth).abs().mean()


def l2(output: Tensor, truth: Tensor) -> Tensor:
    """Return the mean squared error, which maximises PSNR.

    Example:
        >>> l2(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 0.0])).item()
        5.0
    """
    return ((output.float() - truth) ** 2).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"charbonnier": charbonnier, "l1": l1, "l2": l2}


class RestorationTraining:
    """A restoration model bound to image sets.

    Args:
        options: degradation, patches and loss.
        run: data and model of the run.
        splits: the image sets.
    """

    unit = "images"

    def __init__(self, options: TrainOptions, run: RunSpec, splits: RestorationSplits):
        self.options, self.splits = options, splits
        self.model = build_restorer(run)
        self.channels: int = self.model.config.in_channels
        self.degradation = parse(usual_degradation(self.model, options.degradation), self.model.scale)
        self.loss_of = LOSSES[options.loss]
        self.train = self._fitting(splits.require("train"), options.patch)
        self.val = self._fitting(splits.require("val"), 1)
        if options.val_images:
            self.val = self.val.take(range(min(options.val_images, len(self.val))))

    def _fitting(self, images: RestorationSet, patch: int) -> RestorationSet:
        """Return the images that can be trained on; with `bad="fail"` all of them must be."""
        faults = pair_faults(images, self.model.scale, patch)
        bad = {fault.id for fault in faults}
        if faults and (getattr(self.options, "bad", "fail") == "fail" or len(bad) == len(images)):
            raise listed(f"{len(faults)} images of {images.name} cannot be used", faults)
        self.splits.skipped = [*self.splits.skipped, *faults]
        return images.take([n for n, file in enumerate(images.files) if str(file) not in bad]) if faults else images

    def describe(self) -> str:
        """Return the numbers of images and patches."""
        skipped = f", {len(self.splits.skipped)} left out" if self.splits.skipped else ""
        made = self.options.degradation if self.train.lows is None else "pairs"
        return f"{len(self.train):,} images, {len(self.train) * self.options.patches:,} patches ({made}){skipped}"

    def to(self, device: torch.device) -> None:
        """Move the model."""
        self.model.to(device)

    def loaders(self, share: Share, batch: int, eval_batch: int) -> tuple[PatchLoader, WholePairs]:
        """Return the loaders of training patches and of validation images."""
        o = self.options
        ranks: Any = {"rank": share.rank, "world": share.size}
        patches = PatchSet(self.train, self.degradation, self.channels, o.patch, o.patches, o.flips, share.seed)
        order = ResumableSampler(len(patches), batch, share.seed, **ranks)
        still = ResumableSampler(len(self.val), share.size, shuffle=False, drop_last=False, **ranks)
        return (
            PatchLoader(patches, order, share.workers),
            WholePairs(self.val, self.degradation, self.channels, still),
        )

    def transform_batch(self, batch: RestoreBatch, seed: int, step: int) -> RestoreBatch:
        """Return the batch: patches are drawn and degraded by the loader."""
        return batch

    def forward(self, model: Model, batch: RestoreBatch) -> Tensor:
        """Return restored images."""
        return model(batch.low)

    def loss(self, outputs: Tensor, batch: RestoreBatch) -> Tensor:
        """Return the mean loss of the pixels."""
        return self.loss_of(outputs, batch.high)

    def metric(self, device: torch.device) -> RestorationMetric:
        """Return an empty accumulator."""
        return RestorationMetric(self.loss_of, usual_protocol(self.model.scale, self.channels), device)

    def dummy_batch(self, size: int) -> RestoreBatch:
        """Return random patches."""
        low, high = (
            torch.rand(size, self.channels, s, s) for s in (self.options.patch, self.options.patch * self.model.scale)
        )
        return RestoreBatch(low, high, torch.arange(size))

    def metadata(self) -> dict[str, Any]:
        """Return the degradation that the model was trained for."""
        return {"degradation": usual_degradation(self.model, self.options.degradation)}

    def meta_model(self) -> Model:
        """Return the model on the meta device."""
        with torch.device("meta"):
            shell: Any = find(self.model.variant).build(self.model.config)
        shell.variant, shell.config = self.model.variant, self.model.config
        return shell


def build_restorer(run: RunSpec) -> Model:
    """Build the model of a run.

    Raises:
        VitrailError: the variant does not restore images.
    """
    names = list_models(task="restore")
    if run.variant not in names:
        raise VitrailError(f"{run.variant} does not restore images. Choose --model from: {', '.join(names)}.")
    torch.manual_seed(run.seed)
    return create_model(run.variant, weights=run.weights, **run.overrides)


def usual_degradation(model: Model, given: str = "auto") -> str:
    """Return the degradation given, else that of the model's training, else the usual one of its kind."""
    if given != "auto":
        return given
    learned = getattr(model, "metadata", {}).get("degradation")
    if learned:
        return str(learned)
    if model.scale > 1:
        return "bicubic"
    return "jpeg:10-40" if getattr(model.config, "window_size", 8) == 7 else "noise:25"
