"""Maps equal the kernel's probabilities, have the right location, and leave no hooks in the model."""

import pytest
import torch
from torch import Tensor, nn

from vitrail.errors import VitrailError
from vitrail.explain.blocks import MixingBlock
from vitrail.explain.influence import influence_maps
from vitrail.explain.maps import attention_maps
from vitrail.explain.token_map import BlockContext, TokenMap
from vitrail.explain.token_query import Pixel
from vitrail.grid import Grid
from vitrail.kernels.window.reference import join
from vitrail.models import create_model
from vitrail.parts.attend import Attend
from vitrail.parts.stages import Stage
from vitrail.parts.token_mixers.neighborhood_attention import NeighborhoodAttention
from vitrail.parts.token_mixers.window_attention import WindowAttention


class Given(TokenMap):
    """A map with probabilities written down by hand."""

    def __init__(self, grid: Grid, slots: Tensor, probabilities: Tensor, image_size: tuple[int, int]):
        super().__init__(BlockContext(MixingBlock("by hand", 0, 0, nn.Identity(), "0"), grid, image_size), slots)
        self._probabilities = probabilities

    @property
    def probabilities(self) -> Tensor:
        return self._probabilities


def in_groups(map, v: Tensor) -> Tensor:
    """Return the values that meet, `(B, G, h, m, d)`."""
    if not isinstance(map.block.module, NeighborhoodAttention):
        return v.reshape(2, len(map.slots), *v.shape[-3:])
    cells = v[:, : map.grid.h, : map.grid.w].flatten(1, 2)  # (B, N, h, d)
    padding = map.block.module.qkv.bias.chunk(3)[2].reshape(1, 1, *v.shape[-2:])  # the projection of zeros
    return torch.cat([cells, padding.expand(2, -1, -1, -1)], 1)[:, map.keys].transpose(2, 3)


