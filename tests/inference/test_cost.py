"""Cost by module: published figures under their conventions, sums, and memory against a real pass."""

import json

import pytest
import torch
from small_models import SMALL, small

from vitrail.errors import VitrailError
from vitrail.inference.cost import CONVENTIONS, GROUPS, model_cost, multiply_adds
from vitrail.inference.flops import meta_inputs, meta_model
from vitrail.models import create_model
from vitrail.models.published import PUBLISHED as LEDGER

PUBLISHED = [
    # variant, convention of its source, GMACs; the tolerance is 0.5 % or half a unit of the last digit
    ("vit_base_patch16_224", "all", "17.564"),  # torchvision
    ("swin_tiny_patch4_window7_224", "layers+norms", "4.36"),  # mmpretrain
    ("twins_svt_small", "layers+norms", "2.82"),  # mmpretrain
    ("pvt_v2_b2", "norms", "4.04"),  # the authors
    ("mixer_b16_224", "norms", "12.61"),  # mmpretrain
    ("poolformer_s12", "all", "1.8"),  # the authors
]
SLOW = [
    ("vit_base_patch32_224", "all", "4.409"),  # torchvision
    ("vit_large_patch16_224", "all", "61.555"),
    ("vit_huge_patch14_224", "all", "167.295"),
    ("vit_base_patch16_384", "norms", "55.54"),  # mmpretrain
    ("deit_base_patch16_224", "norms", "17.58"),
    ("swin_tiny_patch4_window7_224", "all", "4.491"),  # torchvision
    ("swin_small_patch4_window7_224", "all", "8.741"),
    ("swin_base_patch4_window7_224", "all", "15.431"),
    ("swin_small_patch4_window7_224", "layers+norms", "8.52"),  # mmpretrain
    ("swin_base_patch4_window7_224", "layers+norms", "15.14"),
    ("swin_base_patch4_window12_384", "layers+norms", "44.49"),
    ("swin_large_patch4_window7_224", "layers+norms", "34.04"),
    ("swin_base_patch4_window12_384", "all", "47.1"),  # the authors
    ("swin_large_patch4_window7_224", "all", "34.5"),
    ("swin_large_patch4_window12_384", "all", "103.9"),
    ("swinv2_tiny_window8_256", "all", "5.9"),
    ("tnt_s_patch16_224", "all", "5.2"),
    ("tnt_b_patch16_224", "all", "14.1"),
    ("nest_tiny", "all", "5.8"),
    ("nest_base", "all", "17.9"),
    ("twins_svt_small", "layers", "2.8"),
    ("twins_svt_base", "layers", "8.3"),
    ("twins_svt_large", "layers", "14.8"),
    ("twins_pcpvt_small", "layers", "3.7"),
    ("twins_pcpvt_base", "layers", "6.4"),
    ("twins_pcpvt_large", "layers", "9.5"),
    ("twins_pcpvt_small", "layers+norms", "3.67"),  # mmpretrain
    ("nat_mini", "all", "2.7"),
    ("nat_tiny", "all", "4.3"),
    ("nat_small", "all", "7.8"),
    ("nat_base", "all", "13.7"),
    ("dinat_mini", "all", "2.7"),
    ("dinat_tiny", "all", "4.3"),
    ("dinat_small", "all", "7.8"),
    ("dinat_base", "all", "13.7"),
    ("dinat_large", "all", "30.6"),
    ("dinat_large_384", "all", "89.7"),
    ("dinat_large_384_11x11", "all", "92.4"),
    ("dinat_s_tiny", "all", "4.5"),
    ("dinat_s_small", "all", "8.7"),
    ("dinat_s_base", "all", "15.4"),
    ("mixer_l16_224", "norms", "44.57"),  # mmpretrain
]
MILLIONS = {
    "deit_tiny_patch16_224": "5",
    "deit_small_patch16_224": "22",
    "deit_base_patch16_224": "86",
    "deit_tiny_distilled_patch16_224": "6",
    "deit_small_distilled_patch16_224": "22",
    "deit_base_distilled_patch16_224": "87",
    "deit_base_patch16_384": "87",
    "deit_base_distilled_patch16_384": "88",
    "tnt_s_patch16_224": "23.8",
    "tnt_b_patch16_224": "65.6",
    "swin_tiny_patch4_window7_224": "28",
    "swin_small_patch4_window7_224": "50",
    "swin_base_patch4_window7_224": "88",
    "swinv2_tiny_window8_256": "28",
    "nest_tiny": "17",
    "nest_small": "38",
    "nest_base": "68",
    "pvt_tiny": "13.2",
    "pvt_small": "24.5",
    "pvt_medium": "44.2",
    "pvt_large": "61.4",
    "pvt_v2_b2": "25.36",
    "nat_mini": "20",
    "nat_tiny": "28",
    "nat_small": "51",
    "nat_base": "90",
    "dinat_large": "200",
    "dinat_s_tiny": "28",
    "dinat_s_small": "50",
    "dinat_s_base": "88",
    "poolformer_s12": "12",
    "poolformer_s24": "21",
    "poolformer_s36": "31",
    "poolformer_m36": "56",
    "poolformer_m48": "73",
    "deepvit_patch16_224_re_attn_16b": "24.5",
    "deepvit_patch16_224_re_attn_24b": "36.3",
    "deepvit_patch16_224_re_attn_32b": "48.1",
}
"""Printed parameters, in millions; those of the DeiT without a distillation token are truncated."""
ROWS = [*PUBLISHED, *(pytest.param(*row, marks=pytest.mark.slow) for row in SLOW)]


