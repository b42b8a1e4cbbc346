"""Faster and Mask R-CNN on ResNet: torchvision, with its present and its earlier key names."""

from vitrail.weights.formats import resnet
from vitrail.weights.keymap import Format, Rule

_BODY = tuple(
    Rule(f"backbone.body.{rule.theirs}", rule.ours, rule.operation)
    for rule in resnet.TORCHVISION
    if not str(rule.ours).startswith("head")
)
_FAMILIES = ("faster_rcnn", "mask_rcnn")
_HEADS = (
    Rule(
        "roi_heads.{box_head|box_predictor|mask_predictor}.{*}",
        "head.roi_heads.{box_head|box_predictor|mask_predictor}.{*}",
    ),
    Rule("rpn.head.{cls_logits|bbox_pred}.{weight|bias}", "head.rpn.head.{cls_logits|bbox_pred}.{weight|bias}"),
)
_PRESENT = (
    *_BODY,
    *_HEADS,
    Rule(
        "backbone.fpn.{inner_blocks|layer_blocks}.{i}.0.{weight|bias}",
        "head.fpn.{inner_blocks|layer_blocks}.{i}.0.{weight|bias}",
    ),
    Rule("rpn.head.conv.0.0.{weight|bias}", "head.rpn.head.conv.0.0.{weight|bias}"),
    Rule("roi_heads.mask_head.{i}.0.{weight|bias}", "head.roi_heads.mask_head.{i}.0.{weight|bias}"),
)
_EARLIER = (
    *_BODY,
    *_HEADS,
    Rule(
        "backbone.fpn.{inner_blocks|layer_blocks}.{i}.{weight|bias}",
        "head.fpn.{inner_blocks|layer_blocks}.{i}.0.{weight|bias}",
    ),
    Rule("rpn.head.conv.{weight|bias}", "head.rpn.head.conv.0.0.{weight|bias}"),
    Rule("roi_heads.mask_head.mask_fcn{i+1}.{weight|bias}", "head.roi_heads.mask_head.{i}.0.{weight|bias}"),
)
_MARKS = ("backbone.body.layer1.0.conv3.weight", "roi_heads.box_head.fc6.weight")

FORMATS = (
    Format("torchvision", _FAMILIES, _PRESENT, (*_MARKS, "rpn.head.conv.0.0.weight")),
    Format("torchvision", _FAMILIES, _EARLIER, (*_MARKS, "rpn.head.conv.weight"), writes=False),
)
