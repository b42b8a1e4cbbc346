"""Grad-CAM: its formula with a gradient by hand, and the package pytorch-grad-cam."""

import numpy as np
import pytest
import torch

from vitrail.errors import VitrailError
from vitrail.explain.gradcam import gradcam
from vitrail.explain.heatmap import heatmap
from vitrail.explain.options import ExplainOptions
from vitrail.models import create_model

_PVT = {"dims": (8, 16), "depths": (2, 2), "num_heads": (1, 2), "sr_ratios": (4, 1), "mlp_ratios": (2.0, 2.0)}
SMALL = {
    "vit": ("vit_tiny_patch16_224", {"depth": 3, "dim": 24, "num_heads": 3, "image_size": 64}),
    "deit": ("deit_tiny_distilled_patch16_224", {"depth": 2, "dim": 24, "num_heads": 3, "image_size": 64}),
    "swin": ("swin_tiny_patch4_window7_224", {"dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}),
    "pvt": ("pvt_tiny", {**_PVT, "image_size": 64}),
    "poolformer": ("poolformer_s12", {"dims": (8, 16), "depths": (1, 2)}),
}


def small(name: str):
    torch.manual_seed(1)
    variant, sizes = SMALL[name]
    model = create_model(variant, num_classes=5, **sizes).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_the_map_is_its_formula() -> None:
    model, images = small("vit"), torch.rand(2, 3, 64, 64)
    block = model.backbone.stages[0].blocks[-1]
    kept: list = []
    hook = block.register_forward_pre_hook(lambda module, arguments: kept.append(arguments))
    with torch.no_grad():
        model(images)
    hook.remove()
    x, grid = kept[0]
    with torch.enable_grad():
        normed = block.norm1(x).detach().requires_grad_()
        y = x + block.token_mixer(normed, grid)
        y = y + block.channel_mixer(block.norm2(y), grid)
        logits = model.head.linear(model.backbone.norm(y)[:, 0])
        (grad,) = torch.autograd.grad(logits[:, 2].sum(), normed)
    cells = (normed * grad[:, 1:].mean(1, keepdim=True)).sum(-1)[:, 1:].relu().unflatten(1, (grid.h, grid.w)).detach()
    cells = cells - cells.amin((1, 2), keepdim=True)
    place, found = gradcam(model, images, target=2)
    torch.testing.assert_close(found, cells / (cells.amax((1, 2), keepdim=True) + 1e-7), atol=1e-5, rtol=1e-4)
    assert place.block.address == "2" and found.shape == (2, 4, 4)


@pytest.mark.parametrize("name", ["swin", "pvt", "poolformer"])
def test_every_mixer_has_a_map(name: str) -> None:
    model = small(name)
    found = heatmap(model, torch.rand(1, 3, 64, 64), ExplainOptions("gradcam"))
    assert found.values.min() >= 0 and found.values.max() <= 1 and "Grad-CAM" in found.title
    with pytest.raises(VitrailError, match="classes 0 to 4"):
        gradcam(model, torch.rand(1, 3, 64, 64), target=5)


@pytest.mark.parametrize("name", ["vit", "deit", "swin"])
@pytest.mark.filterwarnings("ignore")
def test_it_agrees_with_the_package(name: str) -> None:
    package = pytest.importorskip("pytorch_grad_cam", reason="pip install grad-cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    model, images = small(name), torch.rand(2, 3, 64, 64)
    place, ours = gradcam(model, images, target=3)
    prefix, (rows, columns) = place.grid.prefix, (place.grid.h, place.grid.w)
    block = model.backbone.stages[place.block.stage].blocks[place.block.index]
    peer = package.GradCAM(
        model,
        [block.norm1],
        reshape_transform=lambda x: x[:, prefix:].unflatten(1, (rows, columns)).permute(0, 3, 1, 2),
    )
    peer.get_target_width_height = lambda tensor: (columns, rows)
    theirs = peer(images, [targets.ClassifierOutputTarget(3)] * 2)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)
