"""Removed heads and hidden channels: outputs equal those with zeros in their place."""

import pytest
import torch
from small_models import relative, small
from torch import nn

from vitrail.compress.gates import masked
from vitrail.edits.edit import apply_edits
from vitrail.edits.head_layouts import AXES, LAYOUTS, head_axes
from vitrail.edits.heads import PruneHeads, head_reasons, prunable_heads
from vitrail.edits.hidden import PruneHidden, prunable_hidden
from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.layouts import TokenSequence
from vitrail.parts.gated_attention import GatedAttend, RelativeOffsetScores
from vitrail.parts.latents import CrossLayer
from vitrail.parts.model import Model
from vitrail.parts.sequence_positions import ALiBi
from vitrail.parts.token_mixers.causal_attention import CausalAttention
from vitrail.parts.token_mixers.class_attention import ClassAttention
from vitrail.parts.token_mixers.cross_attention import CrossAttention
from vitrail.parts.token_mixers.grid_linformer import GridLinformerAttention
from vitrail.parts.token_mixers.linformer import LinformerAttention
from vitrail.parts.token_mixers.performer import PerformerAttention
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.sparse_attention import FixedSparseAttention

FAMILIES = [
    "vit",
    "swin official",
    "swin v2",
    "nat",
    "pvt v2",
    "twins svt",
    "xcit",
    "convit",
    "cait",
    "eva02",
    "siglip",
    "poolformer",
    "convnext",
    "perceiver learned",
]


def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", FAMILIES)
def test_pruned_equals_masked(name):
    model, pruned = small(name), small(name)
    pruned.load_state_dict(model.state_dict())
    heads = {mixer: count for mixer, count in prunable_heads(model).items() if count > 1}
    hidden = prunable_hidden(model)
    keep_heads = {mixer: list(range(1, count)) for mixer, count in heads.items()}
    keep_hidden = {mixer: list(range(0, count, 3)) for mixer, count in hidden.items()}
    edits = [kind(keep) for kind, keep in ((PruneHeads, keep_heads), (PruneHidden, keep_hidden)) if keep]
    apply_edits(pruned, *edits)
    sizes = {f"{mixer}.proj": count for mixer, count in heads.items()} | {f"{m}.fc2": n for m, n in hidden.items()}
    kept = {f"{mixer}.proj": k for mixer, k in keep_heads.items()} | {f"{m}.fc2": k for m, k in keep_hidden.items()}
    with torch.no_grad(), masked(model, sizes, kept):
        wanted = model(images())
    with torch.no_grad():
        assert edits and relative(pruned(images()), wanted) < 1e-6
    assert sum(value.numel() for value in pruned.parameters()) < sum(value.numel() for value in model.parameters())


class Holder(Model):
    """A model of one mixer."""

    def __init__(self, mixer):
        super().__init__()
        self.mixer = mixer


MIXERS = {
    "causal": lambda: CausalAttention(12, 3, position=ALiBi(3)),
    "cross": lambda: CrossAttention(12, 3, memory_dim=8),
    "class": lambda: ClassAttention(12, 3),
    "linformer": lambda: LinformerAttention(12, 3, max_length=8, rank=4),
    "grid linformer": lambda: GridLinformerAttention(12, 3, Grid(2, 3), rank=4),
    "performer": lambda: PerformerAttention(12, 3, features=8),
    "sparse": lambda: FixedSparseAttention(12, 3, block=4),
    "gated": lambda: SelfAttention(12, 3, position=RelativeOffsetScores(3), attend=GatedAttend(3)),
    "latents": lambda: CrossLayer(12, array_dim=8, inner=12, num_heads=3),
}


def call(name, mixer):
    x = torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(1))
    memory = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(2))
    if name == "latents":
        return mixer(x, memory)
    if name == "class":
        return mixer(x, Grid(2, 3, prefix=1))
    if name in ("gated", "grid linformer"):
        return mixer(x[:, 1:], Grid(2, 3))
    return mixer(x, TokenSequence(7, memory=memory) if name == "cross" else TokenSequence(7))


@pytest.mark.parametrize("name", MIXERS)
def test_every_mixer_of_the_table_loses_heads(name):
    torch.manual_seed(0)
    model = Holder(MIXERS[name]()).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        with masked(model, {"mixer.proj": 3}, {"mixer.proj": [0, 2]}):
            wanted = call(name, model.mixer)
        apply_edits(model, PruneHeads({"mixer": [0, 2]}))
        torch.testing.assert_close(call(name, model.mixer), wanted, atol=1e-6, rtol=1e-6)
    assert model.mixer.proj.in_features == 8 and model.mixer.num_heads == 2


def test_the_table_is_covered():
    covered = {type(make()) for make in MIXERS.values()}
    for name in FAMILIES:
        covered |= {type(module) for module in small(name).modules()}
    assert covered >= LAYOUTS.keys()
    assert all(axis.path for axes in AXES.values() for axis in axes)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("deepvit", "its attend is HeadMixingAttend"),
        ("botnet", "heads of BottleneckAttention are not separate"),
        ("halonet", "heads of HaloAttention are not separate"),
    ],
)
def test_heads_mixed_by_another_module_are_refused_by_name(name, reason):
    model = small(name)
    mixer, why = next((mixer, why) for mixer, why in head_reasons(model).items() if why)
    assert reason in why and not prunable_heads(model)
    with pytest.raises(VitrailError, match=r"Heads of .* cannot be removed"):
        apply_edits(model, PruneHeads({mixer: [0]}))
    assert model.edits == ()


def test_hidden_channels_read_by_a_norm_are_refused():
    for name, reason in (("eva02 sub-norm", "NormedGatedMLP"), ("convnextv2", "GlobalResponseNorm")):
        model = small(name)
        mlp = next(n for n, module in model.named_modules() if type(module).__name__ in (reason, "MLP"))
        with pytest.raises(VitrailError, match=reason):
            apply_edits(model, PruneHidden({mlp: [0]}))


def test_an_unknown_part_in_a_mixer_is_refused():
    mixer = SelfAttention(12, 3)
    mixer.adapter = nn.Linear(12, 12)
    with pytest.raises(VitrailError, match="its adapter is Linear"):
        head_axes(mixer)
    shared = SelfAttention(12, 3)
    model = Holder(shared)
    model.other = SelfAttention(12, 3)
    model.other.proj = shared.proj
    with pytest.raises(VitrailError, match="proj is shared with other modules"):
        apply_edits(model, PruneHeads({"mixer": [0]}))
