"""Models of point clouds: slow twins of their parts, permutations, padding, gradients, folders, bad input."""

import math

import pytest
import torch
from torch import Tensor, nn

from vitrail.errors import DataError, VitrailError
from vitrail.layouts import PointSet
from vitrail.models import create_model
from vitrail.parts.point_model import canonical_order
from vitrail.parts.point_transforms import TNet
from vitrail.parts.set_abstraction import SetAbstraction
from vitrail.parts.set_attention import AttentionPooledSet, InducedSetAttention, SetAttention, SetSelfAttention
from vitrail.parts.sort_net import LocalFeatures, SortNet
from vitrail.point_sampling import PointSampling
from vitrail.training.param_groups import parameter_groups
from vitrail.weights.folder import load_model, save_model

SMALL = {
    "pointnet": {"dim": 8, "global_dim": 32},
    "pointnet_vanilla": {"dim": 8, "global_dim": 32},
    "set_transformer_modelnet40": {"dim": 16, "inducing_points": 3, "num_heads": 2},
    "point_transformer_engel": {"dim": 64, "sort_nets": 2, "picks": 6, "centers": (12, 8), "num_heads": 2},
}
PARTS = {"dim": 64, "sort_nets": 2, "picks": 6, "centers": (12, 8), "num_heads": 2, "num_classes": 5}


def small(name: str, **overrides):
    model = create_model(name, **{"num_classes": 5, **SMALL[name], **overrides}).eval()
    with torch.no_grad():
        for key, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.is_floating_point() and "running_var" not in key:
                fan_in = value[0].numel() if value.ndim > 1 else 4
                value.copy_(torch.randn_like(value) / fan_in**0.5 + (key.endswith("weight") and value.ndim == 1))
    return model


def cloud(batch: int = 2, points: int = 40, channels: int = 3) -> Tensor:
    return torch.randn(batch, points, channels) * 0.3


@pytest.mark.parametrize("name", SMALL)
def test_the_output_does_not_depend_on_the_order_of_points(name):
    model, x = small(name), cloud(points=70)
    x[:, 50:] = x[:, :20]  # duplicates too
    moved = torch.stack([each[torch.randperm(70)] for each in x])
    got, want = model(moved), model(x)
    assert (got - want).abs().max() <= 1e-6 * want.abs().max().clamp(min=1)
    if name == "point_transformer_engel":
        assert torch.equal(got, want)  # the order is canonical, so the arithmetic is the same
    assert (model(x + torch.tensor([0.0, 0.1, 0.0])) - want).abs().max() > 1e-4


