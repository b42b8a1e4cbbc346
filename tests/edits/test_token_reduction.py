"""Fewer tokens: the matching against a loop, identities, restored positions, refusals."""

from math import ceil

import pytest
import torch
from small_models import relative, small

from vitrail.edits.edit import apply_edits
from vitrail.edits.learn_tokens import LearnTokens
from vitrail.edits.low_rank import LowRank
from vitrail.edits.merge_tokens import MergeTokens
from vitrail.edits.prune_tokens import PruneTokens
from vitrail.errors import VitrailError
from vitrail.explain.maps import attention_maps
from vitrail.explain.options import AUTO, resolve_options
from vitrail.fused.optimize import optimize
from vitrail.fused.train_blocks import fuse_for_training
from vitrail.grid import Grid
from vitrail.kernels.attention.reference import attention_map
from vitrail.parts.token_reduction import KeepAttended, MergedTokens, MergeSimilar, match
from vitrail.weights.folder import load_model, save_model

PLAIN = ["vit", "deit distilled", "dinov2", "dinov2 registers"]


def images(count=2):
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def merged_by_loops(metric, x, sizes, r, prefix):
    """Merge the tokens of one image, edge by edge, as the paper's appendix does."""
    unit = metric / metric.norm(dim=-1, keepdim=True)
    edges = []
    for a in range(0, len(x), 2):
        partners = [b for b in range(1, len(x), 2) if b >= prefix]
        if a >= prefix:
            b = max(partners, key=lambda b: float(unit[a] @ unit[b]))
            edges.append((float(unit[a] @ unit[b]), a, b))
    edges = sorted(edges, key=lambda edge: -edge[0])[:r]
    groups = {n: [n] for n in range(len(x))}
    for _, a, b in edges:
        groups[b] += groups.pop(a)
    tokens = [sum(x[n] * sizes[n] for n in group) / sum(sizes[n] for n in group) for group in groups.values()]
    return torch.stack(tokens), torch.stack([sizes[group].sum() for group in groups.values()])


@pytest.mark.parametrize(("tokens", "prefix", "r"), [(9, 0, 3), (10, 1, 4), (11, 2, 2), (12, 5, 3), (9, 1, 1)])
def test_matching_equals_a_loop_over_edges(tokens, prefix, r):
    keys, x = torch.randn(2, 3, tokens, 8), torch.randn(2, tokens, 5)
    layout = MergedTokens.whole(Grid(1, tokens - prefix, prefix), x)
    sizes = torch.randint(1, 4, (2, tokens)).float()
    assignment = MergeSimilar(r)(keys, keys, layout)._replace(weights=sizes)
    for image in range(2):
        wanted, counts = merged_by_loops(keys.mean(1)[image], x[image], sizes[image], r, prefix)
        assert torch.allclose(assignment.pool(x)[image], wanted, atol=1e-6)
        got = torch.zeros(tokens - r).index_add(0, assignment.target[image], sizes[image])
        assert torch.equal(got, counts)


def test_a_whole_model_equals_a_loop_over_images_and_blocks():
    model = small("vit")
    edited = apply_edits(small("vit"), MergeTokens({"backbone.stages.0": [3, 2]}))
    edited.load_state_dict(model.state_dict())
    with torch.no_grad():
        wanted = torch.cat([model.head.linear(_slow(model, image[None], (3, 2))) for image in images()])
        assert torch.allclose(edited(images()), wanted, atol=1e-5)


def _slow(model, image, counts):
    """Return the class token of one image with proportional attention written out."""
    x, grid = model.backbone.embedding(image)
    sizes = torch.ones(grid.tokens)
    for block, r in zip(model.backbone.stages[0].blocks, counts, strict=True):
        mixer = block.token_mixer
        q, k, v = mixer.qkv(block.norm1(x)).unflatten(-1, (3, mixer.num_heads, -1)).unbind(2)
        heads = [_mix(q[0, :, h], k[0, :, h], v[0, :, h], sizes) for h in range(mixer.num_heads)]
        x = x + mixer.proj(torch.cat(heads, -1))[None]
        tokens, sizes = merged_by_loops(k[0].mean(1), x[0], sizes, r, prefix=1)
        x = tokens[None] + block.channel_mixer(block.norm2(tokens[None]), grid)
    return model.backbone.norm(x)[:, 0]


