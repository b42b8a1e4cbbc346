"""The embedded data: real handwriting, in a package that is installed anyway.

1,797 digits of 8x8 pixels, 43 people's hands: the test half of "Optical Recognition of Handwritten Digits" (Alpaydin
and Kaynak, 1998), as scikit-learn ships it.
"""

from typing import Any

import numpy as np

from vitrail.data.dataset import Arrays, ImageSet
from vitrail.data.holdout import hold_out
from vitrail.data.index import Split

_TEST_SHARE, _VAL_SHARE = 0.2, 0.125


def digits() -> dict[Split, ImageSet]:
    """Return the digits: one channel of 8x8, values 0..16 scaled to 0..255; 70 % train, 10 % val, 20 % test.

    Example:
        >>> {split: len(images) for split, images in digits().items()}
        {'train': 1259, 'val': 179, 'test': 359}
    """
    from sklearn.datasets import load_digits  # a second to import, for one data set

    bunch: Any = load_digits()
    pixels = np.rint(np.asarray(bunch.images) * (255 / 16)).astype(np.uint8)[:, None]  # (n, Y, X) -> (n, 1, Y, X)
    ids = [f"digits/{number:04d}" for number in range(len(pixels))]
    classes = tuple(str(name) for name in bunch.target_names)
    everything = ImageSet("digits train", classes, ids, np.asarray(bunch.target), Arrays(pixels))
    rest, test = hold_out(everything, _TEST_SHARE, "test")
    train, val = hold_out(rest, _VAL_SHARE, "val")
    return {"train": train, "val": val, "test": test}
