"""SwinIR against a slow twin of its formulas, its published parameters, and images of every size."""

import pytest
import torch
from small_models import relative
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, leaky_relu, linear

from vitrail.errors import VitrailError
from vitrail.models import create_model
from vitrail.models.swinir import VARIANTS
from vitrail.parts.restorer import Restorer, reflect
from vitrail.weights.formats.swinir import FORMATS
from vitrail.weights.from_checkpoint import from_checkpoint

SMALL = {"dim": 12, "depths": (2, 1), "num_heads": 2, "window_size": 4}
KINDS = ["swinir_classical_x2", "swinir_light_x3", "swinir_real_m_x4", "swinir_real_l_x4", "swinir_gray_jpeg"]


def small(name: str, **overrides) -> Restorer:
    model = create_model(name, **{**SMALL, **overrides}).eval()
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
        nn.init.normal_(parameter, mean=0.5 * (parameter.ndim == 1), std=0.5 / fan_in**0.5)
    return model


def attention_by_loops(x: Tensor, mixer, window: int, shift: int) -> Tensor:
    """Shifted window attention of one `(H, W, C)` map, query by query: equations 1 and 2 of Swin's section 3.2."""
    h, w, c = x.shape
    rolled = x.roll((-shift, -shift), (0, 1))
    # Numbers of the regions that the roll brings together; tokens of two regions do not attend to each other.
    zone = [[0 if i < n - window else 1 if i < n - shift else 2 for i in range(n)] for n in (h, w)]
    out, d = torch.zeros_like(x), c // mixer.num_heads
    qkv = linear(rolled, mixer.qkv.weight, mixer.qkv.bias).unflatten(-1, (3, mixer.num_heads, d))
    for i in range(h):
        for j in range(w):
            top, left = i // window * window, j // window * window
            scores, values = [], []
            for m in range(top, top + window):
                for n in range(left, left + window):
                    row = (i - m + window - 1) * (2 * window - 1) + j - n + window - 1
                    apart = shift > 0 and (zone[0][i], zone[1][j]) != (zone[0][m], zone[1][n])
                    score = (qkv[i, j, 0] * qkv[m, n, 1]).sum(-1) * d**-0.5 + mixer.position.table[row]
                    scores.append(score - 100.0 * apart)
                    values.append(qkv[m, n, 2])
            weights = torch.stack(scores).softmax(0)  # (n, h)
            out[i, j] = (weights[..., None] * torch.stack(values)).sum(0).flatten()
    return mixer.proj(out).roll((shift, shift), (0, 1))


def twin(model: Restorer, image: Tensor) -> Tensor:
    """The classical super-resolution model, written out for one image `(c, Y, X)` whose sides are multiples of 4."""
    x = image - torch.tensor([0.4488, 0.4371, 0.4040])[:, None, None]
    shallow = model.shallow(x[None])[0]
    norm = model.backbone.embedding.norm
    tokens = layer_norm(shallow.permute(1, 2, 0), (12,), norm.weight, norm.bias)
    for stage in model.backbone.stages:
        y = tokens
        for number, block in enumerate(stage.blocks):
            mixed = attention_by_loops(block.norm1(y), block.token_mixer, 4, 2 if number % 2 else 0)
            y = y + mixed
            hidden = gelu(block.channel_mixer.fc1(block.norm2(y)))
            y = y + block.channel_mixer.fc2(hidden)
        tokens = tokens + stage.conv(y.permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    deep = model.fuse(model.backbone.norm(tokens).permute(2, 0, 1)[None]) + shallow[None]
    up = model.head.steps[0](leaky_relu(model.head.before(deep), 0.01))[0]  # (4 C, Y, X)
    shuffled = torch.zeros(up.shape[0] // 4, 2 * up.shape[1], 2 * up.shape[2])
    for dy in range(2):
        for dx in range(2):
            shuffled[:, dy::2, dx::2] = up[2 * dy + dx :: 4]
    return model.head.last(shuffled[None])[0] + torch.tensor([0.4488, 0.4371, 0.4040])[:, None, None]


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 12), (4, 4)])
def test_the_model_is_its_formulas(size):
    model, image = small("swinir_classical_x2"), torch.rand(3, *size)
    assert relative(model(image[None])[0], twin(model, image)) <= 1e-5


