"""DynamicViT: masked equals dropped, predictors and their gradient against loops, the ratio loss, folders."""

import pytest
import torch
from small_models import relative, small

from vitrail.edits.edit import apply_edits
from vitrail.edits.learn_tokens import LearnTokens
from vitrail.edits.merge_tokens import MergeTokens
from vitrail.errors import VitrailError
from vitrail.explain.maps import attention_maps
from vitrail.fused.optimize import optimize
from vitrail.fused.train_blocks import fuse_for_training
from vitrail.parts.dynamic_tokens import TokenPredictor, masked_attention
from vitrail.weights.folder import load_model, save_model

STAGE = "backbone.stages.0"


def images(count=2):
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def dynamic(name="vit", shares=(1, 0.7, 0.5), depth=3):
    torch.manual_seed(0)
    model = apply_edits(small(name, depth=depth), LearnTokens({STAGE: shares}))
    for predictor in model.backbone.stages[0].predictors.values():
        for parameter in predictor.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    return model


@pytest.mark.parametrize("name", ["vit", "deit distilled", "dinov2 registers"])
def test_masked_in_training_equals_dropped_in_evaluation(name, monkeypatch):
    """With the same choice, the class token of the masked pass is that of the pass on fewer tokens."""
    model = dynamic(name)
    stage = model.backbone.stages[0]
    counts = iter([int(0.7 * 16), int(0.35 * 16)])

    def most_probable(chances, hard):
        count, left = next(counts), model.left
        order = chances[..., 0].masked_fill(left == 0, -torch.inf).argsort(dim=1, descending=True)[:, :count]
        model.left = torch.zeros_like(left).scatter(1, order, 1.0)
        return torch.stack([model.left, 1 - model.left], -1)

    monkeypatch.setattr("vitrail.parts.dynamic_tokens.gumbel_softmax", most_probable)
    model.left = torch.ones(2, 16)
    with torch.no_grad():
        wanted = model(images())
        stage.training = True
        assert relative(model(images()), wanted) < 1e-6
    assert float(stage.auxiliary_loss()) < 2 * 0.05**2


def test_a_predictor_equals_a_loop():
    torch.manual_seed(0)
    predictor, x, kept = TokenPredictor(8), torch.randn(1, 4, 8), torch.tensor([[1.0, 0, 1, 1]])
    got = predictor(x, kept)
    z = [torch.nn.functional.gelu(predictor.read(predictor.norm(token))) for token in x[0]]
    mean = sum(one[4:] for one, left in zip(z, kept[0], strict=True) if left) / 3
    for n, one in enumerate(z):
        odds = predictor.decide(predictor.hidden(torch.cat([one[:4], mean])))
        assert torch.allclose(got[0, n].exp(), odds.softmax(-1), atol=1e-6)


def test_masked_attention_equals_a_loop_and_has_a_gradient():
    q, k, v = (torch.randn(1, 2, 5, 4, dtype=torch.float64) for _ in range(3))
    k[:, :, 3] *= 200  # a dropped key with a large score must not hide the others
    kept = torch.tensor([[1.0, 0, 1, 0, 1]], dtype=torch.float64, requires_grad=True)
    got = masked_attention(q, k, v, kept)
    for head in range(2):
        for i in range(5):
            keys = [j for j in range(5) if j == i or kept[0, j]]
            weights = torch.stack([q[0, head, i] @ k[0, head, j] / 2 for j in keys]).softmax(0)
            assert torch.allclose(got[0, head, i], weights @ v[0, head, keys], atol=1e-5)
    got[0, :, 0].sum().backward()
    assert kept.grad.isfinite().all() and kept.grad[0, 2] != 0


def test_the_ratio_loss_is_that_of_the_paper(monkeypatch):
    model, drawn = dynamic().train(), []

    def recorded(chances, hard):
        drawn.append(torch.nn.functional.gumbel_softmax(chances, hard=hard))
        return drawn[-1]

    monkeypatch.setattr("vitrail.parts.dynamic_tokens.gumbel_softmax", recorded)
    with torch.no_grad():
        model(images(8))
        first, second = drawn[0][..., 0], drawn[0][..., 0] * drawn[1][..., 0]
        wanted = ((first.mean(1) - 0.7) ** 2).mean() + ((second.mean(1) - 0.35) ** 2).mean()
        assert torch.allclose(model.backbone.stages[0].auxiliary_loss(), 2 * wanted / 2)
        assert float(model.backbone.stages[0].auxiliary_loss()) == 0


def test_no_token_dropped_is_the_model_itself():
    model = small("vit")
    again = small("vit")
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(apply_edits(again, LearnTokens({STAGE: (1, 1)}))(images()), model(images()))


def test_features_have_every_place():
    model = dynamic()
    with torch.no_grad():
        features = model.features(images())
    assert features.tokens.shape[1] == features.grid.tokens == 17 and features.pyramid[0].shape[1:3] == (4, 4)


def test_a_folder_keeps_it_and_training_reaches_every_weight(tmp_path):
    model = dynamic("deit")
    loaded = load_model(save_model(model, tmp_path / "model"))
    with torch.no_grad():
        assert torch.equal(loaded(images()), model(images())) and loaded.edits == model.edits
        assert relative(optimize(loaded, "fp32")(images()), model(images())) < 1e-4
    fuse_for_training(loaded.train())
    loss = loaded(images()).square().sum() + loaded.backbone.stages[0].auxiliary_loss()
    loss.backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in loaded.parameters())


def test_predictors_learn_the_share():
    torch.manual_seed(0)
    model = dynamic(shares=(1, 0.5), depth=2).train()
    stage = model.backbone.stages[0]
    with torch.no_grad():
        stage.predictors["1"].decide.bias.copy_(torch.tensor([3.0, -3.0]))  # keeps nearly all at first
    optimizer = torch.optim.Adam(stage.predictors.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        model(images(8))
        loss = stage.auxiliary_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_wrong_models_and_numbers_are_refused():
    with pytest.raises(VitrailError, match="no class token"):
        LearnTokens.quarters(small("siglip"), 0.7)
    with pytest.raises(VitrailError, match="share in"):
        LearnTokens({STAGE: (0, 1)})
    with pytest.raises(VitrailError, match="2 blocks, and 3 numbers"):
        LearnTokens({STAGE: (1, 1, 1)}).apply(small("vit"))
    with pytest.raises(VitrailError, match="already"):
        apply_edits(dynamic(), MergeTokens({STAGE: (1, 1, 1)}))
    with pytest.raises(VitrailError, match="fewer or merged"), attention_maps(dynamic()):
        pass
