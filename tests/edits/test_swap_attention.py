"""Linformer and Star-Transformer on images: loops, full rank, other grids, families, folders, and names for --set."""

import pytest
import torch
from small_models import relative, small
from torch import nn

from vitrail.compress.compress import compress
from vitrail.compress.settings import CompressSettings
from vitrail.edits.edit import apply_edits, replay
from vitrail.edits.swap_attention import SwapAttention, swappable_mixers
from vitrail.errors import VitrailError
from vitrail.explain.blocks import attending_blocks
from vitrail.explain.maps import attention_maps
from vitrail.fused.optimize import optimize
from vitrail.grid import Grid
from vitrail.kernels.attention.reference import attend
from vitrail.layouts import TokenSequence
from vitrail.models import create_model
from vitrail.parts.attend import merge_heads, split_heads
from vitrail.parts.token_mixers.grid_linformer import GridLinformerAttention, region_means
from vitrail.parts.token_mixers.grid_star import AROUND, GridStarTransformer
from vitrail.weights.folder import load_model, save_model


def images(count=2):
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("grid", "rank"), [(Grid(4, 6, 1), 5), (Grid(5, 3, 2), 12), (Grid(7, 7), 10)])
def test_linformer_is_a_loop_over_regions(grid, rank):
    mixer = GridLinformerAttention(8, 2, grid, rank)
    x = torch.randn(2, grid.tokens, 8)
    q, k, v = split_heads(mixer.qkv(x), 2)
    regions = [[n for n in range(grid.tokens) if row[n]] for row in region_means(grid, rank)]
    assert sorted({n for region in regions for n in region}) == list(range(grid.tokens)) and len(regions) <= rank
    few = [torch.stack([part[:, :, region].mean(2) for region in regions], 2) for part in (k, v)]
    wanted = mixer.proj(merge_heads(attend(q, *few, None)))
    if all(len(region) == len(regions[-1]) for region in regions[grid.prefix :]):  # no overlap
        torch.testing.assert_close(mixer(x, grid), wanted, rtol=1e-5, atol=1e-6)
    assert relative(mixer(x, grid), wanted) < 0.05


def test_star_is_a_loop_over_cells():
    grid, mixer = Grid(2, 3, 1), GridStarTransformer(8, 2, depth=3)
    x = torch.randn(1, 7, 8)
    h, e, s = list(x[0]), list(x[0]), x[0].mean(0)

    def attention(part, query, keys):
        return part(query[None, None], TokenSequence(1, memory=torch.stack(keys)[None]))[0, 0]

    for number, (ring, norm) in enumerate(zip(mixer.ring, mixer.norms, strict=True)):
        new = [norm(attention(ring, h[0], [h[0], e[0], s]).relu())]
        for row in range(2):
            for column in range(3):
                places = [(row + down, column + right) for down, right in AROUND]
                keys = [h[1 + 3 * r + c] for r, c in places if 0 <= r < 2 and 0 <= c < 3]
                own = 1 + 3 * row + column
                new.append(norm(attention(ring, h[own], [*keys, e[own], s]).relu()))
        h = new
        if number < len(mixer.relay):
            s = mixer.relay_norms[number](attention(mixer.relay[number], s, [s, *h]).relu())
    torch.testing.assert_close(mixer(x, grid)[0], torch.stack(h), rtol=1e-5, atol=1e-6)


def test_full_rank_equals_the_model_and_lower_rank_is_close():
    model = small("vit")
    errors = [
        relative(
            compress(model, CompressSettings(attention="linformer", attention_size=rank))(images()), model(images())
        )
        for rank in (17, 10, 2)
    ]
    assert errors[0] < 1e-5 < errors[1] and max(errors) < 1


