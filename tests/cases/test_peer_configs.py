"""Configs of transformers and timm: each field is honoured, without effect, or refused by name."""

import inspect
import json

import pytest
import torch

from vitrail.errors import DataError, VitrailError
from vitrail.models import catalogue, make_config
from vitrail.preprocess import Preprocess
from vitrail.weights.convert import convert
from vitrail.weights.formats import FORMATS
from vitrail.weights.from_checkpoint import from_checkpoint
from vitrail.weights.peer_fields import (
    BY_SHAPE,
    FIXED,
    IDLE,
    OF_ONE,
    TIMM_BY_SHAPE,
    TIMM_CARRIED,
    TIMM_FIXED,
    TIMM_IDLE,
    unsupported_arguments,
)

timm, transformers = pytest.importorskip("timm"), pytest.importorskip("transformers")
IMAGES = torch.linspace(-2, 2, 2 * 3 * 32 * 32).sin().view(2, 3, 32, 32)

VIT = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 192, "patch_size": 8}
SWIN = {"embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4, "patch_size": 2}
PEERS = {
    "ViT": {**VIT, "image_size": 32},
    "Swin": {**SWIN, "image_size": 32},
    "Swinv2": {**SWIN, "image_size": 32, "pretrained_window_sizes": [0, 0]},
    "ConvNext": {"hidden_sizes": [24, 48], "depths": [1, 1], "num_stages": 2},
    "ConvNextV2": {"hidden_sizes": [24, 48, 96, 192], "depths": [1, 1, 1, 1]},
}


def peer(kind: str, **fields):
    config = getattr(transformers, f"{kind}Config")(**PEERS[kind], num_labels=5, **fields)
    model = getattr(transformers, f"{kind}ForImageClassification")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def difference(ours, theirs) -> float:
    with torch.no_grad():
        a, b = ours.eval()(IMAGES), theirs(IMAGES)
    b = getattr(b, "logits", b)
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize("kind", PEERS)
@pytest.mark.parametrize("eps", [1e-12, 1e-3])
def test_epsilon_is_carried(kind, eps, tmp_path):
    model = peer(kind, layer_norm_eps=eps)
    model.save_pretrained(tmp_path)
    ours = from_checkpoint(tmp_path).model
    assert difference(ours, model) < 1e-5
    convert(tmp_path, "huggingface", tmp_path / "back")
    assert difference(from_checkpoint(tmp_path / "back").model, model) < 1e-5
    with pytest.raises(VitrailError, match="--set"):  # a file of timm states no epsilon
        convert(tmp_path, "timm", tmp_path / "timm.safetensors")


@pytest.mark.parametrize("field", [{"hidden_act": "relu"}, {"qkv_bias": False}, {"problem_type": "regression"}])
def test_another_computation_is_refused_by_name(field, tmp_path):
    peer("ViT", **field).save_pretrained(tmp_path)
    with pytest.raises(VitrailError, match=next(iter(field)) + "|missing"):
        from_checkpoint(tmp_path)


class Recorder(dict):
    """A config that remembers the fields that were read."""

    def __init__(self, values):
        super().__init__(values)
        self.read = set()

    def get(self, key, default=None):
        self.read.add(key)
        return super().get(key, default)

    def __getitem__(self, key):
        self.read.add(key)
        return super().__getitem__(key)

    def keys(self):
        self.read |= set(super().keys() & {"layer_norm_eps"})
        return super().keys()


def described() -> dict[str, tuple]:
    """Return the formats of transformers by the kind of model, each with a variant of its family."""
    first: dict[str, str] = {}
    for name, family in catalogue().items():
        first.setdefault(family, name)
    kinds = {}
    for form in FORMATS:
        if form.describe is not None and form.writes:
            config = make_config(first[form.families[0]])
            if hasattr(config, "reduction_eps"):
                config = make_config(first[form.families[0]], reduction_eps=1e-6)
            fields = form.describe(config)
            kinds[fields["model_type"]] = (form, fields)
    return kinds


@pytest.mark.parametrize("kind", described())
def test_every_field_of_transformers_is_known(kind):
    """A field that transformers adds must be sorted: honoured, fixed or idle."""
    if kind not in transformers.CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {kind}")
    form, fields = described()[kind]
    theirs = Recorder(transformers.CONFIG_MAPPING[kind]().to_dict())
    if form.states is not None:
        form.states(theirs)
    known = IDLE | BY_SHAPE | FIXED.keys() | fields.keys() | theirs.read | OF_ONE.get(kind, frozenset())
    assert not {key for key in theirs if key not in known}


TIMM = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}


