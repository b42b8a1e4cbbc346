"""Each field of transformers' `config.json` that changes the outputs is taken over or refused, in every format."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from small_peers import PAIRS, difference
from torch import nn

from vitrail.errors import VitrailError
from vitrail.models import catalogue, create_model, family_of, make_config
from vitrail.weights.convert import convert
from vitrail.weights.folder import save_model
from vitrail.weights.formats import FORMATS
from vitrail.weights.from_checkpoint import from_checkpoint
from vitrail.weights.metadata import contradictions

transformers = pytest.importorskip("transformers")
TOWER = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3)
DINO = dict(**TOWER, image_size=28, patch_size=14)
BERT = dict(vocab_size=100, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128)
BERT["max_position_embeddings"] = 32
SIGLIP = dict(**TOWER, intermediate_size=96, image_size=32, patch_size=16)


def drawn(peer: nn.Module) -> nn.Module:
    """Draw every parameter, so that no field is without effect because one is zero."""
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return peer.eval()


def tokens(model: Any, images: torch.Tensor) -> torch.Tensor:
    """Return the pooled output of a tower of either library."""
    out = model(images)
    return getattr(out, "pooler_output", out)


def scores(model: Any, images: torch.Tensor) -> torch.Tensor:
    """Return the logits of a classifier of either library."""
    out = model(images)
    return getattr(out, "logits", out)


def coarse(model: Any, images: torch.Tensor) -> torch.Tensor:
    """Return the logits of a segmenter of either library before they are enlarged."""
    return model.head(model.backbone(images)) if hasattr(model, "head") else model(images).logits


def towers() -> Iterator[tuple[str, tuple[Callable[[], nn.Module], Callable[[Any, torch.Tensor], torch.Tensor], int]]]:
    """Yield the models of transformers without a classifier."""
    t = transformers
    yield "dinov2", (lambda: t.Dinov2Model(t.Dinov2Config(**DINO)), tokens, 28)
    yield "dinov2-registers", (
        lambda: t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**DINO)), tokens, 28
    )  # fmt: skip
    yield "dinov2-swiglu", (lambda: t.Dinov2Model(t.Dinov2Config(**DINO, use_swiglu_ffn=True)), tokens, 28)
    yield "siglip", (lambda: t.SiglipVisionModel(t.SiglipVisionConfig(**SIGLIP)), tokens, 32)
    yield "segformer", (lambda: t.SegformerForSemanticSegmentation(t.SegformerConfig(num_labels=5)), coarse, 64)


def texts() -> Iterator[tuple[str, tuple[Callable[[], nn.Module], Callable[[Any, torch.Tensor], torch.Tensor], int]]]:
    """Yield language models; they have no size of images."""
    t, short = transformers, dict(vocab_size=100, n_embd=64, n_layer=2, n_head=2, n_positions=32)
    for kind, more in {"Bert": {}, "Albert": {"embedding_size": 16}, "ConvBert": {"embedding_size": 64}}.items():
        config, model = getattr(t, f"{kind}Config"), getattr(t, f"{kind}ForMaskedLM")
        yield kind.lower(), (lambda config=config, model=model, more=more: model(config(**BERT, **more)), scores, 0)
    yield "gpt", (lambda: t.OpenAIGPTLMHeadModel(t.OpenAIGPTConfig(**short)), scores, 0)
    yield "gpt2", (lambda: t.GPT2LMHeadModel(t.GPT2Config(**short)), scores, 0)


CASES = {
    **{name: (pair.make_peer, scores, pair.size) for name, pair in PAIRS.items() if name.endswith("-huggingface")},
    **dict(towers()),
    **dict(texts()),
}
IMPOSSIBLE = (
    StrictDataclassError,
    UserWarning,
    RuntimeError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
)
UNTRIED = {"dtype", "return_dict", "output_hidden_states", "output_attentions", "model_type", "image_size"}


def others(key: str, value: Any) -> list[Any]:
    """Return other values of a field."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, str):
        return ["relu", "gelu_new"] if "act" in key or key == "afn" else []
    if isinstance(value, int | float):
        return [0.3 if "eps" in key else value * 2, type(value)(1)]
    if isinstance(value, list) and value and all(isinstance(each, int | float) for each in value):
        return [[1] * len(value), [2 * each for each in value]]
    return []


def with_field(peer: Any, key: str, value: Any) -> Any:
    """Return the model of the same weights with another value of a field; None if it cannot be."""
    config = copy.deepcopy(peer.config)
    try:
        setattr(config, key, value)
        other = type(peer)(config).eval()
        other.load_state_dict(peer.state_dict())
    except IMPOSSIBLE:  # the field decides a shape
        return None
    return other


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_no_field_that_changes_the_outputs_is_passed_over(name: str, tmp_path: Path) -> None:
    make, outputs, size = CASES[name]
    peer: Any = drawn(make())
    images = torch.randn(2, 3, size, size) if size else torch.randint(5, 90, (2, 9))
    want = outputs(peer, images)
    peer.save_pretrained(tmp_path / "as-it-is")
    assert difference(outputs(from_checkpoint(tmp_path / "as-it-is").model.eval(), images), want) < 1e-4
    refused = set()
    for key, value in peer.config.to_dict().items():
        for number, another in enumerate(others(key, value) if key not in UNTRIED else []):
            other = with_field(peer, key, another)
            try:
                changed = None if other is None else outputs(other, images)
            except IMPOSSIBLE:  # transformers cannot compute it
                continue
            if other is None or changed is None or changed.shape != want.shape or not difference(changed, want) > 1e-5:
                continue
            other.save_pretrained(tmp_path / f"{key}{number}")
            try:
                ours = from_checkpoint(tmp_path / f"{key}{number}").model.eval()
            except VitrailError:
                refused.add(key)
                continue
            assert difference(outputs(ours, images), changed) < 1e-4, f"{key}={another} is passed over"
    assert refused, "no field was tried"


