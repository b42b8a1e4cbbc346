"""The largest batch that the memory holds.

On a CPU running out of memory kills the process, so nothing is tried that might: in the end, what a step uses is a
straight line in the size of the batch, and a few measured points give it. On a GPU running out is an error like any
other, so the limit is tried out.
"""

from collections.abc import Callable

import torch

from vitrail.errors import ResourceError
from vitrail.training.host_memory import available, peak_of, resident, trim_on_free
from vitrail.training.probe import try_step, untouched
from vitrail.training.setup import default_batch_size
from vitrail.training.trainer import Trainer

SHARE = 0.6  # of the memory that is left may be in use; what is kept between it was half as much at most (docs/log.md)
_VISIBLE = 256 * 2**20  # bytes that a batch must add to be told from the noise
_STRAIGHT = 1.05  # a line that gets steeper by less does not bend


def useful_batch(samples: int, parts: int = 1) -> int:
    """Return the largest global batch that leaves a useful number of updates: 32 an epoch, as long as it is not smaller
    than the usual one.

    A batch that is the whole training set makes one update an epoch: the memory would be full, and the model would
    learn next to nothing.

    Args:
        samples: size of the training set.
        parts: what the batch must be a multiple of: processes times accumulation steps.

    Example:
        >>> [useful_batch(samples) for samples in (1_281_167, 50_000, 1_259, 40)]
        [40036, 1562, 128, 8]
    """
    return max(samples // 32 // parts * parts, default_batch_size(samples, parts))


def largest_batch(run: Trainer, most: int) -> int:
    """Return the largest global batch for a run, in samples.

    Args:
        run: a session before its first update.
        most: never answer more.

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
    found = int(-run.world.largest([-float(found)])[0])  # the smallest of all processes
    if found < 1:
        raise ResourceError(
            "Not one sample fits into the memory with this model.\n"
            "Use a smaller model, smaller samples (such as imgsz), or precision=bf16."
        )
    return _round(found) * parts * size


def by_line(peak: Callable[[int], int], limit: int, most: int) -> int:
    """Return the largest size whose memory stays below `limit`, from a line through the last two measured sizes.

    The most that is held is the largest of several lines: what holds weights and moments does not grow, what holds
    activations does. So the line is drawn only behind the last bend that can be seen.

    Args:
        peak: size -> most bytes held; called with growing sizes, stopping long before the limit where it can.
        limit: bytes.
        most: never answer more.

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
    """Return a size a quarter larger, its memory and the slope to it; what is given where that may not fit."""
    more = min(size + -(-size // 4), most)
    if more == size or low + slope * (more - size) > limit:
        return size, low, slope
    high = peak(more)
    return more, high, max(slope, (high - low) / (more - size))


def by_trial(fits: Callable[[int], bool], most: int) -> int:
    """Return a size that fits, at most 4 % below the largest: double until it fails, then halve the gap.

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
