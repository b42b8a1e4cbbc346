"""Parts of studies against slow twins and identities."""

import pytest
import torch
from torch.nn.functional import cosine_similarity

from vitrail.errors import VitrailError
from vitrail.grid import Grid
from vitrail.models import create_model
from vitrail.study import find_study
from vitrail.study.attention_similarity import head_similarity, layer_maps, layer_similarity
from vitrail.study.equal_budgets import TOLERANCE, Shape, build, counted, fit
from vitrail.study.families import shifted
from vitrail.study.heat_methods import METHODS, maps_with_gradients, perturbation, relevance
from vitrail.study.images import StudyImages, augment, load_images
from vitrail.study.learner import LearnSettings, learn
from vitrail.study.mixer_catalogue import MIXERS
from vitrail.study.plan import StudyOptions
from vitrail.study.position_schemes import SCHEMES, ResizedRelativeBias, positioned
from vitrail.study.pruned_training import full_masks, left, prunable, pruned, shuffled, train_ticket
from vitrail.study.reach import reach, reached
from vitrail.study.small_models import variant


@pytest.fixture(scope="module")
def data() -> StudyImages:
    return load_images("digits", 24, 48)


@pytest.fixture(scope="module")
def vit(data: StudyImages) -> torch.nn.Module:
    torch.manual_seed(0)
    return variant("vit_tiny_patch16_224", data, patch_size=6, dim=16, depth=3, num_heads=2).eval()


def test_similarities_equal_the_definition(vit: torch.nn.Module, data: StudyImages) -> None:
    maps = layer_maps(vit, data.test[:2])
    rows = [
        cosine_similarity(maps[0], maps[2], dim=-1).mean(),
        cosine_similarity(maps[1, :, 0], maps[1, :, 1], dim=-1).mean(),
    ]
    assert layer_similarity(maps)[0, 2].item() == pytest.approx(rows[0].item(), abs=1e-5)
    assert head_similarity(maps)[1].item() == pytest.approx(rows[1].item(), abs=1e-5)


def test_maps_of_a_pyramid_are_refused() -> None:
    with pytest.raises(VitrailError, match="one grid"):
        swin = create_model("swin_tiny_patch4_window7_224", dim=8, depths=(1, 1), num_heads=(1, 2))
        layer_maps(swin, torch.zeros(1, 3, 56, 56))


def test_information_leaves_a_window_only_by_the_shift() -> None:
    assert [reached(map) for map in reach(False)] == [16] * 4
    counts = [reached(map) for map in reach(True)]
    assert counts[0] == 16 and counts[1] > 16 and counts == sorted(counts)


def test_maps_inside_the_block_change_no_output(vit: torch.nn.Module, data: StudyImages) -> None:
    expected = vit(data.test[:2])
    with maps_with_gradients(vit) as maps:
        found = vit(data.test[:2].requires_grad_())
    assert torch.allclose(found, expected, atol=1e-5) and len(maps) == 3
    assert torch.equal(vit(data.test[:2]), expected), "the hooks stayed"


