"""Optimized models compute the same function: an unknown module in any seat is honoured or left unconverted."""

import copy
from typing import Any, ClassVar

import pytest
import torch
from small_models import relative, small  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn

import vitrail
from vitrail.errors import VitrailError
from vitrail.fused.cuda import optimize_for_cuda
from vitrail.fused.table import MIXERS, unsupported_reason
from vitrail.fused.train_blocks import FusedTrainBlock, fuse_for_training
from vitrail.layouts import TokenSequence
from vitrail.native.build import refusal
from vitrail.parts.blocks import Block
from vitrail.parts.channel_mixers import MLP
from vitrail.parts.positions import NoPosition
from vitrail.parts.token_mixers.self_attention import SelfAttention
from vitrail.parts.token_mixers.window_attention import WindowAttention

REASON = refusal(torch.float32)
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
NAMES = [
    *("vit", "swin masked", "nat", "poolformer", "mixer", "bit", "hybrid", "tnt", "pvt v2", "convnextv2", "caformer"),
    *(
        "sasa conv",
        "swin v2",
        "xcit",
        "cait",
        "convit",
        "deepvit",
        "cct",
        "eva02",
        "eva02 sub-norm",
        "igpt",
        "perceiver conv",
        "perceiver original",
        "vmoe",
        "retnet",
    ),
]


def scaled(y: Any) -> Any:
    if isinstance(y, Tensor):
        return y * 1.5 if y.is_floating_point() else y
    if hasattr(y, "_fields"):  # a NamedTuple, such as a routing
        return type(y)(scaled(y[0]), *y[1:])
    return (scaled(y[0]), *y[1:]) if isinstance(y, tuple) else y


def probe(module: nn.Module) -> None:
    """Make a module an unknown one that computes something else: its results are scaled."""
    kind: Any = type(module)
    names = {"forward", "rotate", "bias"} & {name for name in dir(kind) if callable(getattr(kind, name))}
    methods = {name: lambda self, *given, name=name: scaled(getattr(kind, name)(self, *given)) for name in names}
    module.__class__ = type(f"Probe{kind.__name__}", (kind,), methods)


def seats(model: nn.Module) -> list[str]:
    """Return one path for each kind of parent and name of a child."""
    found: dict[tuple[type, str], str] = {}
    for path, module in model.named_modules():
        for name, _ in module.named_children():
            found.setdefault((type(module), name), f"{path}.{name}".lstrip("."))
    return list(found.values())


def probed(name: str, path: str) -> Any:
    torch.manual_seed(0)
    model = small(name)
    probe(model.get_submodule(path))
    return model


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_part_is_computed_in_inference(name: str) -> None:
    torch.manual_seed(0)
    plain, images, changed = small(name), torch.randn(1, 3, 64, 64), 0
    for path in seats(plain.backbone):
        model = probed(name, f"backbone.{path}")
        with torch.inference_mode():
            want = model(images)
            changed += relative(want, plain(images)) > 1e-3
            got = vitrail.optimize(model, "fp32")(images)
            assert relative(got, want) < 1e-5, path
            got = optimize_for_cuda(model, torch.float32, lambda run, images: run)(images)
            assert relative(got, want) < 1e-5, path
    assert changed >= 6  # some parts, such as a list of blocks, are never called


@pytest.mark.parametrize("name", ["vit", "swin masked", "nat"])
def test_an_unknown_part_is_computed_in_training(name: str) -> None:
    images = torch.randn(1, 3, 64, 64)
    block = "backbone.stages.0.blocks.0"
    for path in seats(small(name).get_submodule(block)):
        model = probed(name, f"{block}.{path}")
        fused = fuse_for_training(copy.deepcopy(model))
        assert any(type(module) is FusedTrainBlock for module in fused.modules())
        for each in (model, fused):
            each(images).square().sum().backward()
        for (key, weight), other in zip(model.named_parameters(), fused.parameters(), strict=True):
            if weight.grad is not None:
                assert relative(other.grad, weight.grad) < 1e-3, (path, key)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", MIXERS)
def test_a_new_part_is_named(kind: type) -> None:
    mixer = next(module for name in NAMES for module in small(name).modules() if type(module) is kind)
    columns = [name for name in ("cpu", "int8", "cuda", "train") if getattr(MIXERS[kind], name)]
    assert columns and all(unsupported_reason(mixer, column) is None for column in columns)
    mixer.extra = nn.Identity()
    assert all(unsupported_reason(mixer, column) == "unknown part extra" for column in columns)


def test_a_block_with_a_new_part_is_reported() -> None:
    model: Any = small("vit")
    block = model.backbone.stages[0].blocks[0]
    block.gate, images = nn.Linear(24, 24), torch.randn(1, 3, 64, 64)
    fused: Any = vitrail.optimize(model, "fp32")
    reported = {"Block: unknown part gate": 1, "token mixer SelfAttention: its block has no fused operation": 1}
    assert fused.unconverted == reported
    with torch.inference_mode():
        assert relative(fused(images), model(images)) < 1e-5
    assert type(fuse_for_training(model).backbone.stages[0].blocks[0]) is Block  # pyright: ignore


