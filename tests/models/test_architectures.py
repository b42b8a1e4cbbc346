"""Contract of every image architecture, whatever its parts."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_models import ANY_SIZE, SMALL, relative, small

from vitrail.errors import VitrailError
from vitrail.parts.attention_pooling import AttentionPooling
from vitrail.parts.heads import NormedMean
from vitrail.parts.latents import QueryHead
from vitrail.parts.sequence_pool import SequencePool

every_model = pytest.mark.parametrize("name", SMALL)
any_size_model = pytest.mark.parametrize("name", ANY_SIZE)


@every_model
def test_features_have_one_layout(name):
    model, images = small(name), torch.randn(2, 3, 64, 64)
    tokens, grid, pyramid = features = model.features(images)
    maps = [(2, 64 // s, 64 // s) for s in SMALL[name].strides] or [(2, 1, SMALL[name].latents)]
    assert [tuple(m.shape[:3]) for m in pyramid] == maps
    assert (grid.h, grid.w, grid.prefix) == (*pyramid[-1].shape[1:3], SMALL[name].prefix)
    assert tokens.shape == (2, grid.tokens, pyramid[-1].shape[3])
    assert torch.equal(model.head(features), model(images))


@every_model
def test_outputs_do_not_depend_on_the_batch(name):
    model, images = small(name), torch.randn(3, 3, 64, 64)
    together = model(images)
    for i in range(3):
        assert relative(model(images[i : i + 1])[0], together[i]) <= 1e-5


@any_size_model
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 40), (17, 96), (5, 8)])
def test_any_size(name, size):
    model, images = small(name), torch.randn(1, 3, *size)
    tokens, grid, pyramid = model.features(images)
    assert tokens.shape[1] == grid.tokens
    assert all(m.shape[1] >= 1 and m.shape[2] >= 1 for m in pyramid)
    assert model(images).isfinite().all()


@pytest.mark.parametrize("name", ["vit", "deit distilled", "swin official", "swin timm"])
def test_images_off_the_patch_grid_are_zero_padded(name):
    model, images = small(name), torch.randn(1, 3, 33, 47)
    whole = torch.zeros(1, 3, 48, 48)
    whole[:, :, :33, :47] = images
    if name.startswith("swin"):
        whole = whole[:, :, :36]
    assert torch.equal(model(images), model(whole))


def test_unsupported_sizes_get_a_reason():
    with pytest.raises(VitrailError, match=r"grid of 4 x 4 and the image gives 5 x 4(.|\n)*image_size"):
        small("mixer")(torch.zeros(1, 3, 80, 64))
    assert small("mixer", image_size=80)(torch.zeros(1, 3, 80, 80)).shape == (1, 10)


def test_poolformer_names_its_smallest_image():
    assert small("poolformer")(torch.zeros(1, 3, 3, 3)).shape == (1, 10)
    with pytest.raises(VitrailError, match="has 2 x 9 pixels; this model needs at least 3 x 3"):
        small("poolformer")(torch.zeros(1, 3, 2, 9))


@every_model
def test_forward_is_stateless(name):
    model = small(name)
    sizes = [(64, 64)] if not SMALL[name].any_size else [(64, 64), (32, 32), (96, 40), (20, 20)]
    batches = [torch.randn(2, 3, *size) for size in sizes for _ in range(2)]
    forth = [model(images) for images in batches]
    back = [model(images) for images in reversed(batches)]
    assert all(torch.equal(a, b) for a, b in zip(forth, reversed(back), strict=True))


@every_model
def test_channels_and_classes(name):
    assert small(name, in_channels=5, num_classes=7)(torch.randn(2, 5, 64, 64)).shape == (2, 7)


@every_model
def test_without_classes_the_output_is_the_pooled_vector(name):
    model, images = small(name, num_classes=0), torch.randn(2, 3, 64, 64)
    tokens, grid, _ = model.features(images)
    pool = getattr(model.head, "pool", None)
    if isinstance(model.head, QueryHead):
        want = model.head.layer(model.head.query.expand(2, -1, -1), tokens)[:, 0]
    elif isinstance(pool, NormedMean):
        want = torch.nn.functional.layer_norm(tokens[:, grid.prefix :].mean(1), tokens.shape[2:], eps=1e-6)
        want = want * pool.norm.weight + pool.norm.bias
    elif isinstance(pool, AttentionPooling):
        want = pool(model.features(images))
    elif isinstance(pool, SequencePool):
        want = (pool.score(tokens).softmax(1) * tokens).sum(1)
    elif grid.prefix:
        read = 1 if "registers" in name else grid.prefix  # nothing is read off registers
        want = tokens[:, :read].mean(dim=1)
    else:
        want = tokens.mean(dim=1)
    torch.testing.assert_close(model(images), want)


@every_model
def test_drop_path_acts_in_training_alone(name):
    model, images = small(name, drop_path=0.5), torch.randn(8, 3, 64, 64)
    assert torch.equal(model(images), model(images))
    model.train()
    assert not torch.equal(model(images), model(images))


@every_model
def test_without_drop_path_training_and_evaluation_agree(name):
    model, images = small(name, drop_path=0.0), torch.randn(2, 3, 64, 64)
    want = model(images)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()  # statistics of the batch are the one difference there may be
    assert torch.equal(want, model(images))
    assert SMALL[name].batch_norm == any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in model.modules())


@every_model
def test_every_weight_learns(name):
    model = small(name)
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


@every_model
def test_half_precision(name):
    model, images = small(name), torch.randn(2, 3, 64, 64)
    want = model(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert relative(model(images).float(), want) < 0.1
    got = model.bfloat16()(images.bfloat16())
    assert got.dtype == torch.bfloat16
    assert relative(got.float(), want) < 0.1


@every_model
def test_memory_layout_of_the_image_does_not_matter(name):
    model, images = small(name), torch.randn(2, 3, 64, 64)
    assert torch.equal(model(images), model(images.contiguous(memory_format=torch.channels_last)))


@pytest.mark.slow
def test_one_graph_for_the_compiler():
    # In a process of its own, because the compiler does not see through the checks of shapes that the tests put on.
    code = """
import torch
from small_models import SMALL, small
for name in SMALL:
    torch.compiler.reset()
    model, images = small(name), torch.randn(2, 3, 64, 64)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), model(images))
    print(name)
"""
    here = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == list(SMALL)


@every_model
@pytest.mark.slow
def test_export_with_any_batch(name):
    model = small(name)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (torch.randn(2, 3, 64, 64),), dynamic_shapes=({0: batch},))
    images = torch.randn(5, 3, 64, 64)
    torch.testing.assert_close(program.module()(images), model(images))
