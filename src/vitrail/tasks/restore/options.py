"""Options of restoration. No torch: the command line shows its help from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from vitrail.errors import VitrailError
from vitrail.tasks import options
from vitrail.tasks.options import Options, Range, check_choices, check_ranges

LOSSES = ("charbonnier", "l1", "l2")
CHANNELS = ("auto", "y", "rgb")
TILINGS = ("exact", "fast", "none")
METADATA = ("keep", "strip")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """Options of a training run that restores images."""

    SECTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "data": ("degradation", "patch", "patches", "val_images"),
        "augmentation": ("flips",),
        "optimisation": ("loss",),
    }

    degradation: str = "auto"
    """Degradation made on the fly for images without partners: bicubic, noise:25, noise:0-50, blur:0.2-2, jpeg:10-40,
    real-esrgan, or a chain such as blur:0.2-2+bicubic+noise:0-10; auto: bicubic for super-resolution, jpeg:10-40 for
    models with windows of 7, else noise:25."""
    patch: int = 48
    """Side of a training patch of the degraded image, in pixels."""
    patches: int = 16
    """Patches that an epoch cuts from each image."""
    val_images: int = 0
    """Images of a validation, the first of the split; 0 takes all."""
    flips: bool = True
    """Flip and rotate patches by quarter turns, both images of a pair alike."""
    loss: Literal["charbonnier", "l1", "l2"] = "charbonnier"
    """Loss of a pixel: charbonnier is sqrt(d^2 + 1e-6)."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, (Range("patch", 4), Range("patches", 1), Range("val_images", 0)))
        check_choices(self, {"loss": LOSSES})
        super().check()


@dataclass(frozen=True, kw_only=True)
class PredictOptions(options.PredictionOptions):
    """Options of restoring images."""

    tiling: Literal["exact", "fast", "none"] = "exact"
    """exact: tiles that overlap by the receptive field, equal to the whole image; fast: tiles with a small overlap that
    are blended, with the seam error measured; none: the whole image at once."""
    memory: float = 1.5
    """GiB that a forward pass may take; tiles are as large as that allows."""
    metadata: Literal["keep", "strip"] = "keep"
    """Keep or strip EXIF, resolution and text; the colour profile is always kept."""
    suffix: str = "_restored"
    """Added to the names of restored files."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, (Range("memory", 0, open_low=True),))
        check_choices(self, {"tiling": TILINGS, "metadata": METADATA})
        if set(self.suffix) & set("/\\\0"):
            raise VitrailError(f"suffix is {self.suffix!r}; it is part of a file name, and has no slash. Folder: --out")
        super().check()


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(options.EvaluationOptions):
    """Options of evaluating restoration."""

    degradation: str = "auto"
    """Degradation of images without partners; auto: that of the training, else as in `vitrail train`."""
    channel: Literal["auto", "y", "rgb"] = "auto"
    """Channels that PSNR and SSIM measure: luma (y) or all; auto: luma for super-resolution of colour images."""
    border: int | None = None
    """Pixels left out at each edge; default: the scale, 0 without upscaling."""
    tiling: Literal["exact", "fast", "none"] = "exact"
    """Tiling of large images; see `vitrail predict`."""
    memory: float = 1.5
    """GiB that a forward pass may take."""

    def check(self) -> None:
        """Check the values."""
        check_ranges(self, (Range("memory", 0, open_low=True), Range("border", 0)))
        check_choices(self, {"channel": CHANNELS, "tiling": TILINGS})
        super().check()
