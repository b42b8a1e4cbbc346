"""Weights of eight and four bits: optimal clusters, bounds of errors, folders, and everything that runs a model."""

from itertools import combinations

import pytest
import torch
from small_models import small
from torch import nn

from vitrail.edits.edit import apply_edits
from vitrail.edits.fake_quantize import FakeQuantizeWeights
from vitrail.edits.quantize import QuantizeWeights, quantizable_layers, quantize_weights, with_dense_weights
from vitrail.errors import VitrailError
from vitrail.kernels.kmeans import cpp as native_kmeans
from vitrail.kernels.kmeans import reference as kmeans
from vitrail.kernels.lookup_linear import cpp as native_lookup
from vitrail.kernels.lookup_linear import lookup_linear, reference
from vitrail.parts.quantized_linear import FORMATS, CodebookLinear, Int4Linear, Int8Linear, absmax, dense, least_squares
from vitrail.weights.folder import load_model, save_model


def images(count=2):
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def spread(values, weights, centers):
    """Return the weighted squared distances to the nearest center."""
    return float((weights * (values[:, None] - centers).square().amin(1)).sum())


def least_of_all(values, weights, k):
    """Try every way to cut sorted values into k runs."""
    order = values.argsort()
    x, w = values[order].double(), weights[order].double()
    best = float("inf")
    for cuts in combinations(range(1, len(x)), k - 1):
        parts = [slice(a, b) for a, b in zip((0, *cuts), (*cuts, len(x)), strict=True)]
        means = [(w[part] * x[part]).sum() / w[part].sum() for part in parts]
        best = min(best, sum(float((w[part] * (x[part] - m) ** 2).sum()) for part, m in zip(parts, means, strict=True)))
    return best


@pytest.mark.parametrize("room", [kmeans, native_kmeans], ids=["reference", "cpp"])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 2), (9, 3), (10, 4), (8, 8)])
def test_clusters_are_optimal(room, n, k):
    if room is native_kmeans and room.unsupported_reason(torch.zeros(2), torch.ones(2), 1):
        pytest.skip("no compiler")
    for _ in range(4):
        values, weights = torch.randn(n), torch.rand(n) + 0.01
        centers = room.kmeans(values, weights, k)
        assert spread(values.double(), weights.double(), centers) == pytest.approx(
            least_of_all(values, weights, k), abs=1e-9
        )
        assert torch.equal(centers, centers.sort().values)


@pytest.mark.parametrize("room", [kmeans, native_kmeans], ids=["reference", "cpp"])
def test_equal_values_zero_weights_and_few_values(room):
    if room is native_kmeans and room.unsupported_reason(torch.zeros(2), torch.ones(2), 1):
        pytest.skip("no compiler")
    assert room.kmeans(torch.ones(5), torch.ones(5), 3).tolist() == [1.0, 1.0, 1.0]
    assert room.kmeans(torch.tensor([2.0, 0.0]), torch.ones(2), 4).tolist()[:2] == [0.0, 2.0]
    assert room.kmeans(torch.tensor([1.0, 3.0]), torch.zeros(2), 1).isfinite().all()
    with pytest.raises(VitrailError, match="finite"):
        room.kmeans(torch.tensor([1.0, float("nan")]), torch.ones(2), 1)


def test_native_clusters_equal_the_reference():
    if native_kmeans.unsupported_reason(torch.zeros(2), torch.ones(2), 1):
        pytest.skip("no compiler")
    values, weights = torch.randn(700), torch.rand(700)
    assert torch.equal(native_kmeans.kmeans(values, weights, 16), kmeans.kmeans(values, weights, 16))