def test_relevance_equals_the_loop_of_the_paper(vit: torch.nn.Module, data: StudyImages) -> None:
    images, target = data.test[:1], torch.tensor([3])
    with maps_with_gradients(vit) as maps:
        vit(images.clone().requires_grad_())[0, 3].backward()
    found = torch.eye(maps[0].shape[-1])
    for one in maps:
        assert one.grad is not None
        found = found + (one.grad * one).clamp(min=0).mean(1)[0].detach() @ found
    assert torch.allclose(relevance(vit, images, target)[0].flatten(), found[0, 1:], atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_heatmaps_have_a_value_for_each_patch(name: str, vit: torch.nn.Module, data: StudyImages) -> None:
    heat = METHODS[name](vit, data.test[:2], torch.tensor([0, 1]))
    assert heat.shape == (2, 4, 4) and bool(heat.isfinite().all())


def test_deletion_begins_with_the_image_and_ends_with_a_blank(vit: torch.nn.Module, data: StudyImages) -> None:
    images, target = data.test[:2], torch.tensor([1, 2])
    deleted, inserted = perturbation(vit, images, torch.rand(2, 4, 4), target, steps=4)
    whole = vit(images).softmax(-1).gather(1, target[:, None])[:, 0]
    assert torch.allclose(deleted[:, 0], whole, atol=1e-6) and torch.allclose(inserted[:, -1], whole, atol=1e-6)
    assert torch.allclose(deleted[:, -1], inserted[:, 0], atol=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_position_schemes_take_other_sizes(scheme: str, data: StudyImages) -> None:
    model = positioned(scheme, data, dim=16, depth=1, patch_size=6)
    assert all(model(torch.randn(1, 1, side, side)).shape == (1, 10) for side in (18, 24, 36))


def test_without_position_tokens_may_be_shuffled(data: StudyImages) -> None:
    image = data.test[:1]
    swapped = torch.cat([image[..., 12:, :], image[..., :12, :]], dim=-2)  # whole rows of patches
    for scheme in SCHEMES:
        model = positioned(scheme, data, dim=16, depth=1, patch_size=6).eval()
        assert torch.allclose(model(image), model(swapped), atol=1e-5) is (scheme == "none"), scheme


def test_resized_bias_keeps_the_corners_of_its_table() -> None:
    position = ResizedRelativeBias(2, (3, 3))
    q = torch.zeros(1, 2, 25, 4)
    assert position.bias(q, Grid(5, 5)).shape == (2, 25, 25)
    with torch.no_grad():
        position.table.fill_(0.5)
    assert torch.allclose(position.bias(q, Grid(5, 5)), torch.tensor(0.5))


FEW = ("identity", "token MLP", "shifted windows", "Linformer")


@pytest.mark.parametrize(
    "names", [pytest.param(FEW, id="few"), pytest.param(tuple(MIXERS), id="all", marks=pytest.mark.slow)]
)
def test_every_mixer_is_within_the_budget(names: tuple[str, ...], data: StudyImages) -> None:
    shape = Shape(depth=1, patch_size=6)
    goal = counted(build("self-attention", data, shape, 32, 64), data, "parameters")
    for name in names:
        width = fit(name, data, shape, "parameters")
        found = counted(build(name, data, shape, width.dim, width.hidden), data, "parameters")
        assert abs(found / goal - 1) <= TOLERANCE, (name, width)


@pytest.mark.parametrize("name", MIXERS)
def test_multiply_adds_of_every_mixer_are_counted(name: str, data: StudyImages) -> None:
    shape = Shape(depth=1, patch_size=6)
    counts = [counted(build(name, data, shape, 32, hidden), data, "multiply-adds") for hidden in (64, 65)]
    tokens = (data.side // 6) ** 2
    mlp = tokens * 2 * 32  # multiply-adds of one hidden channel
    assert counts[1] - counts[0] == mlp, counts


@pytest.mark.slow
def test_multiply_adds_are_made_equal(data: StudyImages) -> None:
    assert abs(fit("pooling", data, Shape(depth=1, patch_size=6), "multiply-adds").share - 1) <= TOLERANCE


def test_pruned_weights_stay_zero_through_training(data: StudyImages) -> None:
    model = variant("vit_tiny_patch16_224", data, patch_size=6, dim=16, depth=1, num_heads=2)
    first = {name: value.clone() for name, value in model.state_dict().items()}
    masks = pruned(full_masks(model), model, 0.4)
    assert left(masks) == pytest.approx(0.6, abs=0.01)
    assert left(shuffled(masks, 1)) == left(masks) and any(
        not torch.equal(shuffled(masks, 1)[n], masks[n]) for n in masks
    )
    train_ticket(model, first, masks, data, LearnSettings(steps=3), seed=0)
    for name, weight in prunable(model).items():
        assert bool((weight[masks[name] == 0] == 0).all()) and bool(
            (weight[masks[name] > 0] != first[name][masks[name] > 0]).any()
        )


def test_shifts_and_augmentation_keep_the_shape() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert shifted(image, 1, 0)[0, 0, :, 0].tolist() == [0, 0, 4, 8]
    assert shifted(image, 0, -2)[0, 0, 0].tolist() == [2, 3, 3, 3]
    turned = augment(torch.rand(3, 1, 8, 8), torch.Generator().manual_seed(0))
    assert turned.shape == (3, 1, 8, 8) and bool(turned.isfinite().all())


def test_one_seed_draws_balanced_subsets_and_one_training(data: StudyImages) -> None:
    few = data.take(20, seed=1)
    assert torch.equal(few.train, data.take(20, seed=1).train)
    assert int(few.train_labels.bincount(minlength=10).max()) <= 3
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        model = variant("vit_tiny_patch16_224", data, patch_size=6, dim=16, depth=1, num_heads=2)
        losses.append(learn(model, few, LearnSettings(steps=2), seed=0).losses)
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("study", "options", "said"),
    [
        ("windows", StudyOptions(chosen=(("a", "b"),)), "no settings"),
        ("mixers", StudyOptions(chosen=(("budget", "time"),)), "latency"),
        ("mixers", StudyOptions(chosen=(("width", "1"),)), "budget"),
        ("windows", StudyOptions(model="vit_tiny_patch16_224"), "leave --model out"),
    ],
)
def test_options_that_a_study_does_not_take_are_refused(study: str, options: StudyOptions, said: str) -> None:
    with pytest.raises(VitrailError, match=said):
        find_study(study).complete(options)