def _mix(q, k, v, sizes):
    """Attend to each key as often as it has places."""
    weights = (q @ k.T / q.shape[-1] ** 0.5).exp() * sizes
    return weights / weights.sum(-1, keepdim=True) @ v


def test_a_key_of_size_two_counts_as_two_equal_keys():
    q, k = torch.randn(1, 1, 2, 4), torch.randn(1, 1, 3, 4)
    layout = MergedTokens(Grid(1, 4), torch.tensor([[0, 1, 1, 2]]), torch.tensor([[1.0, 2.0, 1.0]]))
    maps = attention_map(q, k, layout.key_padding(q))
    whole = attention_map(q, k[:, :, [0, 1, 1, 2]], None)
    assert torch.allclose(maps[..., 1], whole[..., 1] + whole[..., 2], atol=1e-6)


@pytest.mark.parametrize("name", PLAIN)
def test_no_token_removed_is_the_model_itself(name):
    model = small(name)
    with torch.no_grad():
        wanted = model(images())
        for edit in (MergeTokens.constant(model, 0), PruneTokens({"backbone.stages.0": [1.0, 1.0]})):
            again = small(name)
            again.load_state_dict(model.state_dict())
            assert torch.equal(apply_edits(again, edit)(images()), wanted)


@pytest.mark.parametrize("name", PLAIN)
def test_features_have_every_place_and_places_of_a_token_are_equal(name):
    model = apply_edits(small(name), MergeTokens({"backbone.stages.0": [0, 5]}))
    with torch.no_grad():
        features = model.features(images())
    prefix = features.grid.prefix
    assert features.tokens.shape[1] == features.grid.tokens == prefix + 16
    different = {tuple(row.tolist()) for row in features.tokens[0, prefix:]}
    assert len(different) == 11 and features.pyramid[0].shape[1:3] == (4, 4)


def test_sizes_always_sum_to_the_places():
    x = torch.randn(3, 17, 8)
    layout = MergedTokens.whole(Grid(4, 4, 1), x)
    for r in (5, 4, 100, 3):
        keys = torch.randn(3, 2, layout.tokens, 4)
        assignment = MergeSimilar(r)(keys, keys, layout)
        x, layout = assignment.pool(x), layout.reduce(assignment)
        assert torch.equal(layout.sizes.sum(1), torch.full((3,), 17.0))
        assert x.shape[1] == layout.tokens == int(layout.source.max()) + 1
        assert torch.equal(layout.sizes[:, 0], torch.ones(3)) and torch.equal(
            layout.source[:, 0], torch.zeros(3).long()
        )
    assert layout.tokens == 17 - 5 - 4 - 3 - 2


def test_equal_tokens_merge_first():
    keys = torch.randn(1, 1, 8, 4)
    keys[:, :, 4] = 3 * keys[:, :, 1]
    target, count = match(keys[:, 0], r=1, prefix=0)
    assert count == 7 and target[0, 4] == target[0, 1]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.99])
def test_attended_tokens_are_kept_and_the_rest_is_fused(share):
    q, k, x = torch.randn(2, 3, 12, 4), torch.randn(2, 3, 12, 4), torch.randn(2, 12, 5)
    layout = KeepAttended.layout.whole(Grid(2, 5, 2), x)
    assignment = KeepAttended(share)(q, k, layout)
    kept = ceil(10 * share)
    if kept > 8:
        assert assignment is None
        return
    pooled = assignment.pool(x)
    for image in range(2):
        attention = attention_map(q, k, None)[image, :, 0].mean(0)
        order = sorted(range(2, 12), key=lambda n: -float(attention[n]))
        stays, goes = sorted(order[:kept]), order[kept:]
        fused = sum(attention[n] * x[image, n] for n in goes) / sum(attention[n] for n in goes)
        assert torch.allclose(pooled[image], torch.stack([*x[image, [0, 1, *stays]], fused]), atol=1e-6)


