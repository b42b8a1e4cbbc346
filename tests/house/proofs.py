"""Which proofs each vision family has, from the tables that the tests and benchmarks read.

python tests/house/proofs.py         # the list, a row for each family

published   parameters and multiply-adds of each variant (vitrail.models.published)
contract    a row of tests/models/small_models.py: every contract test of the catalogue runs on it
parity      a pair of tests/weights/small_peers.py, or a test of its own (PARITY)
twin        a slow twin of its token mixer (TWINS)
learning    a row of benchmarks/learning.py
speed       a row of benchmarks/families.py
"""

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vitrail.models import FAMILIES, family_of, list_models
from vitrail.models.published import PUBLISHED

ROOT = Path(__file__).parents[2]
PROOFS = ("published", "contract", "parity", "twin", "learning", "speed")

PARTS, KERNELS, MODELS, WEIGHTS = (
    "tests/parts/test_",
    "tests/kernels/test_",
    "tests/models/test_",
    "tests/weights/test_",
)
ATTENTION = f"{PARTS}token_mixers.py::test_self_attention_query_by_query"
CLASS_ATTENTION = f"{PARTS}head_mixing.py::test_class_attention_query_by_query"
WINDOWS = f"{PARTS}window_attention.py::test_against_the_twin"
NEIGHBORS = f"{KERNELS}neighborhood.py::test_outputs_and_gradients_are_those_of_the_loops"
REDUCTION = f"{PARTS}spatial_reduction_attention.py::test_against_the_twin"
BOTTLENECKS = f"{PARTS}bottlenecks.py::test_written_out"
RETENTION = f"{PARTS}retention.py::test_every_form_equals_the_loop"
SETS = f"{MODELS}point_models.py::test_blocks_of_sets_are_the_loops_of_the_paper"
NAT = f"{WEIGHTS}weights_nat.py::test_the_authors_weights_give_the_authors_logits"

TWINS: dict[str, str] = {
    **dict.fromkeys(("vit", "deit", "vit_hybrid", "dinov2", "siglip", "eva02", "cct"), ATTENTION),
    "igpt": f"{PARTS}causal_attention.py::test_each_query_attends_to_keys_up_to_its_own",
    "cpvt": f"{PARTS}peg.py::test_cell_by_cell_with_gradients",
    "swin": WINDOWS,
    "swin_v2": f"{PARTS}cosine_window_attention.py::test_against_the_twin",
    "nest": f"{PARTS}even_blocks.py::test_aggregation_against_a_loop",
    **dict.fromkeys(("pvt", "pvt_v2", "twins"), REDUCTION),
    **dict.fromkeys(("nat", "dinat", "dinat_s"), NEIGHBORS),
    "poolformer": f"{PARTS}token_mixers.py::test_pooling_is_the_mean_of_neighbours_that_exist_less_the_cell",
    "metaformer": f"{PARTS}metaformer_mixers.py::test_separable_convolution_against_a_loop",
    "convnext": f"{PARTS}convnext_parts.py::test_depthwise_convolution_against_a_loop",
    "vmoe": f"{PARTS}mixture_of_experts.py::test_against_a_loop_over_tokens",
    "bit": BOTTLENECKS,
    "botnet": f"{WEIGHTS}weights_botnet.py::test_attention_against_a_loop",
    "halonet": f"{PARTS}halo_attention.py::test_halo_attention_against_a_loop",
    "sasa": f"{PARTS}halo_attention.py::test_stand_alone_attention_against_a_loop",
    "nonlocal_resnet": f"{PARTS}non_local.py::test_mixing_against_a_loop",
    "vt_resnet": f"{PARTS}visual_tokens.py::test_block_against_a_loop",
    "perceiver": f"{WEIGHTS}weights_perceiver.py::test_cross_layer_against_a_loop",
    "perceiver_iterative": f"{MODELS}perceiver_iterative.py::test_readings_and_transformers_in_turn",
    "mixer": f"{PARTS}token_mixers.py::test_token_mlp_mixes_places_and_not_channels",
    "tnt": f"{PARTS}visual_words.py::test_words_patch_by_patch",
    "deepvit": f"{PARTS}head_mixing.py::test_head_by_head_with_gradients",
    "cait": CLASS_ATTENTION,
    "convit": f"{PARTS}gated_attention.py::test_query_by_query_with_gradients",
    "xcit": f"{PARTS}xcit_parts.py::test_channel_by_channel_with_gradients",
    "crossvit": f"{PARTS}two_scales.py::test_fusion_key_by_key_with_gradients",
    **dict.fromkeys(("retnet_image", "retnet"), RETENTION),
    **dict.fromkeys(("set_transformer", "point_transformer"), SETS),
}
"""The test of each family's token mixer, or of its own part, against a slow twin."""

