"""CCT and CVT against a loop that reads the authors' names, and against the parameters that they publish."""

import pytest
import torch
from small_models import small
from torch.nn.functional import gelu, layer_norm

from vitrail.models.published import PUBLISHED
from vitrail.weights.formats import write_as
from vitrail.weights.load import load_weights


def convolve(weight, bias, cells, stride: int, padding: int):
    """Convolve a map `(C, H, W)` place by place."""
    side = weight.shape[-1]
    around = torch.zeros(cells.shape[0], cells.shape[1] + 2 * padding, cells.shape[2] + 2 * padding)
    around[:, padding : padding + cells.shape[1], padding : padding + cells.shape[2]] = cells
    rows, columns = ((n - side) // stride + 1 for n in around.shape[1:])
    out = torch.empty(len(weight), rows, columns)
    for y in range(rows):
        for x in range(columns):
            window = around[:, y * stride : y * stride + side, x * stride : x * stride + side]
            out[:, y, x] = (weight * window).sum((1, 2, 3)) + (0 if bias is None else bias)
    return out


def pool(cells):
    """Take the largest of 3 x 3 places around every second one."""
    out = torch.empty(cells.shape[0], -(-cells.shape[1] // 2), -(-cells.shape[2] // 2))
    for y in range(out.shape[1]):
        for x in range(out.shape[2]):
            near = cells[:, max(2 * y - 1, 0) : 2 * y + 2, max(2 * x - 1, 0) : 2 * x + 2]
            out[:, y, x] = near.amax((1, 2))
    return out


def twin(state, image, num_heads: int):
    """Compute the logits of one image token by token."""

    def norm(x, name):
        return layer_norm(x, x.shape[-1:], state[name + ".weight"], state[name + ".bias"])

    def linear(x, name):
        return x @ state[name + ".weight"].T + state[name + ".bias"]

    cells, j = image, 0
    while (key := f"tokenizer.conv_layers.{j}.0.weight") in state:
        bias = state.get(f"tokenizer.conv_layers.{j}.0.bias")
        if bias is None:
            cells = pool(convolve(state[key], None, cells, stride=1, padding=1).relu())
        else:
            cells = convolve(state[key], bias, cells, stride=state[key].shape[-1], padding=0)
        j += 1
    x = cells.flatten(1).T + state["classifier.positional_emb"][0]
    i = 0
    while (block := f"classifier.blocks.{i}") + ".pre_norm.weight" in state:
        q, k, v = (norm(x, block + ".pre_norm") @ state[block + ".self_attn.qkv.weight"].T).chunk(3, dim=-1)
        d = q.shape[1] // num_heads
        mixed = torch.zeros_like(x)
        for token in range(len(x)):
            for first in range(0, x.shape[1], d):
                own = slice(first, first + d)
                scores = torch.stack([q[token, own] @ key / d**0.5 for key in k[:, own]])
                mixed[token, own] = scores.softmax(0) @ v[:, own]
        x = norm(x + linear(mixed, block + ".self_attn.proj"), block + ".norm1")
        x = x + linear(gelu(linear(x, block + ".linear1")), block + ".linear2")
        i += 1
    x = norm(x, "classifier.norm")
    weights = linear(x, "classifier.attention_pool")[:, 0].softmax(0)
    return linear(sum(weight * token for weight, token in zip(weights, x, strict=True)), "classifier.fc")


@pytest.mark.parametrize("name", ["cct", "cvt"])
@pytest.mark.parametrize("size", [32, 20])
@torch.no_grad()
def test_against_a_loop_in_the_authors_names(name, size):
    model, image = small(name, image_size=size, depth=2), torch.randn(3, size, size)
    state = write_as("official", "cct", model.state_dict(), model.config)
    torch.testing.assert_close(model(image[None])[0], twin(state, image, model.config.num_heads), rtol=1e-4, atol=1e-5)
    again = small(name, image_size=size, depth=2)
    load_weights(again, state)
    assert torch.equal(again(image[None]), model(image[None]))


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("cct_2_3x2_32", 0.284),
        ("cct_4_3x2_32", 0.482),
        ("cct_6_3x2_32", 3.327),
        ("cct_7_3x2_32", 3.853),
        ("cct_7_3x1_32", 3.760),
        ("cvt_6_4_32", 3.190),
        ("cvt_7_4_32", 3.717),
    ],
)
def test_published_parameters(name, millions):
    assert round(PUBLISHED[name].parameters / 1e6, 3) == millions
    assert round((PUBLISHED["cct_6_3x1_32"].parameters - 256 * 256) / 1e6, 3) == 3.168
