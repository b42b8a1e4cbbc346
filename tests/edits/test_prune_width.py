"""A narrower residual stream: equal to the whole model with zeros in the other channels, saved, optimized, fitted."""

from copy import deepcopy

import pytest
import torch
from small_models import relative, small
from torch import nn

from vitrail.compress.calibration_data import CalibrationBatch, damage, reference_outputs
from vitrail.compress.compress import compress
from vitrail.compress.settings import CompressSettings
from vitrail.compress.width import ReaderMoments, fitted_reader, refit_readers, stream_scores
from vitrail.edits.edit import apply_edits
from vitrail.edits.slicing import find
from vitrail.edits.stream_layouts import NORMS, streams
from vitrail.edits.width import PruneWidth, stream_widths
from vitrail.errors import VitrailError
from vitrail.fused.optimize import optimize
from vitrail.models import create_model
from vitrail.weights.folder import load_model, save_model

FAMILIES = [
    "vit",
    "deit distilled",
    "swin official",
    "swin v2",
    "nat",
    "pvt v2",
    "pvt",
    "twins svt",
    "nest",
    "cait",
    "convit",
    "eva02",
    "dinov2",
    "poolformer",
    "convnext",
    "caformer",
    "mixer",
    "cpvt",
]


def images(count=2):
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class NormOfSome(nn.Module):
    """A norm whose statistics are those of some channels; the others are zero."""

    def __init__(self, norm, keep):
        super().__init__()
        self.norm, self.keep = norm, keep

    def forward(self, x):
        some, norm, y = x[..., self.keep], self.norm, torch.zeros_like(x)
        over = -1 if isinstance(norm, nn.LayerNorm) else (1, 2)
        z = (some - some.mean(over, keepdim=True)) / (some.var(over, correction=0, keepdim=True) + norm.eps).sqrt()
        y[..., self.keep] = z * norm.weight[self.keep] + (0 if norm.bias is None else norm.bias[self.keep])
        return y


def masked(model, keep):
    """Zero the channels that go in every tensor, and let norms count the others; nothing gets smaller."""
    norms = {}
    for name, stream in streams(model).items():
        for path, axis, parts in stream.axes:
            owner, last = find(model, path, axis)
            gone = torch.ones(parts, stream.width, dtype=torch.bool)
            gone[:, list(keep[name])] = False
            with torch.no_grad():
                getattr(owner, last).movedim(axis, 0)[gone.flatten()] = 0
            if isinstance(owner, NORMS):
                norms[path.rpartition(".")[0]] = NormOfSome(owner, (~gone.flatten()).nonzero()[:, 0])
    for name, norm in norms.items():
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, norm)
    return model


@pytest.mark.parametrize("name", FAMILIES)
def test_narrow_equals_masked(name):
    model, narrow = small(name), small(name)
    narrow.load_state_dict(model.state_dict())
    keep = {
        stage: sorted(torch.randperm(width)[: -(-2 * width // 3)].tolist())
        for stage, width in stream_widths(model).items()
    }
    apply_edits(narrow, PruneWidth(keep))
    with torch.no_grad():
        assert keep and relative(narrow(images()), masked(model, keep)(images())) < 1e-6
    assert stream_widths(narrow) == {stage: len(kept) for stage, kept in keep.items()}
    assert all(tokens.shape[-1] in map(len, keep.values()) for tokens in narrow.features(images()).pyramid)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("retnet", "Retention"),
        ("vmoe", "MixtureOfExperts"),
        ("siglip", "AttentionPooling"),
        ("perceiver learned", "no backbone of stages with one residual stream"),
    ],
)
def test_unknown_modules_are_refused_by_name(name, reason):
    model = small(name)
    assert not stream_widths(model)
    with pytest.raises(VitrailError, match=f"cannot lose channels: .*{reason}"):
        PruneWidth({"backbone.stages.0": [0]}).apply(model)


def test_wrong_channels_and_stages_are_refused():
    for keep, words in (
        ({"backbone.stages.0": [24]}, "has 24 channels"),
        ({"backbone.stages.7": [0]}, "Unknown stage"),
    ):
        with pytest.raises(VitrailError, match=words):
            apply_edits(small("vit"), PruneWidth(keep))


@pytest.mark.parametrize("name", ["vit", "swin official", "convnext"])
def test_a_narrow_model_is_saved_and_optimized(name, tmp_path):
    model = small(name)
    keep = {stage: range(0, width, 2) for stage, width in stream_widths(model).items()}
    apply_edits(model, PruneWidth(keep))
    loaded = load_model(save_model(model, tmp_path / "narrow"))
    with torch.no_grad():
        assert torch.equal(loaded(images()), model(images())) and loaded.edits == model.edits
        assert relative(optimize(model, "fp32")(images()), model(images())) < 1e-5


def test_widths_are_multiples_of_the_vector():
    model = create_model("swin_tiny_patch4_window7_224", dim=48, depths=(1, 1), num_heads=(2, 4))
    assert list(stream_widths(compress(model, CompressSettings(width=0.7))).values()) == [32, 64]
    with pytest.raises(VitrailError, match="removes nothing from streams of 16 channels"):
        compress(small("vit", dim=16, num_heads=2), CompressSettings(width=0.8))


def probes():
    x = images(8)
    return [CalibrationBatch(lambda model: model(x))]


@pytest.mark.parametrize("name", ["vit", "swin official"])
def test_least_squares_bring_outputs_nearer(name):
    model, keep = small(name), {}
    for stage, stream in streams(model).items():
        scores = stream_scores(model, stream, "gradient", probes())
        keep[stage] = sorted(scores.topk(stream.width * 3 // 4).indices.tolist())
    plain, fitted = (apply_edits(deepcopy(model), PruneWidth(keep)) for _ in range(2))
    refit_readers(model, fitted, {stage: (stream, keep[stage]) for stage, stream in streams(model).items()}, probes())
    reference = reference_outputs(model, probes())
    assert damage(fitted, probes(), reference) < 0.9 * damage(plain, probes(), reference)


def test_fitted_weights_are_the_minimum():
    torch.manual_seed(0)
    z, weight, bias = torch.randn(500, 6).double(), torch.randn(4, 6).double(), torch.randn(4).double()
    x = 0.7 * z[:, :4] + 0.1 * z[:, 4:5]
    wanted = torch.linalg.lstsq(torch.cat([x, x.new_ones(500, 1)], 1), z @ weight.T + bias).solution.T
    for fit_bias in (bias, None):
        sums = ReaderMoments.of(z[:200], x[:200]).plus(ReaderMoments.of(z[200:], x[200:]))
        sums = sums._replace(inputs=sums.inputs._replace(rows=500))
        got, shift = fitted_reader(weight, fit_bias, torch.arange(4), sums)
        target = wanted[:, :4] if fit_bias is not None else torch.linalg.lstsq(x, z @ weight.T).solution.T
        assert relative(got, target) < 0.1
        assert shift is None or relative(shift, wanted[:, 4]) < 0.1


def test_scores_find_the_channels_that_count():
    model = small("vit")
    with torch.no_grad():
        for path, axis, _ in streams(model)["backbone.stages.0"].axes:
            owner, last = find(model, path, axis)
            if axis == 1:
                getattr(owner, last)[:, 5] = 0
    for how in ("gradient", "activation", "magnitude"):
        scores = stream_scores(model, streams(model)["backbone.stages.0"], how, probes())
        assert scores.argmin() == 5 and scores[5] == 0
