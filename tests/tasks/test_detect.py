"""Detection: the peer's boxes with the same weights, COCO's figures, and a run from training to report."""

import json

import numpy as np
import pytest
import torch
from box_data import draw_squares
from PIL import Image

import vitrail
from vitrail.cli import main
from vitrail.data.boxes.dataset import BoxRecord, BoxSet
from vitrail.data.boxes.open import open_boxes
from vitrail.errors import VitrailError
from vitrail.models import create_model
from vitrail.tasks.detect.average_precision import BINS, Histograms, match
from vitrail.tasks.detect.batches import BoxBatch, BoxSample, collate
from vitrail.tasks.detect.coco_eval import coco_figures, coco_results, ground_truth
from vitrail.tasks.detect.training import DetectionTraining
from vitrail.weights.load import load_weights

TINY = {"backbone": "vit_tiny_patch16_224", "channels": 16, "hidden": 16, "image_size": 64, "num_classes": 2}
TINY_VIT = {"dim": 16, "depth": 1, "num_heads": 2, "patch_size": 8}
SIDES = [(64, 40), (40, 64), (30, 64), (64, 64)]
SETTINGS = ["channels=16", "hidden=32", "dim=16", "depth=1", "num_heads=2", "patch_size=8"]


def test_same_weights_same_boxes_and_masks_as_torchvision():
    from torchvision.models.detection import MaskRCNN
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
    from torchvision.models.resnet import Bottleneck, ResNet

    torch.manual_seed(0)
    body = ResNet(Bottleneck, [1, 1, 1, 1])
    layers = {f"layer{i}": str(i - 1) for i in range(1, 5)}
    backbone = BackboneWithFPN(body, layers, [256, 512, 1024, 2048], 32)
    heads = {"box_head": TwoMLPHead(32 * 49, 24), "box_predictor": FastRCNNPredictor(24, 4)}
    heads |= {"mask_head": MaskRCNNHeads(32, (32,) * 4, 1), "mask_predictor": MaskRCNNPredictor(32, 32, 4)}
    peer = MaskRCNN(backbone, min_size=64, max_size=96, **heads).eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    own = {"backbone_config": {"depths": (1, 1, 1, 1)}, "channels": 32, "hidden": 24}
    ours = create_model("mask_rcnn_resnet50", **own, num_classes=3, image_size=96).eval()
    report = load_weights(ours, peer.state_dict())
    assert not report.kept and not report.adapted
    peer, ours = peer.double(), ours.double()  # random weights magnify the rounding of fp32
    with torch.no_grad():
        images, _ = peer.transform([torch.rand(3, 50, 75).double(), torch.rand(3, 70, 60).double()])
        features = peer.backbone(images.tensors)
        proposals, _ = peer.rpn(images, features)
        want, _ = peer.roi_heads(features, proposals, images.image_sizes)
        got = ours(images.tensors, images.image_sizes)
    assert sum(len(each.boxes) for each in got) > 20
    for theirs, mine in zip(want, got, strict=True):
        assert (theirs["labels"] - 1 == mine.labels).all()
        assert (theirs["boxes"] - mine.boxes).abs().max() < 1e-5 * 96
        assert (theirs["scores"] - mine.scores).abs().max() < 1e-5
        assert (theirs["masks"][:, 0] - mine.masks).abs().max() < 1e-5


def random_truth(rng, images=12, classes=3):
    records = []
    for number in range(images):
        count = int(rng.integers(0, 6))
        low = rng.integers(0, 60, (count, 2)).astype(float)
        boxes = np.concatenate([low, low + rng.integers(8, 90, (count, 2))], axis=1)
        ignore = rng.random(count) < 0.2
        records.append(BoxRecord(None, str(number), (200, 200), boxes, rng.integers(0, classes, count), ignore))
    return BoxSet("toy val", tuple("abc"[:classes]), records)


def random_detections(rng, data):
    scores = iter(rng.permutation(BINS)[:2000] / BINS)  # no two in one bin of the histograms
    found = []
    for number, record in enumerate(data.records):
        near = np.repeat(record.boxes, 3, axis=0)
        near = near + rng.normal(0, 4, near.shape)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        labels = np.where(rng.random(len(near)) < 0.8, np.repeat(record.labels, 3), rng.integers(0, 3, len(near)))
        found.append((number, near, np.array([next(scores) for _ in near]), labels))
    return found


def oracle_figures(truth, results):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    dataset = COCO()
    dataset.dataset = truth
    dataset.createIndex()
    oracle = COCOeval(dataset, dataset.loadRes(results), "bbox")
    oracle.evaluate()
    oracle.accumulate()
    oracle.summarize()
    return oracle.stats[:9]


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_that_of_pycocotools(seed, capsys):
    rng = np.random.default_rng(seed)
    data = random_truth(rng)
    found = random_detections(rng, data)
    truth, results = ground_truth(data), coco_results(found)
    stats = oracle_figures(truth, results)
    figures, _, _ = coco_figures(truth, results)
    assert np.allclose(list(figures.values()), stats, atol=1e-9)
    sums = Histograms(3)
    for (_, boxes, scores, labels), record in zip(found, data.records, strict=True):
        sums.add(boxes, scores, labels, record.boxes, record.labels, record.ignore)
    assert np.nanmean(sums.precision()) == pytest.approx(stats[0], abs=1e-9)


