"""DINOv2 in the authors' names: the place of the class token is folded, the token of masked patches is dropped."""

import torch

from vitrail.models import create_model
from vitrail.weights.detect import detect
from vitrail.weights.formats import write_as
from vitrail.weights.load import load_weights

SMALL = dict(depth=1, dim=24, num_heads=3, num_classes=5, image_size=28)


def authors(name: str) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """Build a model and its tensors as the authors keep them, with a place for the class token."""
    model = create_model(name, **SMALL).eval()
    for step in model.backbone.embedding.steps:
        torch.nn.init.normal_(next(step.parameters()))  # the first values of a class token are too small to compare
    theirs = write_as("timm", "dinov2", model.state_dict(), model.config)
    theirs["mask_token"] = torch.zeros(1, 24)
    if "reg_token" in theirs:
        place = torch.randn(1, 1, 24)
        theirs["register_tokens"] = theirs.pop("reg_token")
        theirs["cls_token"], theirs["pos_embed"] = (
            theirs["cls_token"] - place,
            torch.cat([place, theirs["pos_embed"]], 1),
        )
    return model, theirs


def test_with_registers_the_place_of_the_class_token_is_folded_into_it():
    model, theirs = authors("vit_small_patch14_reg4_dinov2")
    other, images = create_model("vit_small_patch14_reg4_dinov2", **SMALL).eval(), torch.randn(2, 3, 28, 28)
    assert load_weights(other, theirs).format == "official"
    torch.testing.assert_close(other(images), model(images))


def test_without_registers_the_names_are_timms_and_a_mask_token_is_dropped():
    model, theirs = authors("vit_small_patch14_dinov2")
    found = detect(theirs)
    assert found.format.name == "official" and not found.mapped.unexpected
    other, images = create_model("vit_small_patch14_dinov2", **SMALL).eval(), torch.randn(2, 3, 28, 28)
    load_weights(other, theirs)
    assert torch.equal(other(images), model(images))


def test_the_authors_name_the_layers_of_swiglu_otherwise():
    model, theirs = authors("vit_giant_patch14_reg4_dinov2")
    renamed = {key.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): value for key, value in theirs.items()}
    other, images = create_model("vit_giant_patch14_reg4_dinov2", **SMALL).eval(), torch.randn(2, 3, 28, 28)
    load_weights(other, renamed)
    torch.testing.assert_close(other(images), model(images))
