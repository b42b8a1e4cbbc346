"""Evaluation of a restorer: degrade, restore, compare."""

from statistics import fmean
from time import perf_counter
from typing import Any

import numpy as np

from vitrail.data.degradations import Degradation, parse
from vitrail.data.restoration_set import RestorationSet, listed, pair_faults, unreadable
from vitrail.parts.model import Model
from vitrail.tasks.inference import device_of
from vitrail.tasks.restore.evaluation import ImageFigures, RestorationEvaluation, finite
from vitrail.tasks.restore.examples import bicubic_to, make_example
from vitrail.tasks.restore.metric import EQUAL, QualityProtocol, usual_protocol
from vitrail.tasks.restore.options import EvaluateOptions
from vitrail.tasks.restore.patches import whole_pair
from vitrail.tasks.restore.quality import psnr, ssim
from vitrail.tasks.restore.runner import choose_runner
from vitrail.tasks.restore.tiled_model import TiledModel
from vitrail.tasks.restore.training import usual_degradation
from vitrail.tasks.results import Notify, Progress
from vitrail.tasks.skipped import skipped_fields

EXAMPLES = 2
"""Images of the report at each end of the ranking."""


def evaluate_restorer(
    model: Model,
    images: RestorationSet,
    options: EvaluateOptions,
    notify: Notify = lambda choice: None,
    progress: Progress | None = None,
) -> RestorationEvaluation:
    """Evaluate a restorer on a set of images or pairs.

    Args:
        model: a restorer on its device.
        images: the true images, perhaps with degraded ones.
        options: degradation, protocol, tiling.
        notify: receives a line about the model that runs.
        progress: receives the numbers of images done and of all images.

    Raises:
        DataError: an image cannot be read, or a pair does not fit (with `bad="skip"`: none can be used).
    """
    started, scale, channels = perf_counter(), model.scale, model.config.in_channels
    used, skipped = _usable(images, scale, options.bad)
    degradation = parse(usual_degradation(model, options.degradation), scale)
    protocol = _protocol(options, scale, channels)
    precision: Any = options.precision
    run = choose_runner(model, precision, options.optimize, len(used), notify)
    tiled = TiledModel(model, options.tiling, options.memory, run)
    rows: list[ImageFigures] = []
    losses, seams = [], []
    for number in range(len(used)):
        low, high = whole_pair(used, number, degradation, channels)
        out, _, seam = tiled.restore(low, 255.0)
        rows.append(_figures(used.ids[number], low, out, high, protocol))
        losses.append(float(np.abs(out - high).mean()) / 255)
        seams.append(seam)
        if progress is not None:
            progress(number + 1, len(used))
    quality = [EQUAL if row.psnr is None else row.psnr for row in rows]
    order = sorted(range(len(rows)), key=quality.__getitem__)
    chosen = list(dict.fromkeys([*order[:EXAMPLES], *order[-EXAMPLES:]]))
    similar = [row.ssim for row in rows if row.ssim is not None]
    return RestorationEvaluation(
        model=model.variant,
        parameters=sum(value.numel() for value in model.parameters()),
        data=images.name,
        loss=fmean(losses),
        psnr=fmean(EQUAL if row.psnr is None else row.psnr for row in rows),
        ssim=fmean(similar) if similar else None,
        psnr_input=fmean(EQUAL if row.psnr_input is None else row.psnr_input for row in rows),
        images=tuple(rows),
        degradation="pairs" if images.lows is not None else usual_degradation(model, options.degradation),
        protocol=str(protocol),
        examples=tuple(_example(used, number, degradation, channels, tiled) for number in chosen),
        seconds=perf_counter() - started,
        tiling=_tiling(options.tiling, seams),
        device=f"{device_of(model)}, {getattr(run, 'precision', 'fp32')}",
        **skipped_fields(skipped),
    )


def _usable(images: RestorationSet, scale: int, bad: str) -> tuple[RestorationSet, list[str]]:
    faults = {fault.id: fault for fault in [*pair_faults(images, scale), *unreadable(images)]}
    if not faults:
        return images, []
    if bad == "fail" or len(faults) == len(images):
        raise listed(f"{len(faults)} images of {images.name} cannot be used", list(faults.values()))
    left_out = [str(file) in faults for file in images.files]
    used = images.take([number for number, out in enumerate(left_out) if not out])
    return used, [images.ids[number] for number, out in enumerate(left_out) if out]


def _protocol(options: EvaluateOptions, scale: int, channels: int) -> QualityProtocol:
    usual = usual_protocol(scale, channels)
    luma = usual.luma if options.channel == "auto" else options.channel == "y" and channels == 3
    return QualityProtocol(usual.border if options.border is None else options.border, luma)


def _figures(name: str, low: np.ndarray, out: np.ndarray, high: np.ndarray, protocol: QualityProtocol) -> ImageFigures:
    border = protocol.fitting(high.shape)
    before = bicubic_to(low, high.shape[:2])
    ratio, similar = (finite(measure(out, high, border, protocol.luma)) for measure in (psnr, ssim))
    return ImageFigures(name, ratio, similar, finite(psnr(before, high, border, protocol.luma)))


def _example(images: RestorationSet, number: int, degradation: Degradation, channels: int, tiled: TiledModel) -> Any:
    low, high = whole_pair(images, number, degradation, channels)
    return make_example(images.ids[number], low, tiled.restore(low, 255.0)[0], high)


def _tiling(tiling: str, seams: list[Any]) -> str:
    blended = [seam for seam in seams if seam.values]
    if not blended:
        return f"{tiling}, no seams"
    worst = max(255 * seam.largest for seam in blended)
    return f"{tiling}, seams {255 * fmean(seam.rms for seam in blended):.3f} rms, {worst:.1f} max of 255"
