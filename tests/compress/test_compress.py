"""Scores, least squares, ranks and the choice of blocks, each against its definition."""

import re

import pytest
import torch
from small_models import relative, small
from torch import nn

from vitrail.bench.statistics import Quantiles
from vitrail.compress.calibration_data import CalibrationBatch, damage, reference_outputs
from vitrail.compress.compress import compress, idle_share, kept_heads, kept_hidden, prune_heads
from vitrail.compress.depth import kept_blocks
from vitrail.compress.gates import masked
from vitrail.compress.measure import Latency, figures
from vitrail.compress.moments import InputMoments, input_moments
from vitrail.compress.plan import Aim
from vitrail.compress.ranks import low_rank_layers, nearest_factors, ranks_by_budget, ranks_by_energy, spectrum
from vitrail.compress.refit import refitted
from vitrail.compress.scores import head_scores, hidden_scores
from vitrail.compress.settings import CompressSettings
from vitrail.edits.edit import apply_edits
from vitrail.edits.heads import prunable_heads
from vitrail.edits.low_rank import LowRank, factors
from vitrail.errors import VitrailError

MIXERS = [f"backbone.stages.0.blocks.{i}.token_mixer" for i in range(2)]


def images(count=4, seed=0):
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model():
    return small("vit")


@pytest.fixture(scope="module")
def probes():
    x, labels = images(), torch.tensor([0, 1, 2, 3])
    return [CalibrationBatch(lambda model: model(x), lambda logits: nn.functional.cross_entropy(logits, labels))]


def test_gradient_scores_are_those_of_a_finite_difference(model, probes):
    """E |dL/dg| of each sample on its own, g a factor of one head."""
    model = model.double()
    try:
        x, labels = images(2).double(), torch.tensor([1, 2])
        both = [CalibrationBatch(lambda model: model(x), lambda out: nn.functional.cross_entropy(out, labels))]
        got = head_scores(model, "gradient-l2", both)
        step, wanted = 1e-5, {}
        for name in MIXERS:
            scores = []
            for head in range(3):
                factor = torch.ones(3).double().repeat_interleave(8)
                losses = []
                for sign in (1, -1):
                    factor[head * 8 : (head + 1) * 8] = 1 + sign * step
                    proj = model.get_submodule(f"{name}.proj")
                    hook = proj.register_forward_pre_hook(lambda module, given, f=factor: (given[0] * f,))
                    with torch.no_grad():
                        losses.append(nn.functional.cross_entropy(model(x), labels, reduction="none"))
                    hook.remove()
                scores.append(((losses[0] - losses[1]) / (2 * step)).abs().sum())
            wanted[name] = torch.stack(scores) / torch.stack(scores).norm()
        for name in MIXERS:
            torch.testing.assert_close(got[name], wanted[name].double(), atol=1e-6, rtol=1e-5)
    finally:
        model.float()


@pytest.mark.parametrize("how", ["gradient", "gradient-l2", "activation", "magnitude"])
def test_useless_heads_and_channels_have_the_lowest_score(how, probes):
    model = small("vit")
    with torch.no_grad():
        proj, mlp = model.get_submodule(MIXERS[0]).proj, model.backbone.stages[0].blocks[1].channel_mixer
        proj.weight[:, 8:16] = 0
        mlp.fc2.weight[:, 5] = 0
    assert head_scores(model, how, probes)[MIXERS[0]].argmin() == 1
    assert hidden_scores(model, how, probes)["backbone.stages.0.blocks.1.channel_mixer"].argmin() == 5


def test_scores_of_outputs_need_no_labels(model):
    x = images()
    assert all(
        score.min() >= 0 for score in head_scores(model, "gradient", [CalibrationBatch(lambda m: m(x))]).values()
    )
    assert not torch.equal(*(head_scores(model, "random", seed=seed)[MIXERS[0]] for seed in (0, 1)))


def test_refitting_after_pruning_is_nearer_on_the_data_it_saw(probes):
    model = small("vit")
    keep = {name: [0, 2] for name in MIXERS[:1]}
    outputs = {}
    for refit in (False, True):
        pruned = small("vit")
        pruned.load_state_dict(model.state_dict())
        prune_heads(pruned, keep, probes if refit else ())
        with torch.no_grad():
            outputs[refit] = relative(pruned(images()), model(images()))
    with torch.no_grad(), masked(model, {f"{MIXERS[0]}.proj": 3}, {f"{MIXERS[0]}.proj": [0, 2]}):
        wanted = model(images())
    plain = small("vit")
    plain.load_state_dict(model.state_dict())
    prune_heads(plain, keep)
    with torch.no_grad():
        assert relative(plain(images()), wanted) < 1e-6
    assert outputs[True] < outputs[False]