def test_parts_of_a_point_transformer_move_with_their_points():
    model, x, order = (
        create_model("point_transformer_engel_parts", **PARTS).eval(),
        cloud(points=70),
        torch.randperm(70),
    )
    x[:, 50:] = x[:, :20]  # duplicates too
    want = model(x)
    assert want.shape == (2, 70, 5) and torch.equal(model(x[:, order]), want[:, order])
    assert torch.equal(want[:, 50:], want[:, :20])  # equal points have equal parts
    model.train()(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_every_weight_learns_and_is_in_one_layer(name):
    model = small(name).train()
    model(cloud(4)).square().sum().backward()
    rest = [key for key, p in model.named_parameters() if p.grad is None]
    assert rest == []
    groups = parameter_groups(model, weight_decay=0.1, layer_decay=0.5)
    held = [p for group in groups for p in group["params"]]
    assert len(held) == len(set(held)) == len(list(model.parameters()))


@pytest.mark.parametrize("name", SMALL)
def test_a_model_folder_keeps_the_model_and_its_sampling(name, tmp_path):
    model = small(name, sampling=PointSampling(40, "farthest"))
    model.labels = tuple("abcde")
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model").eval()
    x = cloud()
    assert torch.equal(again(x), model(x)) and again.labels == model.labels
    assert again.inputs == PointSampling(40, "farthest") and again.task == "points"


@pytest.mark.parametrize("name", SMALL)
def test_clouds_of_a_batch_are_independent(name):
    model, x = small(name), cloud(3)
    assert torch.allclose(model(x)[1:2], model(x[1:2]), atol=1e-6)


@pytest.mark.parametrize("name", SMALL)
def test_invalid_clouds_are_refused(name):
    model = small(name)
    for shape in ((2, 40, 4), (40, 3), (2, 0, 3)):
        with pytest.raises(VitrailError, match=r"Clouds need the shape \(B, N, 3\)"):
            model(torch.zeros(shape))


def test_a_point_transformer_needs_enough_points_and_finite_ones():
    model = small("point_transformer_engel")
    with pytest.raises(VitrailError, match="too small: 12 are chosen"):
        model(cloud(points=7))
    x = cloud()
    x[1, 3, 0] = torch.nan
    with pytest.raises(DataError, match="must be finite"):
        model(x)
    assert torch.isfinite(model(torch.zeros(2, 40, 3))).all()  # all points are one
    assert torch.isfinite(model(torch.linspace(0, 1, 40)[None, :, None].expand(2, -1, 3))).all()


def mab(block: SetAttention, x: Tensor, keys: Tensor) -> Tensor:
    """Compute a multi-head attention block of one set, query by query and head by head."""
    q, k, v = block.q(x), block.k(keys), block.v(keys)
    width = q.shape[1] // block.num_heads
    rows = []
    for i in range(len(x)):
        heads = []
        for start in range(0, q.shape[1], width):
            part = slice(start, start + width)
            scores = torch.stack([(q[i, part] * k[j, part]).sum() / math.sqrt(q.shape[1]) for j in range(len(keys))])
            shares = scores.exp() / scores.exp().sum()
            heads.append(q[i, part] + sum(shares[j] * v[j, part] for j in range(len(keys))))
        hidden = block.norm1(torch.cat(heads))
        rows.append(block.norm2(hidden + torch.relu(block.proj(hidden))))
    return torch.stack(rows)


@pytest.mark.parametrize(("points", "norm"), [(1, nn.Identity), (7, nn.LayerNorm), (4, nn.Identity)])
def test_blocks_of_sets_are_the_loops_of_the_paper(points, norm):
    x = torch.randn(2, points, 6, dtype=torch.float64)
    layout = PointSet(x)
    sab, isab = SetSelfAttention(6, 8, 2, norm).double(), InducedSetAttention(6, 8, 4, 3, norm).double()
    pma = AttentionPooledSet(6, 3, 2, norm).double()
    for block, loop in (
        (sab, lambda s: mab(sab.block, s, s)),
        (isab, lambda s: mab(isab.write, s, mab(isab.read, isab.inducing, s))),
        (pma, lambda s: mab(pma.block, pma.seeds, s)),
    ):
        want = torch.stack([loop(each) for each in x])
        got = block(x, layout)
        assert torch.allclose(got, want, atol=1e-12)
        weights = list(block.parameters())
        grads = zip(
            torch.autograd.grad(got.square().sum(), weights),
            torch.autograd.grad(want.square().sum(), weights),
            strict=True,
        )
        assert all(torch.allclose(a, b, atol=1e-10) for a, b in grads)


def test_padding_of_sets_is_not_read():
    model, x = small("set_transformer_modelnet40"), cloud(2, 9)
    want = torch.cat([model(x[:1]), model(x[1:, :4])])
    x[1, 4:] = 1e4
    assert torch.allclose(model(x, lengths=torch.tensor([9, 4])), want, atol=1e-5)


def test_a_set_transformer_with_several_outputs():
    model = small("set_transformer_modelnet40", seeds=3, decoder_depth=2, in_channels=2)
    assert model(cloud(channels=2)).shape == (2, 3, 5)


def test_a_sort_net_is_a_sort_by_a_learned_score():
    net, features = SortNet(8, 5, (6, 4)).eval(), torch.randn(2, 30, 8)
    picks = net(features)
    for sample in range(2):
        scores = []
        for point in features[sample]:
            y = point[None, None]
            for layer in net.score:
                y = layer(y)
            scores.append(y.item())
        order = sorted(range(30), key=lambda i: -scores[i])[:5]
        assert picks.index[sample].tolist() == order
        assert picks.scores[sample].tolist() == pytest.approx([scores[i] for i in order], abs=1e-6)


def test_local_features_are_point_surroundings_and_score():
    local = LocalFeatures([SortNet(8, 2, (6, 4)), SortNet(8, 3, (6, 4))], 3, 16, radius=0.4, size=4).eval()
    points, features = canonical_order(cloud(2, 25)), torch.randn(2, 25, 8)
    got, picks = local(points, features), local.picks(features)
    assert got.shape == (2, 5, 16)
    assert not torch.equal(local.sort_nets[0].score[0].weight, local.sort_nets[1].score[0].weight)
    index, scores = torch.cat([p.index for p in picks], 1), torch.cat([p.scores for p in picks], 1)
    for place in range(5):
        centre = points[1, index[1, place]]
        near = [j for j in range(25) if ((points[1, j] - centre) ** 2).sum() <= 0.4**2][:4]
        near += near[:1] * (4 - len(near))
        vector = torch.cat([centre, *(points[1, j] for j in near)])
        want = torch.cat([centre, local.surroundings(vector[None, None])[0, 0], scores[1, place, None]])
        assert torch.allclose(got[1, place], want, atol=1e-6)
    got.sum().backward()
    assert all(p.grad is not None for p in local.parameters())  # the scores carry gradients to the SortNets


def test_set_abstraction_is_the_loop_of_the_paper():
    block = SetAbstraction(4, (0.2, 0.5), (3, 6), 2, ((5,), (4, 7))).eval()
    points, features = cloud(1, 20), torch.randn(1, 20, 2)
    centres, got = block(points, features)
    for m in range(4):
        scales = []
        for radius, size, mlp in zip(block.radii, block.sizes, block.scales, strict=True):
            near = [j for j in range(20) if ((points[0, j] - centres[0, m]) ** 2).sum() <= radius**2][:size]
            rows = torch.stack([torch.cat([points[0, j] - centres[0, m], features[0, j]]) for j in near])
            scales.append(mlp(rows[None])[0].amax(0))
        assert torch.allclose(got[0, m], torch.cat(scales), atol=1e-6)


def test_t_nets_start_as_the_identity_and_are_kept_near_rotations():
    net, x = TNet(4, widths=((8,), (8,)), penalty=0.5), torch.randn(3, 9, 4)
    assert torch.equal(net(x), x) and net.auxiliary_loss() == 0.0
    nn.init.normal_(net.linear.weight, std=0.3)
    net(x)
    matrices = net.matrices(x)
    want = 0.5 * sum(((torch.eye(4) - a @ a.T) ** 2).sum() for a in matrices) / 3
    assert net.auxiliary_loss().item() == pytest.approx(want.item(), rel=1e-4)
    assert net.auxiliary_loss() == 0.0  # of one forward pass
    net.eval()(x)
    assert net.auxiliary_loss() == 0.0


def test_canonical_order_is_that_of_python():
    x = torch.randint(0, 3, (2, 30, 3)).float()
    assert canonical_order(x).tolist() == [sorted(each) for each in x.tolist()]


def test_normals_are_channels():
    model = small("point_transformer_engel", in_channels=6)
    assert model(cloud(channels=6)).shape == (2, 5)
    assert small("pointnet", in_channels=6)(cloud(channels=6)).shape == (2, 5)