PARITY: dict[str, str] = {
    **dict.fromkeys(("nat", "dinat", "dinat_s"), NAT),
    "igpt": f"{WEIGHTS}weights_igpt.py::test_same_weights_same_logits",
    "botnet": f"{WEIGHTS}weights_botnet.py::test_same_weights_same_logits",
    "halonet": f"{WEIGHTS}weights_halonet.py::test_same_weights_same_logits",
    "perceiver": f"{WEIGHTS}weights_perceiver.py::test_same_weights_same_logits",
    "cct": f"{MODELS}cct.py::test_against_a_loop_in_the_authors_names",
}
"""Parity tests outside of the pairs."""

NO_PEER = "no library of the environment has it: a loop and published parameters"
POINTS = "reads points: recipes/modelnet_voxels.py trains it"
REASONS: dict[tuple[str, str], str] = {
    **{(family, "parity"): NO_PEER for family in ("cpvt", "vmoe", "sasa", "nonlocal_resnet", "vt_resnet", "deepvit")},
    **{(family, "parity"): NO_PEER for family in ("perceiver_iterative", "retnet_image", "retnet")},
    **{(family, "parity"): NO_PEER for family in ("set_transformer", "point_transformer")},
    ("resnet", "twin"): "convolutions of PyTorch alone: parity with torchvision",
    **{
        (family, proof): POINTS
        for family in ("set_transformer", "point_transformer")
        for proof in ("learning", "speed")
    },
    **{
        (family, "contract"): f"rows of its own in {MODELS}point_models.py"
        for family in ("set_transformer", "point_transformer")
    },
    ("retnet", "contract"): f"reads words: {MODELS}texts.py",
    ("retnet", "learning"): "reads words; retnet_image has a row",
    ("retnet", "speed"): "reads words; retnet_image has a row",
}
"""Why a family has no such row."""


def vision_families() -> list[str]:
    """List the families that classify images, and the mixers of issue 15 for sequences, sets and points."""
    images = {family_of(name) for name in list_models(task="classify")} & set(FAMILIES)
    return [one for one in FAMILIES if one in images or one in ("retnet", "set_transformer", "point_transformer")]


def found() -> dict[str, set[str]]:
    """Return the families that have each proof."""
    benchmarks, peers = ROOT / "benchmarks", ROOT / "tests" / "weights"
    small = _module("small_models", ROOT / "tests" / "models").SMALL
    pairs = _module("small_peers", peers).PAIRS
    return {
        "published": {one.family for one in PUBLISHED.values() if one.parameters and one.multiply_adds},
        "contract": {family_of(row.variant) for row in small.values()},
        "parity": {family_of(pair.variant) for pair in pairs.values()} | _existing(PARITY),
        "twin": _existing(TWINS),
        "learning": set(_module("learning", benchmarks).ROWS),
        "speed": {family_of(name) for name in _module("families", benchmarks).FAMILIES},
    }


def _module(name: str, folder: Path) -> Any:
    """Import a module of a folder that is no package."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    return importlib.import_module(name)


def _existing(tests: dict[str, str]) -> set[str]:
    """Return the families whose test exists."""
    return {family for family, test in tests.items() if test.partition("::")[2] in _tests(test.partition("::")[0])}


def _tests(path: str) -> set[str]:
    file = ROOT / path
    tree = ast.parse(file.read_text()) if file.is_file() else ast.Module([], [])
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def table(tell: Callable[[str], object] = print) -> None:
    """Print a row for each family, then the reasons."""
    have = found()
    tell(f"{'family':22}" + "".join(f"{proof:11}" for proof in PROOFS))
    for family in vision_families():
        cells = ("yes" if family in have[p] else "-" if (family, p) in REASONS else "MISSING" for p in PROOFS)
        tell(f"{family:22}" + "".join(f"{cell:11}" for cell in cells))
    for (family, proof), reason in REASONS.items():
        tell(f"{family}, {proof}: {reason}")


if __name__ == "__main__":
    table()