@pytest.mark.parametrize("bias", [True, False])
def test_the_refit_is_the_least_squares_solution(bias):
    torch.manual_seed(0)
    x, layer = torch.randn(500, 6).double() @ torch.randn(6, 6).double() + 1, nn.Linear(6, 3, bias=bias).double()
    moments = input_moments(nn.Sequential(layer), ["0"], [CalibrationBatch(lambda model: model(x))])["0"]
    weight, offset = refitted(layer.weight, layer.bias, [0, 2, 5], moments._replace(rows=10**8))  # without a ridge
    inputs = torch.cat([x[:, [0, 2, 5]], torch.ones(500, 1).double()], 1) if bias else x[:, [0, 2, 5]]
    wanted = torch.linalg.lstsq(inputs, layer(x)).solution.T
    got = torch.cat([weight, offset[:, None]], 1) if bias else weight
    torch.testing.assert_close(got, wanted, atol=1e-3, rtol=1e-3)


def test_factors_are_the_nearest_of_their_rank_and_whole_at_full_rank():
    weight = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    values, errors = torch.linalg.svdvals(weight.double()), []
    for rank in range(1, 9):
        u, v = factors(weight, rank)
        errors.append(float((u.double() @ v.double() - weight).norm()))
        assert errors[-1] == pytest.approx(float(values[rank:].square().sum().sqrt()), abs=1e-5)  # Eckart and Young
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-5


def test_factors_on_data_are_nearest_in_its_metric():
    torch.manual_seed(0)
    x = torch.randn(2000, 8) @ torch.diag(torch.tensor([9.0, 5, 2, 1, 0.5, 0.2, 0.1, 0.05])) @ torch.randn(8, 8) + 2
    layer = nn.Linear(8, 12).requires_grad_(False)
    moments = input_moments(nn.Sequential(layer), ["0"], [CalibrationBatch(lambda model: model(x))])["0"]
    moments = moments._replace(rows=10**8)  # without a ridge
    plain, errors = factors(layer.weight, 2), []
    for u, v, b in ((*plain, layer.bias), nearest_factors(layer, 2, moments)):
        errors.append(float((x @ (u @ v).T + b - layer(x)).square().sum(1).mean()))
    tail = spectrum(layer, moments)[2:].square().sum()
    assert errors[1] < errors[0] and errors[1] == pytest.approx(float(tail), rel=1e-2)
    whole = nearest_factors(layer, 8, moments)
    torch.testing.assert_close(x @ (whole[0] @ whole[1]).T + whole[2], layer(x), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["vit", "swin official", "swin v2", "pvt v2", "nat", "eva02", "mixer"])
def test_full_rank_equals_the_model(name):
    model, whole = small(name), small(name)
    whole.load_state_dict(model.state_dict())
    layers = low_rank_layers(whole)
    assert layers and not any("position" in key or key.startswith("head.") for key in layers)
    apply_edits(whole, LowRank({key: min(layer.weight.shape) for key, layer in layers.items()}))
    with torch.no_grad():
        assert relative(whole(images()), model(images())) < 1e-5


def test_ranks_reach_their_energy_and_budget():
    values = {"a": torch.rand(64).sort(descending=True).values, "b": torch.rand(64).sort(descending=True).values}
    shapes = {"a": (64, 256), "b": (64, 64)}
    for name, rank in ranks_by_energy(values, shapes, 0.6).items():
        energy = values[name].square().cumsum(0) / values[name].square().sum()
        assert energy[rank - 1] >= 0.6 > (energy[rank - 9] if rank > 8 else 0) and rank % 8 == 0
    for share in (0.3, 0.6, 0.9):
        ranks = ranks_by_budget(values, shapes, share)
        weights = sum(ranks[n] * sum(shapes[n]) if n in ranks else shapes[n][0] * shapes[n][1] for n in shapes)
        assert weights <= share * (64 * 256 + 64 * 64) or "b" not in ranks


def test_a_model_of_fewer_blocks_is_the_model_whose_other_blocks_are_skipped(model):
    shallow = compress(model, CompressSettings(depth=1, blocks="even"))
    skipped = small("vit")
    skipped.load_state_dict(model.state_dict())
    skipped.backbone.stages[0].blocks[1].forward = lambda x, grid: x
    with torch.no_grad():
        assert torch.equal(shallow(images()), skipped(images()))


def test_the_greedy_choice_drops_an_identity_block():
    model = small("vit", depth=4)
    with torch.no_grad():
        idle = model.backbone.stages[0].blocks[2]
        for layer in (idle.token_mixer.proj, idle.channel_mixer.fc2):
            layer.weight.zero_()
            layer.bias.zero_()
    assert kept_blocks(model, 3, [CalibrationBatch(lambda model: model(images()))]) == {"backbone.stages.0": [0, 1, 3]}
    assert len(model.backbone.stages[0].blocks) == 4
    assert kept_blocks(small("swin official"), 2) == {"backbone.stages.0": [0], "backbone.stages.1": [0]}
    with pytest.raises(VitrailError, match="can keep 1 to 4 blocks"):
        kept_blocks(model, 5)