@pytest.mark.parametrize("rows", [1, 3, 8, 9])
@pytest.mark.parametrize(("out", "columns", "group"), [(70, 100, 64), (3, 32, 32), (65, 33, 64)])
def test_native_lookup_equals_the_reference(rows, out, columns, group):
    codes = reference.pack_codes(torch.randint(0, 16, (out, columns)))
    for tables in (torch.randn(1, 16), torch.randn(-(-out // 64), 16)):
        given = torch.randn(rows, columns), codes, tables, torch.rand(out, -(-columns // group)), group
        if native_lookup.unsupported_reason(*given):
            pytest.skip("no compiler")
        assert torch.allclose(native_lookup.lookup_linear(*given), reference.lookup_linear(*given), atol=1e-4)


def test_codes_survive_packing():
    codes = torch.randint(0, 16, (5, 77))
    packed = reference.pack_codes(codes)
    assert packed.shape == (5, 48) and torch.equal(reference.unpack_codes(packed)[:, :77], codes.to(torch.uint8))


def test_errors_are_half_a_step_at_most():
    weight = torch.randn(70, 100)
    for kind, steps in ((Int8Linear, 127), (Int4Linear, 7)):
        layer = kind(100, 70)
        layer.encode(weight, absmax)
        step = weight.abs().amax(1, keepdim=True) / steps
        assert ((layer.weight - weight).abs() <= 0.505 * step).all()


def test_least_squares_is_never_worse_than_the_largest_weight():
    groups = torch.randn(50, 64) ** 3
    errors = []
    for rule in (absmax, least_squares):
        scale = rule(groups, 7)
        errors.append((groups - scale * (groups / scale).round().clamp(-7, 7)).square().sum(1))
    assert (errors[1] <= errors[0]).all() and (errors[1] < errors[0]).any()


def test_importance_moves_the_codebook():
    weight, moments = torch.randn(64, 96), torch.cat([torch.full((48,), 1e3), torch.full((48,), 1e-3)])
    plain, aware = CodebookLinear(96, 64), CodebookLinear(96, 64)
    plain.encode(weight, absmax)
    aware.encode(weight, absmax, moments)
    errors = [((layer.weight - weight).square() * moments).sum() for layer in (plain, aware)]
    assert errors[1] < errors[0]


def test_codebooks_beat_even_steps_of_as_many_bits():
    weight = torch.randn(64, 128)
    errors = {}
    for name, kind in FORMATS.items():
        layer = kind(128, 64)
        layer.encode(weight, least_squares)
        errors[name] = float((layer.weight - weight).square().mean())
    assert errors["int8"] < errors["codebook"] < errors["int4"]


def test_zero_rows_stay_zero():
    for kind in FORMATS.values():
        layer = kind(40, 3)
        layer.encode(torch.zeros(3, 40), absmax)
        assert torch.equal(layer.weight, torch.zeros(3, 40))


@pytest.mark.parametrize("name", [*FORMATS])
def test_a_folder_is_smaller_and_gives_the_same_model(name, tmp_path):
    model = small("vit", dim=96)
    wanted = {key: value.clone() for key, value in model.state_dict().items()}
    save_model(model, tmp_path / "whole")
    quantize_weights(model, dict.fromkeys(quantizable_layers(model), name))
    folder = save_model(model, tmp_path / "packed")
    loaded = load_model(folder)
    with torch.no_grad():
        assert torch.equal(loaded(images()), model(images()))
        assert torch.allclose(with_dense_weights(loaded)(images()), loaded(images()), atol=1e-4)
    again = save_model(loaded, tmp_path / "again")
    assert all((again / path.name).read_bytes() == path.read_bytes() for path in folder.iterdir())
    whole, packed = ((tmp_path / kind / "model.safetensors").stat().st_size for kind in ("whole", "packed"))
    layers = quantizable_layers(small("vit", dim=96))
    rest = whole - 4 * sum(layers.values())
    assert packed < rest + sum(layers.values()) * (1.1 if name == "int8" else 0.6) + 20_000
    cards = [(tmp_path / kind / "README.md").read_text() for kind in ("whole", "packed")]
    assert len({line for card in cards for line in card.splitlines() if "parameters" in line.lower()}) == 1
    bits = 0.01 if name == "int8" else 0.35
    for layer in layers:
        got = loaded.get_submodule(layer).weight
        assert (got - wanted[f"{layer}.weight"]).norm() < bits * got.norm()


@pytest.mark.parametrize("name", ["swin official", "pvt", "mixer", "convnext", "cait"])
def test_every_architecture_runs_with_packed_weights(name):
    model = small(name)
    with torch.no_grad():
        before = model(images())
        quantize_weights(model, dict.fromkeys(quantizable_layers(model, least=1), "int8"))
        assert (model(images()) - before).norm() < 0.1 * before.norm()


def test_training_leaves_packed_weights_alone():
    model = small("vit")
    layer = "backbone.stages.0.blocks.0.channel_mixer.fc1"
    quantize_weights(model, {layer: "int4"})
    model.train()(images()).sum().backward()
    assert all(value.grad is not None for value in model.parameters())
    assert model.get_submodule(layer).bias.grad is not None and f"{layer}.weight" not in dict(model.named_parameters())


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_rounded_training_ends_in_the_codes_that_it_used(name):
    model = small("vit")
    layers = dict.fromkeys(quantizable_layers(model), name)
    apply_edits(model, FakeQuantizeWeights(layers))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(3):
        loss = model.train()(images()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] and all(value.grad.abs().sum() > 0 for value in model.parameters())
    with torch.no_grad():
        rounded = model.eval()(images())
        quantize_weights(model, layers)
        assert torch.allclose(model(images()), rounded, atol=1e-5)
    assert [edit.kind for edit in model.edits] == ["fake_quantize", "quantize_weights"]


def test_shared_and_other_layers_are_refused():
    model = small("vit")
    layer = "backbone.stages.0.blocks.0.channel_mixer.fc1"
    with pytest.raises(VitrailError, match="no plain linear"):
        QuantizeWeights({"backbone.norm": "int8"}).apply(model)
    with pytest.raises(VitrailError, match="int4, int8"):
        QuantizeWeights({layer: "int3"})
    with pytest.raises(VitrailError, match="rounded weights"):
        FakeQuantizeWeights({layer: "codebook"})
    model.get_submodule(layer).weight = nn.Parameter(model.backbone.stages[0].blocks[1].channel_mixer.fc1.weight.data)
    model.backbone.stages[0].blocks[1].channel_mixer.fc1.weight = model.get_submodule(layer).weight
    with pytest.raises(VitrailError, match="shared"):
        QuantizeWeights({layer: "int8"}).apply(model)


def test_dense_layers_are_copies():
    layer = Int8Linear(8, 4)
    layer.encode(torch.randn(4, 8), absmax)
    plain = dense(layer)
    with torch.no_grad():
        plain.bias.add_(1)
    assert torch.equal(layer.bias, torch.zeros(4)) and type(plain) is nn.Linear


def test_lookup_passes_gradients_to_its_input():
    x = torch.randn(2, 40, requires_grad=True)
    codes = reference.pack_codes(torch.randint(0, 16, (5, 40)))
    given = codes, torch.randn(1, 16), torch.rand(5, 1), 64
    lookup_linear(x, *given).sum().backward()
    assert torch.allclose(x.grad, reference.lookup_dense(*given)[:, :40].sum(0).expand(2, -1), atol=1e-5)