def test_sizes_of_objects_are_those_of_the_annotations(tmp_path, capsys):
    from vitrail.tasks.detect.evaluate import with_classes

    rng = np.random.default_rng(4)
    drawn = random_truth(rng, images=40)
    truth = ground_truth(drawn)
    for each in truth["annotations"]:
        each["area"] = each["bbox"][2] * each["bbox"][3] / 3
    (tmp_path / "val.json").write_text(json.dumps(truth))
    data = open_boxes(str(tmp_path / "val.json"), val_share=0).require("train")
    results = coco_results(random_detections(rng, drawn))
    figures, _, _ = coco_figures(ground_truth(data), results)
    want = oracle_figures(truth, results)
    assert (want[3:5] > 0).all() and np.allclose(list(figures.values()), want, atol=1e-9)
    assert figures["ap_small"] != coco_figures(ground_truth(drawn), results)[0]["ap_small"]
    turned = with_classes(data, data.classes[::-1])
    assert [record.areas.tolist() for record in turned.records] == [record.areas.tolist() for record in data.records]


def test_an_object_matches_once_and_crowds_are_ignored():
    box = np.array([[0.0, 0.0, 10.0, 10.0]])
    twice = match(np.repeat(box, 2, 0), box, np.array([False]), np.array([0.5]))
    assert twice.right.tolist() == [[True, False]] and not twice.ignored.any()
    crowd = match(np.repeat(box, 2, 0), box, np.array([True]), np.array([0.5]))
    assert crowd.ignored.all() and not crowd.right.any()


def test_no_detections_and_no_objects_have_stated_figures():
    data = random_truth(np.random.default_rng(0))
    assert coco_figures(ground_truth(data), [])[0]["ap"] == 0.0
    sums = Histograms(2)
    assert np.isnan(sums.precision()).all()


def test_micro_batches_hold_the_objects_of_their_images():
    counts = torch.tensor([2, 0, 1])
    batch = BoxBatch(
        torch.arange(3.0)[:, None, None, None].expand(3, 1, 4, 4),
        torch.full((3, 2), 4),
        torch.arange(12.0).reshape(3, 4),
        torch.arange(3),
        torch.zeros(3, dtype=torch.bool),
        counts,
        torch.zeros(0, 4, 4, dtype=torch.uint8),
        torch.arange(3),
    )
    parts = batch.split(2)
    assert [share for share, _ in parts] == [2 / 3, 1 / 3]
    assert [part.labels.tolist() for _, part in parts] == [[0, 1], [2]]
    assert len(batch.placeholder().targets().boxes[0]) == 0


def test_a_batch_is_cut_by_padded_size():
    sizes = torch.tensor([[40, 60], [33, 64], [20, 20], [64, 10]])
    batch = BoxBatch(
        torch.arange(4.0)[:, None, None, None].expand(4, 1, 64, 64),
        sizes,
        torch.arange(16.0).reshape(4, 4),
        torch.tensor([0, 1, 1, 3]),
        torch.zeros(4, dtype=torch.bool),
        torch.tensor([1, 2, 0, 1]),
        torch.zeros(4, 64, 64, dtype=torch.uint8),
        torch.arange(4),
    )
    parts = batch.by_padded_size()
    assert [(rows, tuple(part.images.shape[2:]), part.labels.tolist()) for rows, part in parts] == [
        ([0, 1], (64, 64), [0, 1, 1]),
        ([2], (32, 32), []),
        ([3], (64, 32), [3]),
    ]
    for rows, part in parts:
        assert part.index.tolist() == rows and part.masks.shape[1:] == part.images.shape[2:]
        assert torch.equal(part.sizes, sizes[rows]) and part.images[:, 0, 0, 0].tolist() == rows


def test_validation_does_not_depend_on_the_other_images_of_a_batch():
    """With global attention, padding that a wider image causes changed the boxes of the others."""
    torch.manual_seed(0)
    model = create_model("faster_rcnn", **TINY, backbone_config=TINY_VIT).eval()
    training = object.__new__(DetectionTraining)
    pixels = [np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8) for i, size in enumerate(SIDES)]
    samples = [BoxSample(x, np.array([[1.0, 2, 20, 25]]), np.array([0]), np.array([False]), None, 0) for x in pixels]
    with torch.no_grad():
        together = training.forward(model, collate(samples, model.preprocess))
        alone = [training.forward(model, collate([sample], model.preprocess)) for sample in samples]
    assert any(len(each.boxes) for each in together.found)
    for found, each in zip(together.found, alone, strict=True):
        torch.testing.assert_close(found.boxes, each.found[0].boxes, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["faster_rcnn", "mask_rcnn"])