def test_everything_at_once_leaves_the_model_alone_and_becomes_smaller(model, probes):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    settings = CompressSettings(depth=1, heads=0.4, mlp=0.5, rank_share=0.6)
    said = []
    compressed = compress(model, settings, probes, said.append)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items()) and model.edits == ()
    assert [edit.kind for edit in compressed.edits] == ["drop_blocks", "prune_heads", "prune_hidden", "low_rank"]
    assert figures(compressed).parameters < 0.7 * figures(model).parameters
    assert compressed(images()).shape == (4, 10) and not said
    reference = reference_outputs(model, probes)
    assert damage(model, probes, reference) < damage(compressed, probes, reference) + 10


def test_impossible_requests_are_refused(model):
    with pytest.raises(VitrailError, match="is computed on data"):
        compress(model, CompressSettings(heads=0.5, score="gradient"))
    with pytest.raises(VitrailError, match="no attention whose heads"):
        compress(small("poolformer"), CompressSettings(heads=0.5))
    with pytest.raises(VitrailError, match="no MLP whose hidden"):
        compress(small("resnet"), CompressSettings(mlp=0.5))
    said = []
    with pytest.raises(VitrailError, match="no attention"):
        compress(small("deepvit"), CompressSettings(heads=0.5), note=said.append)
    assert "2 layers keep all heads" in said[0] and "HeadMixingAttend" in said[0]
    for wrong in ({"mlp": 1.0}, {"rank_energy": 0.0}, {"rank_energy": 0.5, "rank_share": 0.5}, {"depth": 0}):
        with pytest.raises(VitrailError):
            CompressSettings(**wrong)


def test_requested_shares_are_reached():
    scores = {name: torch.rand(6) for name in "abcd"}
    assert sum(map(len, kept_heads(scores, 0.5).values())) == 12
    assert min(map(len, kept_heads(scores, 0.99).values())) == 1
    assert {len(kept) % 16 for kept in kept_hidden({"a": torch.rand(768)}, 0.3).values()} == {0}
    assert prunable_heads(small("resnet")) == {}


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.2, 1.4, "faster"),
        (0.95, 1.3, "not faster"),
        (0.5, 0.8, "slower"),
        (5.3, 41.6, "unclear, as other work disturbed the timing"),
    ],
)
def test_an_unclear_speedup_is_not_reported(low, high, verdict):
    ratio = Quantiles((low + high) / 2, low, high, 7)
    assert Latency(ratio, ratio, ratio, "plain").verdict == verdict


@pytest.mark.parametrize(("kind", "text"), [("size", "5"), ("target", "fast"), ("latency", "0ms"), ("size", "1.2.3MB")])
def test_a_target_without_a_unit_is_refused(kind, text):
    with pytest.raises(VitrailError, match=f"--{kind} is"):
        Aim.parse(kind, text)


def test_moments_of_few_tokens_keep_the_columns():
    """With one token the covariance is zero, and the fit stays near the plain slice."""
    moments = InputMoments(torch.ones(4).double(), torch.zeros(4, 4).double(), 1)
    weight = torch.randn(2, 4)
    new, _ = refitted(weight, torch.zeros(2), [0, 1], moments)
    torch.testing.assert_close(new, weight[:, :2])


def test_shares_that_remove_nothing_are_an_error_or_a_note(model):
    depth = len(model.backbone.stages[0].blocks)
    for idle in ({"mlp": 0.001}, {"heads": 0.001}, {"mlp": 0.001, "heads": 0.001}, {"depth": depth}):
        with pytest.raises(VitrailError, match="Nothing would be removed"):
            compress(model, CompressSettings(**idle))
    said = []
    small_model = compress(model, CompressSettings(heads=0.5, mlp=0.001, depth=depth), note=said.append)
    assert [edit.kind for edit in small_model.edits] == ["prune_heads"]
    assert said[0] == f"note: depth={depth} drops no block: the model has {depth}."
    assert said[1].startswith("note: mlp=0.001 removes nothing") and "multiples of 16" in said[1] and len(said) == 2


@pytest.mark.parametrize("name", ["heads", "mlp"])
def test_the_least_share_that_is_told_removes_something(model, name):
    with pytest.raises(VitrailError) as told:
        compress(model, CompressSettings(**{name: 0.001}))
    least = float(re.search(r"the least share that does is ([0-9.]+[0-9])", str(told.value))[1])
    assert compress(model, CompressSettings(**{name: least})).edits
    with pytest.raises(VitrailError, match="Nothing would be removed"):
        compress(model, CompressSettings(**{name: least - 0.001}))


def test_layers_of_one_head_have_no_share():
    assert idle_share("heads", 0.9, [1, 1], lambda counts, share: 0) == "heads=0.9 removes nothing: no share does."
