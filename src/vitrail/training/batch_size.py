"""Search for the largest batch size that fits into memory.

On a CPU, running out of memory kills the process, so the limit is extrapolated: from some size on, the peak memory of a
step is linear in the batch size, and a few measured points give the line. On a GPU, running out of memory raises an
error, so the limit is found by trial.
"""

from collections.abc import Callable

import torch

from vitrail.errors import ResourceError
from vitrail.machine.host_memory import available, peak_of, resident, trim_on_free
from vitrail.training.probe import try_step, untouched
from vitrail.training.setup import default_batch_size
from vitrail.training.trainer import Trainer

SHARE = 0.6  # of the free memory may be in use; fragmentation added at most half as much (docs/log.md)
_VISIBLE = 256 * 2**20  # least increase in bytes that is above the noise
_STRAIGHT = 1.05  # slopes within this ratio belong to one line


def useful_batch(samples: int, parts: int = 1) -> int:
    """Return the largest useful global batch size: 32 updates per epoch, but no less than the default batch size.

    A batch of the whole training set makes one update per epoch: the memory would be full, and the model would learn
    next to nothing.

    Args:
        samples: size of the training set.
        parts: divisor of the batch size: processes times accumulation steps.

    Example:
        >>> [useful_batch(samples) for samples in (1_281_167, 50_000, 1_259, 40)]
        [40036, 1562, 128, 8]
    """
    return max(samples // 32 // parts * parts, default_batch_size(samples, parts))


def largest_batch(run: Trainer, most: int) -> int:
    """Return the largest global batch size of a run.

    Args:
        run: a trainer before its first update.
        most: upper limit of the result.

    Raises:
        ResourceError: not even one sample per process fits.
    """
    device, size, parts = run.world.device, run.world.size, run.config.grad_accum
    most //= size * parts
    with untouched(run):
        if device.type == "cuda":
            found = by_trial(lambda count: _fits(run, count * parts), most)
        else:
            with trim_on_free():
                limit = resident() + int(SHARE * available(device) / size)
                found = by_line(lambda count: _peak(run, count * parts), limit, most)
    found = int(-run.world.largest([-float(found)])[0])  # minimum over the ranks
    if found < 1:
        raise ResourceError(
            "Not one sample fits into the memory with this model.\n"
            "Use a smaller model, smaller samples (such as imgsz), or precision=bf16."
        )
    return _round(found) * parts * size


def by_line(peak: Callable[[int], int], limit: int, most: int) -> int:
    """Return the largest size with a memory below `limit`, from a line through the last two measured sizes.

    Peak memory is the maximum of several lines: that of weights and moments is constant, that of activations grows. So
    the line is fitted only after the last measurable bend.

    Args:
        peak: size -> peak memory in bytes; called with growing sizes, if possible only far below the limit.
        limit: bytes.
        most: upper limit of the result.

    Example:
        >>> by_line(lambda size: 10**9 + size * 10**7, limit=3 * 10**9, most=10**6)
        200
        >>> by_line(lambda size: max(15 * 10**8, 10**9 + size * 10**7), limit=3 * 10**9, most=10**6)
        200
    """
    size, low, before = 1, peak(1), 0.0
    if low > limit:
        return 0
    while size < most:
        double = min(2 * size, most)
        high = peak(double)
        slope = (high - low) / (double - size)
        bends = slope > _STRAIGHT * before
        near = slope > 0 and high + 2 * slope * double > limit
        if near and bends:
            double, high, slope = _further(peak, double, high, slope, limit, most)
        if near or (high - low > _VISIBLE and not bends):
            return max(min(int((limit - high) // slope) + double, most), 1)
        size, low, before = double, high, slope
    return most


def _further(
    peak: Callable[[int], int], size: int, low: int, slope: float, limit: int, most: int
) -> tuple[int, int, float]:
    """Return a size a quarter larger, its memory and the slope to it; the given values if it may not fit."""
    more = min(size + -(-size // 4), most)
    if more == size or low + slope * (more - size) > limit:
        return size, low, slope
    high = peak(more)
    return more, high, max(slope, (high - low) / (more - size))


def by_trial(fits: Callable[[int], bool], most: int) -> int:
    """Return a size that fits, at most 4 % below the largest: double until it fails, then bisect.

    Example:
        >>> by_trial(lambda size: size <= 100, most=1000)
        100
    """
    if not fits(1):
        return 0
    low = 1
    while 2 * low <= most and fits(2 * low):
        low *= 2
    if 2 * low > most and fits(most):
        return most
    high = min(2 * low, most)
    while high - low > max(1, low // 25):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _peak(run: Trainer, count: int) -> int:
    return peak_of(lambda: try_step(run, run.task.dummy_batch(count)), run.world.device)


def _fits(run: Trainer, count: int) -> bool:
    try:
        try_step(run, run.task.dummy_batch(count))
    except torch.OutOfMemoryError:
        return False
    finally:
        run.optimizer.zero_grad()
        torch.cuda.empty_cache()
    return True


def _round(count: int) -> int:
    return count // 8 * 8 if count >= 256 else count