@pytest.mark.parametrize(
    ("args", "name"),
    [
        ({"mlp_ratio": 2.0, "drop_path_rate": 0.1}, None),
        ({"global_pool": "token", "act_layer": "gelu"}, None),
        ({"act_layer": "relu"}, "act_layer"),
        ({"act_layer": "gelu_tanh"}, "act_layer"),
        ({"global_pool": "avg", "fc_norm": False}, "global_pool"),
        ({"class_token": False, "global_pool": "avg"}, "class_token"),
        ({"reg_tokens": 2}, "reg_tokens"),
        ({"qk_norm": True}, "qk_norm"),
        ({"no_embed_class": True}, "no_embed_class"),
    ],
)
def test_arguments_of_timm_are_honoured_or_refused(args, name, tmp_path):
    from timm.models import save_for_hf

    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **{**TIMM, **args}).eval()
    torch.nn.init.normal_(model.head.weight)
    save_for_hf(model, tmp_path, model_args={**TIMM, **args})
    if name is None:
        assert difference(from_checkpoint(tmp_path).model, model) < 1e-5
    else:
        with pytest.raises(VitrailError, match=name):
            from_checkpoint(tmp_path)


PYRAMID = {"embed_dims": [16, 32, 48, 64], "depths": [1, 2, 1, 1], "sr_ratios": [4, 2, 2, 1], "mlp_ratios": [4] * 4}
TWINS = {**PYRAMID, "depths": [2, 2, 2, 2], "num_heads": [1, 2, 3, 4], "wss": [7] * 4, "img_size": 64}
SWIN_V2 = {"embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "img_size": 64}


def saved(name: str, args: dict, place, said: dict | None = None):
    """Write a folder of timm's model with every parameter drawn; return the model."""
    from timm.models import save_for_hf

    model = timm.create_model(name, **{"num_classes": 5, **args}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    save_for_hf(model, place, model_args=args)
    if said is not None:
        (place / "config.json").write_text(json.dumps(said))
    return model


def apart(place, model, size: int) -> float:
    """Return the relative difference of the logits of a folder from those of timm's model."""
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        a, b = from_checkpoint(place).model.eval()(images), model(images)
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize(
    ("name", "args", "size"),
    [
        ("pvt_v2_b0", {"num_heads": [2, 4, 8, 16]}, 64),
        ("pvt_v2_b1", {**PYRAMID, "num_heads": [2, 4, 6, 8]}, 64),
        ("twins_pcpvt_small", {**PYRAMID, "num_heads": [2, 4, 6, 8], "img_size": 64}, 64),
        ("twins_svt_small", {**TWINS, "wss": [4] * 4}, 64),
        ("crossvit_9_240", {"num_heads": [8, 8]}, 240),
        ("swinv2_tiny_window8_256", {**SWIN_V2, "window_size": 4}, 64),
        ("swinv2_tiny_window8_256", {**SWIN_V2, "img_size": [48, 48], "window_size": [16, 16]}, 48),
    ],
)
def test_arguments_of_timm_that_shapes_leave_open_are_taken_over(name, args, size, tmp_path):
    model = saved(name, args, tmp_path)
    assert apart(tmp_path, model, size) < 1e-5


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("crossvit_9_240", {"num_heads": [4, 8]}),
        ("twins_svt_small", {**TWINS, "wss": [4, 4, 4, 7]}),
        ("swinv2_tiny_window8_256", {**SWIN_V2, "window_size": [8, 4]}),
    ],
)
def test_arguments_of_timm_that_differ_within_a_model_are_refused(name, args, tmp_path):
    saved(name, args, tmp_path)
    with pytest.raises(VitrailError, match=r"(num_heads|wss|window_size)=\[\d, "):
        from_checkpoint(tmp_path)


def test_arguments_of_timms_models_outside_the_catalogue_are_refused(tmp_path):
    saved("resnet26", {"output_stride": 16}, tmp_path)
    with pytest.raises(VitrailError, match="output_stride=16"):
        from_checkpoint(tmp_path)
    saved("resnet26", {}, tmp_path, {"architecture": "resnet26", "num_classes": 5, "global_pool": "max"})
    with pytest.raises(VitrailError, match="global_pool=max"):
        from_checkpoint(tmp_path)


def test_the_tag_of_timms_weights_does_not_hide_the_variant(tmp_path):
    said = {"architecture": "swinv2_tiny_window16_256.ms_in1k", "num_classes": 5}
    model = saved("swinv2_tiny_window16_256", {}, tmp_path, said)
    assert from_checkpoint(tmp_path).model.variant == "swinv2_tiny_window16_256"
    assert apart(tmp_path, model, 256) < 1e-5