def test_losses_reach_every_parameter_and_an_image_without_objects_is_trained_on(name):
    torch.manual_seed(0)
    model = create_model(name, **TINY, backbone_config=TINY_VIT).train()
    batch = BoxBatch(
        torch.randn(2, 3, 64, 64),
        torch.full((2, 2), 64),
        torch.tensor([[4.0, 4.0, 40.0, 40.0]]),
        torch.tensor([1]),
        torch.tensor([False]),
        torch.tensor([1, 0]),
        torch.ones(1 if name == "mask_rcnn" else 0, 64, 64, dtype=torch.uint8),
        torch.arange(2),
    )
    losses = model(batch.images, batch.image_sizes, batch.targets())
    sum(losses.values()).backward()
    assert len(losses) == (5 if name == "mask_rcnn" else 4)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    losses, found = model.eval()(batch.images, batch.image_sizes, batch.targets())
    assert len(found) == 2 and all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize(
    ("backbone", "numbers"),
    {
        "swin_tiny_patch4_window7_224": {"dim": 8, "depths": (1, 1), "num_heads": (2, 4)},
        "pvt_v2_b0": {
            "dims": (8, 16),
            "depths": (1, 1),
            "num_heads": (1, 2),
            "sr_ratios": (4, 2),
            "mlp_ratios": (2.0, 2.0),
        },
        "nat_mini": {"dim": 8, "depths": (1, 1), "num_heads": (2, 4), "kernel_size": 3},
        "poolformer_s12": {"dims": (8, 16), "depths": (1, 1)},
        "convnext_tiny": {"dims": (8, 16), "depths": (1, 1)},
        "resnet50": {"dim": 8, "depths": (1, 1)},
        "vit_tiny_patch16_224": TINY_VIT,
        "mixer_s32_224": {"dim": 16, "depth": 1, "patch_size": 8, "token_ratio": 1.0},
    }.items(),
)
def test_every_kind_of_backbone_detects(backbone, numbers):
    model = create_model("faster_rcnn", **{**TINY, "backbone": backbone}, backbone_config=numbers).eval()
    with torch.no_grad():
        [found] = model(torch.randn(1, 3, 64, 64))
    assert found.boxes.shape[1] == 4 and found.boxes.isfinite().all()
    assert model.preprocess.mean == create_model(backbone, **numbers).preprocess.mean


def run(words):
    return main([str(word) for word in words])


@pytest.mark.parametrize("detector", ["faster_rcnn", "mask_rcnn"])
def test_from_training_to_report_and_predictions(detector, tmp_path, capsys):
    data, out = draw_squares(tmp_path / "toy"), tmp_path / "run"
    train = ["train", data, "--task", "detect", "--model", "vit_tiny_patch16_224", "--detector", detector]
    train += ["--set", *SETTINGS, "--imgsz", 64, "--epochs", 2, "--batch", 4, "--precision", "fp32", "--out", out]
    assert run(train) == 0
    assert "map50" in (out / "results.csv").read_text().splitlines()[0]
    page = (out / "report.html").read_text()
    assert "AP50" in page and "Images with the most faults" in page
    capsys.readouterr()
    single = ["predict", out, data / "images" / "0.png", "--threshold", 0, "--json"]
    assert run(single) == 0
    alone = json.loads(capsys.readouterr().out.splitlines()[0])
    assert alone["width"] == 64 and {"label", "score", "box", "index"} == set(alone["objects"][0])
    assert run(["predict", out, data / "images", "--threshold", 0, "--json", "--batch", 5]) == 0
    together = json.loads(capsys.readouterr().out.splitlines()[0])
    for one, other in zip(alone["objects"], together["objects"], strict=True):
        assert np.allclose(one["box"], other["box"], atol=1e-2) and one["label"] == other["label"]


def test_classes_unknown_to_the_model_and_other_tasks_are_refused(tmp_path):
    from vitrail.tasks.detect.evaluate import with_classes

    data = random_truth(np.random.default_rng(0))
    assert with_classes(data, ("c", "b", "a")).counts() == dict(reversed(list(data.counts().items())))
    with pytest.raises(VitrailError, match="unknown to the model"):
        with_classes(data, ("a", "b"))


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1)])
def test_images_of_a_pixel_and_of_a_line_have_boxes_inside(size):
    torch.manual_seed(0)
    model = create_model("faster_rcnn", **TINY, backbone_config=TINY_VIT).eval()
    model.metadata = {"labels": ("square", "disc")}
    [found] = vitrail.predict(model, Image.new("RGB", size, (90, 9, 9)), threshold=0.0)
    assert found.error is None and found.size == size
    for left, top, right, bottom in found.boxes:
        assert 0 <= left <= right <= size[0] and 0 <= top <= bottom <= size[1]
    assert found.draw().size[0] >= 1 and found.to_dict()["width"] == size[0]


def test_an_image_without_objects_is_counted_drawn_and_saved(tmp_path):
    model = create_model("mask_rcnn", **TINY, backbone_config=TINY_VIT).eval()
    model.metadata = {"labels": ("square", "disc")}
    [none] = vitrail.predict(model, Image.new("RGB", (64, 48)), threshold=0.999)
    assert len(none) == 0 and none.to_dict()["objects"] == [] and none.draw().size == (64, 48)
    assert all(path.stat().st_size for path in none.save(tmp_path))
