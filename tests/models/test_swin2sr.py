"""Swin2SR against Hugging Face's, through its files and the authors' names."""

from pathlib import Path

import pytest
import torch
from small_models import relative
from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution

from vitrail.errors import VitrailError
from vitrail.models import create_model
from vitrail.parts.restorer_reach import reach
from vitrail.weights.formats.swin2sr import FORMATS
from vitrail.weights.from_checkpoint import from_checkpoint

KINDS = {
    "swin2sr_classical_x2": {"upscale": 2},
    "swin2sr_classical_x4": {"upscale": 4},
    "swin2sr_light_x2": {"upscale": 2, "upsampler": "pixelshuffledirect"},
    "swin2sr_real_x4": {"upscale": 4, "upsampler": "nearest+conv"},
}


def peer(window: int = 4, **fields):
    sizes = {"depths": [2, 1], "num_heads": [2, 2], "embed_dim": 12, "window_size": window}
    model = Swin2SRForImageSuperResolution(Swin2SRConfig(**sizes, **fields)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@torch.no_grad()
@pytest.mark.parametrize("name", KINDS)
def test_the_image_is_that_of_hugging_face(name: str, tmp_path: Path) -> None:
    theirs = peer(**KINDS[name])
    theirs.save_pretrained(tmp_path)
    found = from_checkpoint(tmp_path)
    assert (found.format, found.model.variant) == ("huggingface", name)
    images = torch.rand(2, 3, 16, 24)
    assert relative(found.model.eval()(images), theirs(images).reconstruction) <= 1e-5
    if "direct" in KINDS[name].get("upsampler", ""):
        with pytest.raises(VitrailError, match="not written for transformers"):
            FORMATS[0].write(found.model.state_dict(), found.model.config)
        return
    written = FORMATS[0].write(found.model.state_dict(), found.model.config)
    state = theirs.state_dict()
    assert not written.unexpected and not written.incomplete and written.tensors.keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in written.tensors.items())


@torch.no_grad()
@pytest.mark.parametrize("name", KINDS)
def test_a_file_of_the_authors_opens_at_its_own_sizes(name: str) -> None:
    model = create_model(name, dim=12, depths=(2, 1), num_heads=2).eval()
    tensors = FORMATS[1].write(model.state_dict(), None).tensors
    tables = {
        f"layers.{s}.residual_group.blocks.0.attn.relative_coords_table": torch.zeros(1, 15, 15, 2) for s in (0, 1)
    }
    found = from_checkpoint({**tensors, **tables})
    assert (found.format, found.model.config) == ("official", model.config)
    images = torch.rand(1, 3, 9, 17)  # of any size, which Hugging Face's refuses
    assert torch.equal(found.model.eval()(images), model(images))
    with pytest.raises(VitrailError, match="windows of 4"):
        from_checkpoint({**tensors, **{key: torch.zeros(1, 7, 7, 2) for key in tables}})


def test_unsupported_upsamplers_are_refused(tmp_path: Path) -> None:
    peer(upscale=1, upsampler="").save_pretrained(tmp_path)
    with pytest.raises(VitrailError, match="RGB mean twice"):
        from_checkpoint(tmp_path)
    with pytest.raises(VitrailError, match="upsampler"):
        create_model("swin2sr_classical_x2", upsampler="pixelshuffle_aux")


def test_its_receptive_field_is_that_of_its_windows() -> None:
    with torch.device("meta"):
        assert reach(create_model("swin2sr_classical_x2")) == reach(create_model("swinir_classical_x2"))