def test_timms_models_in_transformers_are_read(tmp_path):
    args = {"depths": [1, 1], "num_heads": [3, 6], "window_size": 4, "img_size": 64}
    said = {"architecture": "swinv2_tiny_window16_256", "num_classes": 3, "model_args": args}
    cfg = {"mean": [0.1] * 3, "std": [0.2] * 3, "input_size": [3, 64, 64], "crop_pct": 1.0}
    config = transformers.TimmWrapperConfig.from_dict({**said, "pretrained_cfg": cfg, "label_names": list("abc")})
    model = transformers.TimmWrapperForImageClassification(config).eval()
    model.save_pretrained(tmp_path)
    assert apart(tmp_path, lambda images: model(images).logits, 64) < 1e-5
    found = from_checkpoint(tmp_path).model
    assert found.labels == tuple("abc") and found.preprocess.mean == (0.1,) * 3
    config.model_args = {**args, "act_layer": "relu"}
    transformers.TimmWrapperForImageClassification(config).save_pretrained(tmp_path)
    with pytest.raises(VitrailError, match="act_layer=relu"):
        from_checkpoint(tmp_path)


def test_pooling_of_timms_swin_is_refused():
    assert unsupported_arguments({"global_pool": "max", "architecture": "x"}, "swin") == ["global_pool=max"]
    assert unsupported_arguments({"global_pool": "avg", "architecture": "x"}, "swin") == []


def test_the_protocol_of_timms_folder_is_taken(tmp_path):
    from timm.models import save_for_hf

    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **TIMM)
    save_for_hf(model, tmp_path, model_args=TIMM, model_config={"label_names": list("abcde")})
    found = from_checkpoint(tmp_path).model
    assert found.preprocess.size == 32 and found.labels == tuple("abcde")
    config = {"mean": [0.1] * 3, "std": [0.2] * 3, "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash"}
    save_for_hf(model, tmp_path, model_args=TIMM, model_config={"pretrained_cfg": config})
    preprocess = from_checkpoint(tmp_path).model.preprocess
    assert (preprocess.mean[0], preprocess.crop_mode, preprocess.interpolation) == (0.1, "squash", "bilinear")


def test_the_protocol_of_older_and_of_short_files_of_timm_is_taken(tmp_path):
    args = {"depth": 1, "img_size": 32}
    flat = {"architecture": "vit_tiny_patch16_224", "num_classes": 5, "num_features": 192, "input_size": [3, 32, 32]}
    flat |= {"mean": [0.1] * 3, "std": [0.2] * 3, "crop_pct": 1.0, "interpolation": "bilinear", "labels": list("abcde")}
    saved("vit_tiny_patch16_224", args, tmp_path, flat)
    found = from_checkpoint(tmp_path).model
    assert found.labels == tuple("abcde")
    assert found.preprocess == Preprocess(32, 1.0, "bilinear", (0.1,) * 3, (0.2,) * 3)
    short = {"architecture": "vit_tiny_patch16_224", "model_args": args, "label_names": dict(enumerate("abcde"))}
    saved("vit_tiny_patch16_224", args, tmp_path, {**short, "pretrained_cfg": {"crop_pct": 1.0}})
    found = from_checkpoint(tmp_path).model
    assert found.labels == tuple("abcde")
    assert found.preprocess == Preprocess(32, 1.0)  # timm's defaults, not those of the variant


@pytest.mark.parametrize(
    "field", [{"interpolation": "random"}, {"mean": 0.5}, {"input_size": 224}, {"std": ["a"] * 3}, {"crop_pct": "x"}]
)
def test_a_protocol_of_timm_that_is_not_supported_is_refused_by_name(field, tmp_path):
    said = {"architecture": "vit_tiny_patch16_224", "pretrained_cfg": field}
    saved("vit_tiny_patch16_224", {"depth": 1, "img_size": 32}, tmp_path, said)
    with pytest.raises(DataError, match=next(iter(field))):
        from_checkpoint(tmp_path)


UNNAMED = {
    "VisionTransformer": {"global_pool", "norm_layer", "embed_layer", "embed_norm_layer", "block_fn", "mlp_layer"}
    | {
        "attn_layer",
        "proj_bias",
        "scale_attn_norm",
        "scale_mlp_norm",
        "pos_embed",
        "use_fc_norm",
        "pool_include_prefix",
    }
    | {"embed_cls_token", "attn_qk_norm", "is_causal", "rope"},
    "SwinTransformer": {"global_pool", "norm_layer", "embed_layer", "head_dim", "always_partition"},
}


@pytest.mark.parametrize("kind", UNNAMED)
def test_every_argument_of_timm_is_sorted(kind):
    """Arguments outside the tables are refused whatever their value; a new one must be looked at here."""
    module = timm.models.vision_transformer if kind == "VisionTransformer" else timm.models.swin_transformer
    names = set(inspect.signature(getattr(module, kind).__init__).parameters) - {"self", "kwargs"}
    assert names - TIMM_BY_SHAPE - TIMM_IDLE - set(TIMM_FIXED) - set(TIMM_CARRIED) <= UNNAMED[kind]