@pytest.mark.parametrize("to", ["linformer", "star"])
@pytest.mark.parametrize("name", ["vit", "deit distilled", "swin official", "nat", "dinov2 registers", "eva02"])
def test_families_train_with_swapped_attention(name, to, tmp_path):
    model = small(name, image_size=64)
    settings = CompressSettings(attention=to, attention_size={"linformer": 9, "star": 2}[to])
    swapped = compress(model, settings)
    kinds = {type(swapped.get_submodule(mixer)).__name__ for mixer in swappable_mixers(model)}
    assert kinds == {{"linformer": "GridLinformerAttention", "star": "GridStarTransformer"}[to]}
    loaded = load_model(save_model(swapped, tmp_path / "swapped"))
    with torch.no_grad():
        assert torch.equal(loaded(images()), swapped(images())) and loaded.edits == swapped.edits
        assert relative(optimize(loaded, "fp32")(images()), swapped(images())) < 1e-4
    loaded.train()(images()).sin().sum().backward()
    assert all(value.grad is not None for key, value in loaded.named_parameters() if "blocks.0.token_mixer" in key)


@pytest.mark.parametrize("mixer", ["linformer", "star"])
def test_a_metaformer_config_names_the_mixers(mixer):
    model = create_model(
        "caformer_s18",
        dims=(8, 16, 32, 64),
        depths=(1, 1, 1, 1),
        image_size=64,
        token_mixers=("convolution", "convolution", mixer, mixer),
    )
    assert model(images()).shape == (2, 1000)


def test_other_grids_and_models_are_refused():
    mixer = GridLinformerAttention(8, 2, Grid(4, 4), 4)
    with pytest.raises(VitrailError, match="4 x 4, and the image gives"):
        mixer(torch.zeros(1, 12, 8), Grid(3, 4))
    with pytest.raises(VitrailError, match="no place for 5 prefix"):
        region_means(Grid(2, 2, 5), 5)
    with pytest.raises(VitrailError, match="no attention over images"):
        compress(small("poolformer"), CompressSettings(attention="star"))
    with pytest.raises(VitrailError, match="height, width, prefix"):
        SwapAttention("star", 2, {"a": [1, 2]})
    with pytest.raises(VitrailError, match="Unknown mixer"):
        SwapAttention("lineformer", 2, {"a": [1, 2, 0]})
    with pytest.raises(VitrailError, match="goes with attention"):
        CompressSettings(attention_size=3)
    pruned = compress(small("vit"), CompressSettings(heads=0.5))
    with pytest.raises(VitrailError, match="has lost heads"):
        apply_edits(pruned, SwapAttention("star", 2, {"backbone.stages.0.blocks.0.token_mixer": [4, 4, 1]}))
    assert isinstance(pruned.backbone, nn.Module)


@pytest.mark.parametrize("to", ["linformer", "star"])
def test_a_model_without_data_is_rebuilt(to):
    """A training writes its weights by way of a model on the meta device."""
    model = small("vit")
    side = 64 // model.config.patch_size
    edit = SwapAttention(to, 2, {"backbone.stages.0.blocks.0.token_mixer": (side, side, 1)})
    apply_edits(model, edit)
    with torch.device("meta"):
        shell = small("vit")
    replay(shell.to("meta"), [edit])
    shell.load_state_dict(model.state_dict(), assign=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(shell.eval()(images), model.eval()(images))


def test_maps_of_swapped_attention():
    """Linformer's keys are shared among the tokens of their rows; the stages of a star have no map of the tokens."""
    for to, count in (("linformer", 2), ("star", 0)):
        model = small("vit").eval()
        side = 64 // model.config.patch_size
        names = swappable_mixers(model)
        apply_edits(model, SwapAttention(to, 5, dict.fromkeys(names, (side, side, 1))))
        assert len(attending_blocks(model)) == count
        if count:
            with attention_maps(model) as maps:
                model(images())
            found = maps[0].probabilities
            assert found.shape[-2:] == (side * side + 1, side * side + 1)
            torch.testing.assert_close(found.sum(-1), torch.ones(found.shape[:-1]))