def prune(mixer: Any, heads: int) -> None:
    """Keep the first heads of an attention."""
    dim, inner = mixer.qkv.in_features, heads * (mixer.qkv.in_features // mixer.num_heads)
    qkv, proj = nn.Linear(dim, 3 * inner), nn.Linear(inner, dim)
    with torch.no_grad():
        for new, old in ((qkv.weight, mixer.qkv.weight), (qkv.bias, mixer.qkv.bias)):
            new.copy_(old.unflatten(0, (3, dim))[:, :inner].flatten(0, 1))
        proj.weight.copy_(mixer.proj.weight[:, :inner])
        proj.bias.copy_(mixer.proj.bias)
    mixer.qkv, mixer.proj, mixer.num_heads = qkv, proj, heads
    if isinstance(mixer, WindowAttention):
        mixer.attend.num_heads = heads
    if hasattr(mixer.position, "table"):
        mixer.position.table = nn.Parameter(mixer.position.table[:, :heads].detach().clone())  # pyright: ignore


@pytest.mark.parametrize("name", ["vit", "swin masked", "nat"])
def test_pruned_heads_are_computed(name: str) -> None:
    model: Any = small(name)
    mixers = [block.token_mixer for stage in model.backbone.stages for block in stage.blocks]
    for mixer in mixers:
        prune(mixer, mixer.num_heads - 1)
    images = torch.randn(2, 3, 64, 64)
    fused: Any = vitrail.optimize(model, "fp32")
    assert fused.unconverted == {}
    with torch.inference_mode():
        assert relative(fused(images), model(images)) < 1e-5
    trained = fuse_for_training(copy.deepcopy(model))
    for each in (model, trained):
        each(images).square().sum().backward()
    for weight, other in zip(model.parameters(), trained.parameters(), strict=True):
        assert relative(other.grad, weight.grad) < 1e-3  # pyright: ignore[reportArgumentType]


def test_projections_that_hold_no_whole_heads_are_named() -> None:
    mixer = SelfAttention(12, num_heads=3)
    mixer.proj = nn.Linear(8, 12)
    assert "3 heads" in str(unsupported_reason(mixer, "cpu"))


def test_native_attention_needs_a_grid() -> None:
    block = Block(nn.LayerNorm(16), SelfAttention(16, 2), nn.LayerNorm(16), MLP(16, 32)).eval()
    x, layout = torch.randn(2, 5, 16), TokenSequence(5, lengths=torch.tensor([5, 2]))
    torch.testing.assert_close(FusedTrainBlock(copy.deepcopy(block))(x, layout), block(x, layout))
    model: Any = small("vit")
    fused: Any = vitrail.optimize(model, "fp32").backbone
    with pytest.raises(VitrailError, match="got TokenSequence"):
        fused.stages[0].blocks[0](torch.zeros(1, 5, 24), TokenSequence(5))


class SeesDtype(nn.Module):
    """Block of unknown type that records the dtype of its input."""

    seen: ClassVar[list[torch.dtype]] = []

    def __init__(self, block: nn.Module):
        super().__init__()
        self.inner, self.layer = block, nn.Linear(24, 24)

    def forward(self, x: Tensor, grid: Any) -> Tensor:
        self.seen.append(x.dtype)
        return self.inner(x, grid) + self.layer(x)


@pytest.mark.skipif(refusal(torch.bfloat16) is not None, reason=str(refusal(torch.bfloat16)))
def test_a_block_of_unknown_type_computes_in_the_compute_dtype() -> None:
    model: Any = small("vit")
    blocks = model.backbone.stages[0].blocks
    blocks[1] = SeesDtype(blocks[1])
    fused: Any = vitrail.optimize(model, "bf16")
    SeesDtype.seen.clear()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        got, want = fused(images), model(images)
    assert SeesDtype.seen == [torch.bfloat16, torch.float32]
    assert relative(got, want) < 1e-2
    assert fused.unconverted == {"SeesDtype has no fused operation": 1}


def test_a_rotating_position_is_not_computed() -> None:
    class Turning(NoPosition):
        def rotate(self, q: Tensor, k: Tensor, grid: Any) -> tuple[Tensor, Tensor]:
            return q, -k

    assert unsupported_reason(SelfAttention(8, 2, position=Turning()), "train") == "its position is Turning"


def test_a_mixer_in_an_unknown_block_is_listed_too() -> None:
    class Other(Block):
        pass

    model: Any = small("vit")
    model.backbone.stages[0].blocks[0].__class__ = Other
    listed = {"Other has no fused operation": 1, "token mixer SelfAttention: its block has no fused operation": 1}
    assert vitrail.optimize(model, "fp32").unconverted == listed
