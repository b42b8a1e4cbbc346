"""Detections from and to the package supervision, whose annotators and trackers take them."""

from importlib import import_module
from typing import Any

import numpy as np

from vitrail.errors import ResourceError
from vitrail.tasks.detect.result import Detections


def to_supervision(found: Detections) -> object:
    """Return the objects of one image as `supervision.Detections`, in the same order.

    Raises:
        ResourceError: the package supervision is not installed.
    """
    try:
        supervision: Any = import_module("supervision")
    except ImportError as error:
        raise ResourceError("The package supervision is needed: pip install supervision") from error
    return supervision.Detections(
        xyxy=np.array(found.boxes, dtype=np.float32).reshape(-1, 4),
        mask=found.masks,
        confidence=np.array(found.scores, dtype=np.float32),
        class_id=np.array(found.indices, dtype=int),
        data={"class_name": np.array(found.labels, dtype=str)},
    )


def from_supervision(found: Any, path: str, size: tuple[int, int]) -> Detections:
    """Return `supervision.Detections` as ours, best first.

    Args:
        found: objects of one image; without confidences all have 1, without names the class numbers name them.
        path: file of the image.
        size: width and height of the image.
    """
    scores = np.ones(len(found)) if found.confidence is None else np.asarray(found.confidence, dtype=float)
    order = np.argsort(-scores, kind="stable")
    indices = np.zeros(len(found), dtype=int) if found.class_id is None else np.asarray(found.class_id)
    names = found.data.get("class_name", [str(index) for index in indices])
    return Detections(
        path,
        tuple(str(names[i]) for i in order),
        tuple(float(scores[i]) for i in order),
        tuple(tuple(float(v) for v in found.xyxy[i]) for i in order),  # pyright: ignore[reportArgumentType]
        tuple(int(indices[i]) for i in order),
        size,
        None if found.mask is None else np.asarray(found.mask)[order],
    )