SWIN = {"dim": 8, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 4), "window_size": 3}
CONVNEXT = {"dims": (8, 16, 24, 32), "depths": (1, 1, 2, 1)}


@pytest.mark.parametrize("kind", ["swin", "convnext"])
def test_fields_of_the_backbone_inside_an_upernet_are_checked(kind: str) -> None:
    t, stages = transformers, [f"stage{number}" for number in (1, 2, 3, 4)]
    sizes: dict[str, Any] = {"depths": [1, 1, 2, 1], "out_features": stages}
    if kind == "swin":
        backbone = t.SwinConfig(image_size=64, embed_dim=8, num_heads=[1, 2, 2, 4], window_size=3, **sizes)
        model = create_model("upernet_swin_tiny", backbone_config=SWIN, num_classes=5)
    else:
        backbone = t.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], **sizes)
        model = create_model("upernet_convnext_tiny", backbone_config=CONVNEXT, num_classes=5)
    said = json.loads(t.UperNetConfig(backbone_config=backbone, num_labels=5).to_json_string())
    forms = [form for form in FORMATS if form.name == "huggingface" and "upernet" in form.families]
    assert not any(contradictions(said, form, model.config) for form in forms)
    inner = said["backbone_config"]
    for field, value in {"hidden_act": "relu", "num_heads": [1, 1, 1, 1], "layer_norm_eps": 1e-2}.items():
        if field in inner and (kind, field) != ("convnext", "layer_norm_eps"):  # that of the norm after the last stage
            wrong = {**said, "backbone_config": {**inner, field: value}}
            assert contradictions(wrong, forms[0], model.config) == [f"backbone_config.{field}={value}"]
    assert contradictions({**said, "pool_scales": [1, 2, 4, 8]}, forms[0], model.config)


def test_fields_of_the_tower_inside_a_whole_siglip_are_checked(tmp_path: Path) -> None:
    t = transformers
    text = dict(**TOWER, intermediate_size=96, vocab_size=50, bos_token_id=1, eos_token_id=2)
    t.SiglipModel(t.SiglipConfig(vision_config={**SIGLIP, "hidden_act": "relu"}, text_config=text)).save_pretrained(
        tmp_path
    )
    with pytest.raises(VitrailError, match=r"vision_config\.hidden_act=relu"):
        from_checkpoint(tmp_path)


def test_the_activation_of_a_perceiver_is_checked() -> None:
    form = next(form for form in FORMATS if form.families == ("perceiver",))
    config = make_config(next(name for name in catalogue() if family_of(name) == "perceiver"))
    assert contradictions({"model_type": "perceiver", "hidden_act": "gelu"}, form, config) == []
    assert contradictions({"model_type": "perceiver", "hidden_act": "relu"}, form, config) == ["hidden_act=relu"]


def test_every_format_of_transformers_states_its_fields() -> None:
    """A format without `describe` takes any config.json for its own."""
    forms = [form for form in FORMATS if form.name in ("huggingface", "transformers")]
    assert not [form.families for form in forms if form.describe is None]


@torch.no_grad()
def test_a_segformer_is_written_as_a_folder_that_transformers_loads(tmp_path: Path) -> None:
    peer: Any = drawn(transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(num_labels=5)))
    peer.save_pretrained(tmp_path / "theirs")
    convert(tmp_path / "theirs", "huggingface", tmp_path / "back")
    again = transformers.AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "back").eval()
    images = torch.randn(1, 3, 64, 64)
    assert difference(again(images).logits, peer(images).logits) < 1e-6


@pytest.mark.parametrize(("variant", "backbone"), [("upernet_swin_tiny", SWIN), ("upernet_convnext_tiny", CONVNEXT)])
@torch.no_grad()
def test_an_upernet_is_written_as_a_folder_that_transformers_loads(
    variant: str, backbone: dict[str, Any], tmp_path: Path
) -> None:
    small: dict[str, Any] = {"channels": 16, "auxiliary_channels": 8, "num_classes": 5, "image_size": 128}
    ours: Any = drawn(create_model(variant, backbone_config=backbone, **small))
    save_model(ours, tmp_path / "ours")
    convert(tmp_path / "ours", "huggingface", tmp_path / "theirs")
    load = transformers.AutoModelForSemanticSegmentation.from_pretrained
    theirs, told = load(tmp_path / "theirs", output_loading_info=True)
    assert not any(told.values()), told
    images = torch.randn(1, 3, 128, 128)
    assert difference(theirs.eval()(images).logits, ours(images)) < 1e-5