@torch.no_grad()
def test_probabilities_times_values_equal_the_mixer_output(attending, images):
    seen = []
    leaves = [module for module in attending.modules() if isinstance(module, Attend)]
    hooks = [
        leaf.register_forward_hook(lambda leaf, args, out: seen.append((leaf.operands(*args)[2], out)))
        for leaf in leaves
    ]
    with attention_maps(attending) as maps:
        attending(images)
    assert len(maps) == len(seen) == len(leaves) >= 2
    for map, (v, out) in zip(maps, seen, strict=True):
        p = map.key_probabilities
        assert (p.sum(-1) - 1).abs().max() < 1e-5
        again = p @ in_groups(map, v)
        if isinstance(map.block.module, WindowAttention):
            again = join(again, map.slots, map.grid.tokens)  # its leaf brings the tokens back to where they lie
        assert (again - out.reshape_as(again)).abs().max() <= 1e-5 * out.abs().max()
        assert p.max() > 2 / p.shape[-1]  # not the uniform map, which would hide a transposition
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def test_dense_maps_are_the_groups_put_in_place_one_by_one(attending, images):
    with attention_maps(attending) as maps:
        attending(images)
    for map in maps:
        p, slots, keys = map.probabilities, map.slots.tolist(), map.keys.tolist()
        dense, lost = (
            torch.zeros(2, p.shape[2], map.grid.tokens, map.grid.tokens),
            torch.zeros(2, p.shape[2], map.grid.tokens),
        )
        for g, (asking, asked) in enumerate(zip(slots, keys, strict=True)):
            for a, query in enumerate(asking):
                for b, key in enumerate(asked):
                    if query >= 0 and key >= 0:
                        dense[:, :, query, key] += p[:, g, :, a, b]
                    elif query >= 0:
                        lost[:, :, query] += p[:, g, :, a, b]
        assert torch.equal(map.dense(), dense)
        assert torch.allclose(map.padding(), lost, atol=1e-6)
        assert torch.allclose(map.dense().sum(-1) + map.padding(), torch.ones(()), atol=1e-5)
        for query in (0, map.grid.tokens - 1, map.grid.tokens // 2):
            assert torch.equal(map.row(query), dense[:, :, query])
        mean = dense.sum(2) / map.grid.tokens
        assert torch.allclose(map.received(), map.over_cells(mean), atol=1e-6)


def test_a_dense_map_is_nonzero_where_the_gradient_is(attending, images):
    """The Jacobian of the mixer, which knows nothing of slots, is the witness."""
    images = images[:1]
    with attention_maps(attending) as maps, torch.no_grad():
        attending(images)
    for map, influence in zip(maps, influence_maps(attending, images, probes=2), strict=True):
        assert map.name == influence.name and map.grid == influence.grid
        listens = map.dense()[0].amax(0) > 1e-12  # the official mask of -100 leaves e-44
        listens.fill_diagonal_(True)  # a query moves its own result, also if it is part of no key of a reduced map
        moves = influence.norms[0] > 1e-12 * influence.norms.max()
        assert torch.equal(listens, moves)


def test_padding_takes_a_share_under_the_official_edge_and_none_under_the_masked_one(build, images):
    shares = {}
    for kind in ("swin", "swin masked"):
        model = build(kind)
        with attention_maps(model) as maps, torch.no_grad():
            model(images)
        shares[kind] = max(float(map.padding().max()) for map in maps)
    assert shares["swin"] > 0.01
    assert shares["swin masked"] == 0


def test_locations_convert_between_cells_tokens_and_pixels():
    grid = Grid(2, 3, prefix=1)
    map = Given(grid, torch.arange(7)[None], torch.eye(7)[None, None, None], image_size=(32, 48))
    assert map.cell == (16, 16)
    assert map.centres.tolist() == [[8, 8], [8, 24], [8, 40], [24, 8], [24, 24], [24, 40]]
    for query in (5, (1, 1), Pixel(17, 30)):
        assert map.row_map(query)[0, 0].tolist() == [[0, 0, 0], [0, 1, 0]]
    assert map.row(0)[0, 0].tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert map.place.everywhere(5) == Pixel(24, 24) and map.place.everywhere(0) == 0


@pytest.mark.parametrize("query", [7, -1, (2, 0), (0, 3), (-1, 0), Pixel(32, 0), Pixel(0, -1)])
def test_a_location_outside_the_grid_is_an_error(query):
    map = Given(Grid(2, 3, prefix=1), torch.arange(7)[None], torch.eye(7)[None, None, None], image_size=(32, 48))
    with pytest.raises(VitrailError, match="There is no"):
        map.row(query)


def _hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_capturing_leaves_no_hooks_and_changes_no_output(attending, images):
    attending.train()
    attending.head.eval()
    modes = [module.training for module in attending.modules()]
    attending.eval()
    with torch.no_grad():
        plain = attending(images)
        with attention_maps(attending):
            assert torch.equal(attending(images), plain)
        assert torch.equal(attending(images), plain)
    attending.train()
    attending.head.eval()
    with attention_maps(attending):
        attending(images)
        assert _hooks(attending) > 0
    assert _hooks(attending) == 0
    assert [module.training for module in attending.modules()] == modes


def test_hooks_are_gone_after_an_error(attending, images):
    with pytest.raises(RuntimeError, match="on purpose"), attention_maps(attending):
        attending(images)
        raise RuntimeError("on purpose")
    assert _hooks(attending) == 0


def test_no_map_is_computed_while_the_model_runs(attending, images, monkeypatch):
    computed = []
    leaf = next(type(module) for module in attending.modules() if isinstance(module, Attend))
    reference = leaf.maps
    monkeypatch.setattr(leaf, "maps", lambda *args: computed.append(1) or reference(*args))
    with attention_maps(attending) as maps:
        attending(images)
    assert not computed
    assert maps[0].probabilities.requires_grad is False
    assert len(computed) == 1


@torch.no_grad()
def test_a_new_pass_replaces_the_maps_of_the_one_before(attending, images):
    with attention_maps(attending) as maps:
        attending(images)
        first = maps[-1].probabilities
        attending(images + 1)
    assert len(maps) == len([m for m in attending.modules() if isinstance(m, Attend)])
    assert not torch.equal(first, maps[-1].probabilities)


@torch.no_grad()
def test_streaming_yields_each_block_and_stores_none(attending, images):
    with attention_maps(attending) as maps:
        attending(images)
    streamed = []
    with attention_maps(attending, on_map=lambda map: streamed.append((map.name, map.probabilities))) as kept:
        attending(images)
    assert len(kept) == 0
    assert [name for name, _ in streamed] == [map.name for map in maps]
    assert all(torch.equal(p, map.probabilities) for (_, p), map in zip(streamed, maps, strict=True))


def test_maps_of_half_precision_are_computed_in_single(build, images):
    model = build("vit").to(torch.bfloat16)
    with attention_maps(model) as maps, torch.no_grad():
        model(images.to(torch.bfloat16))
    assert maps[0].probabilities.dtype == torch.float32
    assert (maps[0].probabilities.sum(-1) - 1).abs().max() < 1e-6


def test_a_model_without_attention_names_other_methods(without_attention):
    with pytest.raises(VitrailError) as caught, attention_maps(without_attention):
        pass
    said = str(caught.value)
    assert without_attention.variant in said and "swin" in said and "vit" in said and "influence" in said
    assert "poolformer," not in said and len(said.splitlines()) <= 6


def test_a_model_that_did_not_run_is_an_error_and_not_an_empty_list(attending, images):
    with pytest.raises(VitrailError, match="did not run"), attention_maps(attending):
        pass
    with attention_maps(attending) as maps:
        with pytest.raises(VitrailError, match="no maps yet"):
            maps[0]
        attending(images)
        with pytest.raises(VitrailError, match="There is no block 99"):
            maps[99]
        with pytest.raises(VitrailError, match=r"Did you mean: .*blocks\.1\.token_mixer"):
            maps["backbone.stages.0.blocks.1.token_mixr"]
        assert maps["backbone.stages.0.blocks.1.token_mixer"] is maps[1]


def test_only_catalogue_models_have_maps():
    with pytest.raises(VitrailError, match="Cannot look inside Linear"), attention_maps(nn.Linear(2, 2)):
        pass
    with pytest.raises(VitrailError, match="Cannot look inside Stage"), attention_maps(Stage([])):
        pass


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("halonet50ts", {"dim": 16, "depths": (1, 3), "attention": ((), (1, 2)), "num_heads": (2, 2)}),
        ("sasa_resnet26", {"dim": 32, "depths": (3,)}),
        ("nonlocal1_resnet50", {"dim": 8, "depths": (1, 3), "blocks": ((), (1, 2))}),
        ("vt_resnet50", {"dim": 8, "depths": (1,), "depth": 2}),
    ],
)
@torch.no_grad()
def test_attention_in_a_resnet_has_maps(name, numbers, images):
    model = create_model(name, num_classes=5, **numbers).eval()
    with attention_maps(model) as maps:
        model(images)
    assert [map.block.index for map in maps] == [0, 1]  # entries of stages change the grid and have none
    for map in maps:
        total = map.dense().sum(-1)  # the rest is the share of padding
        assert (total <= 1 + 1e-5).all() and (total[..., : map.grid.prefix or None] > 0).all()
        if name == "nonlocal1_resnet50":
            torch.testing.assert_close(total, torch.ones_like(total))
