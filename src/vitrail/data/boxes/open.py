"""Open a data set of images with boxes, in whichever of three layouts it is."""

from pathlib import Path

import numpy as np

from vitrail.data.boxes.coco import find_coco, read_coco
from vitrail.data.boxes.dataset import BoxSplits
from vitrail.data.boxes.voc import find_voc, read_voc
from vitrail.data.boxes.yolo import find_yolo, read_yolo
from vitrail.data.stateless_rng import BatchRng
from vitrail.errors import DataError, VitrailError


def open_boxes(spec: str, val_share: float = 0.1) -> BoxSplits:
    """Open a folder or file of PASCAL VOC, COCO or YOLO annotations.

    Without a split `val`, a share of `train` is held out: a function of the images' names alone.

    Args:
        spec: a VOC folder, a folder with COCO files or such a file, a folder or YAML file of YOLO.
        val_share: share of `train` that is held out if there is no `val`; 0 leaves it whole.

    Raises:
        VitrailError: there is nothing at that path.
        DataError: it is in none of the layouts, or faulty.
    """
    root = Path(spec)
    if not spec or not root.exists():
        raise VitrailError(
            f"There is no data at '{spec}'. Give a PASCAL VOC folder (Annotations, JPEGImages), a folder with COCO\n"
            "json files (train.json, val.json), or a YOLO folder or data.yaml."
        )
    name = root.stem if root.is_file() else root.resolve().name
    if (voc := find_voc(root)) is not None:
        splits = read_voc(voc, name)
    elif coco := find_coco(root):
        splits = read_coco(coco, root, name)
    elif (yolo := find_yolo(root)) is not None:
        splits = read_yolo(yolo, name)
    else:
        raise DataError(
            f"{root} has no boxes in a layout that is read: PASCAL VOC (Annotations/*.xml, JPEGImages), COCO (*.json\n"
            "with images, annotations, categories) or YOLO (data.yaml or classes.txt, images/, labels/)."
        )
    return hold_out(splits, val_share)


def hold_out(splits: BoxSplits, share: float) -> BoxSplits:
    """Hold out a share of `train` as `val` if there is none."""
    if "val" in splits.parts or share <= 0 or "train" not in splits.parts:
        return splits
    whole = splits.parts["train"]
    count = max(1, round(share * len(whole)))
    if count >= len(whole):
        raise DataError(f"{whole.name} has {len(whole)} images; one for training and one for validation are needed.")
    draws = BatchRng(0, 0, np.arange(len(whole))).uniform("hold out")
    held = set(np.argsort(draws, kind="stable")[:count].tolist())
    parts = dict(splits.parts)
    parts["train"] = whole.take([i for i in range(len(whole)) if i not in held], whole.name)
    parts["val"] = whole.take(sorted(held), f"{splits.name} val")
    return BoxSplits(splits.name, splits.classes, parts)
