"""Trained residual Swin blocks: those of IMDTN (NTIRE 2022) give the features that the net's own code gives."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vitrail.grid import Grid
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.residual_stage import ResidualStage
from vitrail.parts.token_mixers.window_attention import WindowAttention
from vitrail.parts.window_partition import AlwaysShifted

# Of `models/team09_imdtn` (github.com/ofsoundof/NTIRE2022_ESR), run once on `given()`: for each of the three groups the
# mean absolute feature, the feature of token 7 in channel 3, and that of token 200 in channel 60.
THEIRS = (
    (1.66592348, 0.70129848, 1.58534062),
    (2.61826301, -6.05912209, 2.23915172),
    (1.79157805, -1.14563811, -0.91112268),
)


def given(height: int = 12, width: int = 24) -> Tensor:
    """A fixed smooth input, `(1, N, 64)`."""
    count = height * width * 64
    return (torch.arange(count, dtype=torch.float64) * 0.37).sin().mul(0.5).float().reshape(1, height * width, 64)


def group(weights: dict[str, Tensor], name: str) -> ResidualStage:
    """One group with its trained weights; it has no convolution."""
    blocks = []
    for number in range(2):
        mixer = WindowAttention(64, 2, 6, shift=3 * number, cut=AlwaysShifted)
        block = Block(norm1=nn.LayerNorm(64), token_mixer=mixer, norm2=nn.LayerNorm(64), channel_mixer=MLP(64, 128))
        theirs = f"{name}.transformer.residual_group.blocks.{number}."
        names = {"attn.qkv": "token_mixer.qkv", "attn.proj": "token_mixer.proj", "norm1": "norm1", "norm2": "norm2"}
        names |= {"mlp.fc1": "channel_mixer.fc1", "mlp.fc2": "channel_mixer.fc2"}
        state = {
            f"{ours}.{part}": weights[f"{theirs}{old}.{part}"]
            for old, ours in names.items()
            for part in ("weight", "bias")
        }
        state["token_mixer.position.table"] = weights[theirs + "attn.relative_position_bias_table"]
        block.load_state_dict(state)
        blocks.append(block)
    return ResidualStage(blocks, nn.Identity()).eval()


@pytest.mark.shared
@torch.no_grad()
@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_features_are_those_of_the_nets_own_code(shared: Path, number: int) -> None:
    weights = torch.load(shared / "weights" / "imdtn_x4" / "team09_imdtn.pth", weights_only=True)
    x = given()
    tokens, _ = group(weights, f"IMDTB{number}")(x, Grid(12, 24))
    found = [float(tokens.abs().mean()), float(tokens[0, 7, 3]), float(tokens[0, 200, 60])]
    assert found == pytest.approx(THEIRS[number - 1], rel=1e-5, abs=1e-5)