@pytest.mark.parametrize(
    "edit", [MergeTokens({"backbone.stages.0": [0, 4]}), PruneTokens({"backbone.stages.0": [0.5, 1]})]
)
def test_a_folder_keeps_it_and_training_reaches_every_weight(edit, tmp_path):
    model = apply_edits(small("deit"), edit)
    loaded = load_model(save_model(model, tmp_path / "model"))
    with torch.no_grad():
        assert torch.equal(loaded(images()), model(images())) and loaded.edits == (edit,)
        assert torch.allclose(optimize(loaded, "fp32")(images()), model(images()), atol=1e-3)
    fuse_for_training(loaded.train())
    loaded(images()).square().sum().backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in loaded.parameters())


def test_maps_are_refused_and_saliency_is_the_default():
    model = apply_edits(small("vit"), MergeTokens.constant(small("vit"), 2))
    assert resolve_options(model, AUTO).method == "saliency"
    with pytest.raises(VitrailError, match="merged tokens"), attention_maps(model):
        pass


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("swin official", "WindowAttention"),
        ("eva02", "position|Rotation|NormedGatedMLP|attention"),
        ("poolformer", "Pooling"),
    ],
)
def test_other_mixers_are_refused_by_name(name, reason):
    with pytest.raises(VitrailError, match=reason):
        MergeTokens.constant(small(name), 8)


def test_wrong_numbers_are_refused():
    model = small("vit")
    for numbers in ({}, {"backbone.stages.0": [1.5, 2]}, {"backbone.stages.0": [-1, 0]}, {"backbone.stages.0": 3}):
        with pytest.raises(VitrailError, match="whole number"):
            MergeTokens(numbers)
    with pytest.raises(VitrailError, match="share in"):
        PruneTokens({"backbone.stages.0": [0, 1]})
    with pytest.raises(VitrailError, match="2 blocks, and 3 numbers"):
        MergeTokens({"backbone.stages.0": [1, 1, 1]}).apply(model)
    with pytest.raises(VitrailError, match="no class token"):
        PruneTokens.quarters(small("siglip"), 0.5)
    with pytest.raises(VitrailError, match="already"):
        apply_edits(model, MergeTokens.constant(model, 2), MergeTokens({"backbone.stages.0": [1, 1]}))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("edit", ["merge", "keep", "learn"])
def test_optimized_blocks_are_fused_and_equal(edit, precision):
    shares = (1.0, 0.7, 0.5)
    edits = {
        "merge": MergeTokens({"backbone.stages.0": [3, 2, 4]}),
        "keep": PruneTokens({"backbone.stages.0": shares}),
        "learn": LearnTokens({"backbone.stages.0": shares}),
    }
    torch.manual_seed(0)
    model = apply_edits(small("dinov2", depth=3), edits[edit])
    fast = optimize(model, precision)
    # Rounding may change which tokens go, so lower precisions are compared where it does not.
    tolerance = {"fp32": 1e-5, "bf16": 0.1, "int8": 0.2}[precision]
    assert not [reason for reason in fast.unconverted if "Block" in reason or "Stage" in reason or "mixer" in reason]
    with torch.no_grad():
        assert relative(fast(images()), model(images())) < tolerance


def test_an_unsupported_block_is_not_fused_and_reported():
    model = small("vit")
    apply_edits(model, LowRank({"backbone.stages.0.blocks.1.token_mixer.qkv": 8}), MergeTokens.constant(model, 2))
    fast = optimize(model, "fp32")
    assert any("products" in reason for reason in fast.unconverted)
    with torch.no_grad():
        assert relative(fast(images()), model(images())) < 1e-5