PARAMETERS = [11_752_487, 11_937_127, 11_900_199, 12_047_911, 910_152, 918_267, 929_628]  # super-resolution
PARAMETERS += [11_715_559, 28_013_059, 11_497_681, 11_504_163, 11_485_585, 11_492_067]  # real-world, noise, JPEG


@pytest.mark.parametrize(("name", "parameters"), [*zip(VARIANTS, PARAMETERS, strict=True)])
def test_parameters_are_those_of_the_authors_code(name, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in create_model(name).parameters()) == parameters


@torch.no_grad()
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("size", [(8, 8), (1, 1), (1, 37), (9, 5)])
def test_every_size_of_image(name, size):
    model = small(name)
    images = torch.rand(2, model.config.in_channels, *size)
    y = model(images)
    assert y.shape == (2, model.config.in_channels, size[0] * model.scale, size[1] * model.scale)
    assert y.isfinite().all()
    assert relative(model(images[:1]), y[:1]) <= 1e-5


@torch.no_grad()
def test_an_image_off_the_window_grid_is_padded_by_reflection():
    model, image = small("swinir_color_denoise"), torch.rand(1, 3, 6, 7)
    padded = torch.nn.functional.pad(image, (0, 1, 0, 2), mode="reflect")
    assert torch.equal(reflect(image, 4), padded)
    assert torch.equal(model(image), model(padded)[..., :6, :7])


@torch.no_grad()
def test_a_denoiser_whose_last_convolution_is_zero_is_the_identity():
    model, image = small("swinir_gray_jpeg"), torch.rand(1, 1, 9, 9)
    model.head.last.weight.zero_()
    model.head.last.bias.zero_()
    torch.testing.assert_close(model(image), image)


def test_every_weight_gets_a_gradient():
    for name in KINDS:
        model = small(name)
        model(torch.rand(1, model.config.in_channels, 8, 8)).square().sum().backward()
        assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


@pytest.mark.parametrize("name", KINDS)
def test_the_authors_names_and_back(name):
    ours = small(name).state_dict()
    theirs = FORMATS[0].write(ours, None)
    assert not theirs.unexpected and not theirs.incomplete
    theirs.tensors["layers.0.residual_group.blocks.1.attn_mask"] = torch.zeros(4, 16, 16)  # of the training size
    back = FORMATS[0].read(theirs.tensors)
    assert not back.unexpected and not back.incomplete
    assert back.tensors.keys() == ours.keys() and all(torch.equal(back.tensors[key], ours[key]) for key in ours)


@torch.no_grad()
@pytest.mark.parametrize("name", KINDS)
def test_a_file_with_the_authors_names_opens_at_its_own_sizes(name):
    overrides = {"window_size": 7} if name.endswith("jpeg") else {}
    model = small(name, **overrides)
    theirs = FORMATS[0].write(model.state_dict(), None).tensors
    found = from_checkpoint(theirs).model
    assert found.config == model.config
    image = torch.rand(1, model.config.in_channels, 9, 10)
    assert torch.equal(found.eval()(image), model(image))


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("swinir_classical_x2", {"scale": 5}, "3 or a power of 2, got scale 5"),
        ("swinir_real_m_x4", {"scale": 3}, "scale 2 or 4, got 3"),
        ("swinir_color_denoise", {"scale": 2}, "without upsampler has scale 1, got 2"),
        ("swinir_light_x2", {"upsampler": "pixelshufle"}, "Did you mean: pixelshuffle"),
        ("swinir_light_x2", {"convolution": "2conv"}, "Unknown convolution '2conv'"),
        ("swinir_light_x2", {"window_size": 1}, "windows of 1 cannot shift"),
        ("swinir_light_x2", {"num_heads": 7}, "7 heads cannot share 60 channels evenly"),
    ],
)
def test_refusals(name, overrides, message):
    with pytest.raises(VitrailError, match=message):
        create_model(name, **overrides)
