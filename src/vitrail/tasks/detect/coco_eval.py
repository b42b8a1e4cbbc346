"""COCO's figures by faster-coco-eval: AP over overlaps, by size, and average recall."""

import contextlib
import io
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from vitrail.data.boxes.dataset import BoxSet
from vitrail.errors import VitrailError

FIGURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100")
"""The first nine of COCO's twelve figures, in its order."""


def require_library() -> ModuleType:
    """Return faster-coco-eval.

    Raises:
        VitrailError: it is not installed.
    """
    try:
        return import_module("faster_coco_eval")
    except ImportError as error:
        raise VitrailError(
            "Average precision is computed by faster-coco-eval, which is not installed.\n"
            "Install it with: pip install faster-coco-eval"
        ) from error


def ground_truth(data: BoxSet) -> dict[str, Any]:
    """Return a data set as COCO's dictionary; ids count from 1."""
    annotations: list[dict[str, Any]] = []
    for number, record in enumerate(data.records, 1):
        objects = zip(record.boxes, record.labels, record.ignore, record.areas, strict=True)
        for box, label, ignore, area in objects:
            (left, top), (wide, tall) = box[:2].tolist(), (box[2:] - box[:2]).tolist()
            each = {"id": len(annotations) + 1, "image_id": number, "category_id": int(label) + 1}
            annotations.append(each | {"bbox": [left, top, wide, tall], "area": float(area), "iscrowd": int(ignore)})
    images = [
        {
            "id": number,
            "file_name": record.id,
            "width": (record.size or (0, 0))[0],
            "height": (record.size or (0, 0))[1],
        }
        for number, record in enumerate(data.records, 1)
    ]
    categories = [{"id": place, "name": name} for place, name in enumerate(data.classes, 1)]
    return {"images": images, "annotations": annotations, "categories": categories, "info": {}, "licenses": []}


def coco_results(found: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]) -> list[dict[str, Any]]:
    """Return detections as COCO's list of results.

    Args:
        found: image number from 0, boxes `(n, 4)`, scores `(n,)`, class numbers from 0 `(n,)`.

    Example:
        >>> coco_results([(0, np.array([[1.0, 2.0, 4.0, 6.0]]), np.array([0.9]), np.array([0]))])
        [{'image_id': 1, 'category_id': 1, 'bbox': [1.0, 2.0, 3.0, 4.0], 'score': 0.9}]
    """
    return [
        {
            "image_id": number + 1,
            "category_id": int(label) + 1,
            "bbox": [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])],
            "score": float(score),
        }
        for number, boxes, scores, labels in found
        for box, score, label in zip(boxes, scores, labels, strict=True)
    ]


def coco_figures(
    truth: dict[str, Any], results: list[dict[str, Any]]
) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Return COCO's figures, the precision `(T, R, K)` at 101 recalls, and the recall `(T, K)`, areas and limits aside.

    A figure without objects (no small ones) is -1, as in COCO's own program.
    """
    library = require_library()
    classes = len(truth["categories"])
    if not results:
        none = np.zeros((10, 101, classes)), np.zeros((10, classes))
        return dict.fromkeys(FIGURES, 0.0 if truth["annotations"] else -1.0), *none
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = library.COCO(truth)
        run = library.COCOeval_faster(dataset, dataset.loadRes(results), "bbox", print_function=lambda *_: None)
        run.evaluate()
        run.accumulate()
        run.summarize()
    figures: dict[str, float] = dict(zip(FIGURES, map(float, run.stats[: len(FIGURES)]), strict=True))
    return figures, run.eval["precision"][:, :, :, 0, -1], run.eval["recall"][:, :, 0, -1]
