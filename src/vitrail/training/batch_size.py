"""The largest batch that the memory holds.

On a CPU running out of memory kills the process, so nothing is tried that might: memory is a straight line in the size
of the batch, and two measured points give it. On a GPU it is an error like any other, so the limit is tried out.
"""

from collections.abc import Callable

import torch

from vitrail.errors import ResourceError
from vitrail.training.memory import available, peak_of, resident
from vitrail.training.session import Session
from vitrail.training.trial import fake_batch, try_step, untouched

SHARE = 0.88  # of the memory that is left; the line was seen to fall short by up to a tenth
_VISIBLE = 256 * 2**20  # bytes that a batch must add to be told from the noise


def largest_batch(run: Session) -> int:
    """Return the largest global batch for a run, in pictures; at most the training set.

    Raises:
        ResourceError: not even one picture for each process fits.
    """
    device, size = run.world.device, run.world.size
    most = len(run.train_data.dataset) // size
    with untouched(run):
        if device.type == "cuda":
            found = by_trial(lambda count: _fits(run, count), most)
        else:
            limit = resident() + int(SHARE * available(device) / size)
            found = by_line(lambda count: peak_of(lambda: try_step(run, fake_batch(run, count)), device), limit, most)
    found = int(-run.world.largest([-float(found)])[0])  # the smallest of all processes
    if found < 1:
        raise ResourceError(
            f"Not one picture of {run.preprocess.size} pixels fits into the memory with this model.\n"
            "Use a smaller model or smaller pictures (imgsz), or precision=bf16."
        )
    return _round(found * run.config.grad_accum if found < most else found) * size


def by_line(peak: Callable[[int], int], limit: int, most: int) -> int:
    """Return the largest size whose memory stays below `limit`, from a line through two measured sizes.

    Args:
        peak: size -> most bytes held; called with growing sizes, stopping long before the limit.
        limit: bytes.
        most: never answer more.

    Example:
        >>> by_line(lambda size: 10**9 + size * 10**7, limit=3 * 10**9, most=10**6)
        200
    """
    size, low = 1, peak(1)
    if low > limit:
        return 0
    while True:
        double = min(2 * size, most)
        if double <= size:
            return most
        high = peak(double)
        slope = (high - low) / (double - size)
        if high - low > _VISIBLE or (slope > 0 and high + 2 * slope * double > limit):
            return max(min(int((limit - high) / slope) + double, most), 1)
        size, low = double, high


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


def _fits(run: Session, count: int) -> bool:
    try:
        try_step(run, fake_batch(run, count))
    except torch.OutOfMemoryError:
        return False
    finally:
        run.optimizer.zero_grad()
        torch.cuda.empty_cache()
    return True


def _round(count: int) -> int:
    return count // 8 * 8 if count >= 256 else count