def near(got: float, stated: str) -> bool:
    return abs(got - float(stated)) <= max(0.005 * float(stated), 0.5 * 10.0 ** -len(stated.partition(".")[2]))


@pytest.mark.parametrize(("name", "convention", "stated"), ROWS)
def test_published_figures(name, convention, stated):
    model = meta_model(name)
    assert near(sum(multiply_adds(model, meta_inputs(model, None), convention).values()) / 1e9, stated)


def test_the_small_nest_costs_less_than_its_paper_prints():
    model = meta_model("nest_small")
    assert sum(multiply_adds(model, meta_inputs(model, None), "all").values()) / 1e9 == pytest.approx(10.323, abs=5e-4)


@pytest.mark.parametrize("name", MILLIONS)
def test_published_parameters(name):
    # Counts of the ledger, which tests/models/test_published.py recounts for every variant.
    millions, stated = LEDGER[name].parameters / 1e6, MILLIONS[name]
    assert near(millions, stated) or (name.startswith("deit") and stated == str(int(millions)))


@pytest.mark.parametrize(("by", "convention"), list(zip(GROUPS * 2, CONVENTIONS, strict=False)))
def test_modules_add_up(by, convention):
    model = create_model("swin_tiny_patch4_window7_224", dim=8, depths=(1, 1), num_heads=(1, 2))
    *rows, total = model_cost(model, 64, 2, convention, by)
    for field in ("parameters", "multiply_adds", "attention_bytes", "activation_bytes"):
        assert sum(getattr(row, field) for row in rows) == getattr(total, field)


def test_attention_memory_is_heads_times_queries_times_keys():
    total = model_cost(create_model("vit_tiny_patch16_224", depth=2), batch=3)[-1]
    assert total.attention_bytes == 2 * 4 * 3 * 3 * 197 * 197
    swin = create_model("swin_tiny_patch4_window7_224", depths=(1,), num_heads=(3,))
    by_block = {row.name: row for row in model_cost(swin)}
    assert by_block["backbone.stages.0.blocks.0"].attention_bytes == 4 * 3 * 64 * 49 * 49  # 8 x 8 windows of 49 cells


@pytest.mark.parametrize(("side", "patch", "mebibytes"), [(128, 1, 768 * 1024), (224, 16, 112)])
def test_attention_memory_of_pixels_and_of_patches(side, patch, mebibytes):
    # 48 layers of 16 heads: pixels of a 128 x 128 image as tokens need 768 GiB, patches of 16 x 16 of one of 224 x 224
    # 112 MiB. The class token adds one row and one column; one layer is built, and each costs the same.
    fields = {"depth": 1, "num_heads": 16, "dim": 16, "patch_size": patch, "image_size": side}
    found = model_cost(create_model("vit_small_patch16_224", **fields), side)[-1].attention_bytes
    tokens = (side // patch) ** 2
    assert 48 * found == 48 * 16 * 4 * (tokens + 1) ** 2
    assert 48 * 16 * 4 * tokens**2 / 2**20 == pytest.approx(mebibytes, rel=0.005)


def test_activation_memory_equals_the_saved_tensors():
    model = create_model("vit_tiny_patch16_224", depth=2, dim=24, num_heads=3, num_classes=5, image_size=64).train()
    seen = {p.untyped_storage()._cdata for p in [*model.parameters(), *model.buffers()]}
    sizes = []

    def pack(tensor):
        if tensor.untyped_storage()._cdata not in seen:
            seen.add(tensor.untyped_storage()._cdata)
            sizes.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = model(torch.randn(4, 3, 64, 64))
    got = model_cost(model, 64, batch=4)[-1].activation_bytes
    assert kept is not None and abs(got - sum(sizes)) <= 0.1 * sum(
        sizes
    )  # kernels of attention differ in their output's layout


def test_activations_grow_with_the_batch_and_multiply_adds_do_not():
    model = create_model("poolformer_s12", dims=(8, 16), depths=(1, 1))
    one, eight = (model_cost(model, 64, batch)[-1] for batch in (1, 8))
    assert eight.activation_bytes == pytest.approx(8 * one.activation_bytes, rel=0.01)
    assert eight.multiply_adds == one.multiply_adds and eight.parameters == one.parameters


def test_unknown_choices_are_named():
    with pytest.raises(VitrailError, match="fvcore"):
        model_cost("vit_tiny_patch16_224", convention="fvcore")
    with pytest.raises(VitrailError, match="layer"):
        model_cost("vit_tiny_patch16_224", by="layer")


def test_the_verb(capsys):
    from vitrail.cli import main

    assert main(["cost", "vit_tiny_patch16_224", "--set", "depth=1", "--by", "stage", "--batch", "4"]) == 0
    told = capsys.readouterr().out
    assert "backbone.stages.0" in told and "convention   all" in told and "AdamW" in told
    assert main(["cost", "bert_tiny", "--size", "16", "--json"]) == 0
    total = json.loads(capsys.readouterr().out)[-1]
    assert total["name"] == "total" and total["flops"] == 2 * total["multiply_adds"]
    assert main(["cost", "vit_tinny"]) == 2
    assert "vit_tiny" in capsys.readouterr().err


QUICK = ("vmoe", "igpt", "crossvit", "retnet")
EVERY = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SMALL]


@pytest.mark.parametrize("name", EVERY)
def test_every_architecture_has_a_cost(name):
    total = model_cost(small(name), 64)[-1]
    assert total.multiply_adds > 0 and total.activation_bytes > 0
