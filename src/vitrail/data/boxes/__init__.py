"""Images with boxes: COCO json, PASCAL VOC and YOLO text."""
