"""The authors' NAT, DiNAT and DiNAT_s files: their keys spelled out, and their networks written down as formulas."""

import re

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vitrail.models import create_model, family_of
from vitrail.weights.convert import convert
from vitrail.weights.detect import detect, looks_like
from vitrail.weights.folder import load_model, save_model
from vitrail.weights.formats import write_as
from vitrail.weights.load import load_weights

SMALL = {"depths": (2, 3), "num_heads": (1, 2), "dim": 8, "num_classes": 5, "kernel_size": 3}
MODELS = {
    "nat": ("nat_mini", SMALL),
    "nat scaled": ("nat_base", SMALL),
    "dinat": ("dinat_mini", {**SMALL, "dilations": (3, 2)}),
    "dinat scaled": ("dinat_base", {**SMALL, "dilations": (2, 2)}),
    "dinat_s": ("dinat_s_tiny", {**SMALL, "dilations": (3, 1)}),
}
every_model = pytest.mark.parametrize("name", MODELS)


def authors_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Return key and shape of every tensor in a file of the authors, from their code."""
    swin, scaled, ratio = name == "dinat_s", "scaled" in name, {"nat": 3, "dinat": 3, "dinat_s": 4}.get(name, 2)
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(key: str, *weight: int, bias: bool = True) -> None:
        shapes[key + ".weight"] = weight
        if bias:
            shapes[key + ".bias"] = weight[:1]

    if swin:
        layer("patch_embed.proj", 8, 3, 4, 4)
    else:
        layer("patch_embed.proj.0", 4, 3, 3, 3)
        layer("patch_embed.proj.1", 8, 4, 3, 3)
    layer("patch_embed.norm", 8)
    for s, (depth, heads, dim) in enumerate([(2, 1, 8), (3, 2, 16)]):
        level = f"{'layers' if swin else 'levels'}.{s}"
        for i in range(depth):
            block = f"{level}.blocks.{i}"
            layer(block + ".norm1", dim)
            layer(block + ".attn.qkv", 3 * dim, dim)
            shapes[block + ".attn.rpb"] = (heads, 5, 5)
            layer(block + ".attn.proj", dim, dim)
            layer(block + ".norm2", dim)
            layer(block + ".mlp.fc1", ratio * dim, dim)
            layer(block + ".mlp.fc2", dim, ratio * dim)
            if scaled:
                shapes |= {block + ".gamma1": (dim,), block + ".gamma2": (dim,)}
    first = level.replace("1", "0") + ".downsample"
    layer(first + ".norm", 32 if swin else 16)
    layer(first + ".reduction", *((16, 32) if swin else (16, 8, 3, 3)), bias=False)
    layer("norm", 16)
    layer("head", 5, 16)
    return shapes


def authors_file(name: str) -> dict[str, Tensor]:
    """Draw a checkpoint of the authors."""
    return {key: torch.randn(shape, dtype=torch.float64) * 0.3 for key, shape in authors_shapes(name).items()}


def authors_answer(name: str, state: dict[str, Tensor], images: Tensor) -> Tensor:
    """Run the authors' network, written down from their keys."""
    dilations = MODELS[name][1].get("dilations", (1, 1))

    def linear(x: Tensor, key: str) -> Tensor:
        return F.linear(x, state[key + ".weight"], state.get(key + ".bias"))

    def norm(x: Tensor, key: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[key + ".weight"], state[key + ".bias"])

    def conv(x: Tensor, key: str, stride: int = 2, padding: int = 1) -> Tensor:
        x = F.conv2d(x.permute(0, 3, 1, 2), state[key + ".weight"], state.get(key + ".bias"), stride, padding)
        return x.permute(0, 2, 3, 1)

    def attend(x: Tensor, key: str, heads: int, dilation: int) -> Tensor:
        (h, w), least = x.shape[1:3], 3 * dilation
        x = F.pad(x, (0, 0, 0, max(least - w, 0), 0, max(least - h, 0)))
        q, k, v = linear(x, key + ".qkv").unflatten(-1, (3, heads, -1)).unbind(3)
        rpb, out = state[key + ".rpb"], torch.zeros_like(q)
        for y in range(x.shape[1]):
            for u in range(x.shape[2]):
                rows, columns = (_near(place, n, dilation) for place, n in ((y, x.shape[1]), (u, x.shape[2])))
                keys, values = (part[:, rows][:, :, columns].flatten(1, 2) for part in (k, v))  # (B, 9, h, d)
                table = rpb[:, _offsets(rows, y, dilation)][:, :, _offsets(columns, u, dilation)].flatten(1)  # (h, 9)
                scores = torch.einsum("bhd,bmhd->bhm", q[:, y, u], keys) / q.shape[-1] ** 0.5 + table
                out[:, y, u] = torch.einsum("bhm,bmhd->bhd", scores.softmax(-1), values)
        return linear(out.flatten(3), key + ".proj")[:, :h, :w]

    if name == "dinat_s":
        images = F.pad(images, (0, -images.shape[3] % 4, 0, -images.shape[2] % 4))
        x = conv(images.permute(0, 2, 3, 1), "patch_embed.proj", 4, 0)
    else:
        x = conv(conv(images.permute(0, 2, 3, 1), "patch_embed.proj.0"), "patch_embed.proj.1")
    x = norm(x, "patch_embed.norm")
    for s, (depth, heads) in enumerate([(2, 1), (3, 2)]):
        level = f"{'layers' if name == 'dinat_s' else 'levels'}.{s}"
        for i in range(depth):
            block = f"{level}.blocks.{i}"
            scales = [state.get(f"{block}.gamma{n}", torch.ones(())) for n in (1, 2)]
            x = x + scales[0] * attend(norm(x, block + ".norm1"), block + ".attn", heads, dilations[s] if i % 2 else 1)
            hidden = F.gelu(linear(norm(x, block + ".norm2"), block + ".mlp.fc1"))
            x = x + scales[1] * linear(hidden, block + ".mlp.fc2")
        if s == 0 and name == "dinat_s":
            x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
            x = torch.cat([x[:, a::2, b::2] for b in (0, 1) for a in (0, 1)], -1)
            x = linear(norm(x, level + ".downsample.norm"), level + ".downsample.reduction")
        elif s == 0:
            x = norm(conv(x, level + ".downsample.reduction"), level + ".downsample.norm")
    return linear(norm(x, "norm").mean((1, 2)), "head")


def _near(place: int, length: int, dilation: int) -> list[int]:
    """Return the three cells of a neighborhood: the cell is the second of them, but for the ends of its group."""
    group = list(range(place % dilation, length, dilation))
    start = min(max(group.index(place) - 1, 0), len(group) - 3)
    return group[start : start + 3]


def _offsets(cells: list[int], place: int, dilation: int) -> list[int]:
    """Return where NATTEN's table holds the bias of each key: key minus query plus k - 1."""
    return [(cell - place) // dilation + 2 for cell in cells]


@every_model
@pytest.mark.parametrize("size", [(40, 28), (33, 18), (4, 9)])
def test_the_authors_weights_give_the_authors_logits(name, size):
    state, (variant, numbers) = authors_file(name), MODELS[name]
    model = create_model(variant, **numbers).double().eval()
    report = load_weights(model, state)
    assert report.format == "official" and not report.adapted and not report.kept
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), authors_answer(name, state, images))


@every_model
def test_the_authors_file_comes_back_bit_for_bit(name):
    state, (variant, numbers) = authors_file(name), MODELS[name]
    model = create_model(variant, **numbers).double()
    load_weights(model, state)
    again = write_as("official", family_of(variant), model.state_dict(), model.config)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], value) for key, value in state.items())


@pytest.mark.parametrize("variant", ["nat_mini", "nat_small", "dinat_mini", "dinat_base", "dinat_s_tiny"])
def test_a_published_file_is_recognised(variant):
    """NAT and DiNAT differ in nothing that a file holds: both are named, the plainer one first."""
    with torch.device("meta"):
        model = create_model(variant)
        found = detect(write_as("official", family_of(variant), model.state_dict(), model.config))
    assert found.format.name == "official" and not found.mapped.unexpected and not found.mapped.incomplete
    names = looks_like(found.mapped.tensors, found.format.families)
    assert variant in names[:2]
    assert names[0] in (variant, variant.removeprefix("di"))


def test_a_wider_kernel_gets_the_table_resized_as_the_authors_did():
    narrow, wide = (create_model("nat_mini", **{**SMALL, "kernel_size": k}) for k in (3, 5))
    report = load_weights(wide, write_as("official", "nat", narrow.state_dict(), narrow.config))
    assert len(report.adapted) == 5 and all("resized, bicubic" in how for how in report.adapted.values())
    for key in report.adapted:
        square = narrow.state_dict()[key].T.reshape(1, -1, 5, 5).flip(2, 3)  # as their file has it: key minus query
        want = F.interpolate(square, size=(9, 9), mode="bicubic", align_corners=False)
        torch.testing.assert_close(wide.state_dict()[key].T.reshape(1, -1, 9, 9).flip(2, 3), want)


def test_an_authors_file_converts_and_the_ambiguity_is_reported(tmp_path):
    """DiNAT's file could be NAT's: dilations are not in it. A kernel of another size is."""
    ours = create_model("dinat_mini", num_classes=3, kernel_size=5)
    torch.save(write_as("official", "dinat", ours.state_dict(), ours.config), tmp_path / "theirs.pth")
    told = str(convert(tmp_path / "theirs.pth", "vitrail", tmp_path / "guessed"))
    assert "official weights of nat_mini, " in told and "num_classes=3" in told and "kernel_size=5" in told
    assert "the same tensors fit dinat_mini; choose with --model" in told
    convert(tmp_path / "theirs.pth", "vitrail", tmp_path / "chosen", model="dinat_mini")
    images = torch.randn(1, 3, 40, 44)
    with torch.no_grad():
        answers = [load_model(tmp_path / name).eval()(images) for name in ("guessed", "chosen")]
        want = ours.eval()(images)
    assert torch.equal(answers[1], want) and not torch.allclose(answers[0], want)


@pytest.fixture
def make_dinat(monkeypatch):
    """Builds transformers' DiNAT, which refuses to be built without an extension that lacks the functions it needs."""
    from transformers import DinatConfig
    from transformers.models.dinat import modeling_dinat

    monkeypatch.setattr(modeling_dinat, "requires_backends", lambda *_: None)
    return lambda fields: modeling_dinat.DinatForImageClassification(DinatConfig(**fields))


@pytest.mark.parametrize("name", ["dinat", "dinat scaled"])
def test_transformers_takes_the_folder_that_we_write(name, make_dinat, tmp_path):
    from safetensors.torch import load_file
    from transformers import DinatConfig

    variant, numbers = MODELS[name]
    ours = create_model(variant, **numbers)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_()
    save_model(ours, tmp_path / "ours")
    convert(tmp_path / "ours", "huggingface", tmp_path / "theirs")
    config = DinatConfig.from_pretrained(tmp_path / "theirs")
    assert config.dilations == [[1, numbers["dilations"][0]], [1, numbers["dilations"][1], 1]]
    theirs = make_dinat(config.to_dict())
    theirs.load_state_dict(load_file(tmp_path / "theirs" / "model.safetensors"), strict=True)
    state = theirs.state_dict()
    assert torch.equal(
        state["dinat.encoder.levels.0.layers.1.attention.self.rpb"][0, 4, 3],
        ours.state_dict()["backbone.stages.0.blocks.1.token_mixer.position.table"][0 * 5 + 1, 0],
    )
    again = create_model(variant, **numbers)
    assert load_weights(again, state).format == "huggingface"
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in again.state_dict().items())


def test_transformers_nat_differs_by_prefix_only(make_dinat):
    """Version 5 dropped NAT, version 4 had both with the same names after `nat.` and `dinat.`."""
    ours = create_model("nat_base", **SMALL)
    written = write_as("huggingface", "nat", ours.state_dict(), ours.config)
    fields = dict(
        depths=[2, 3], num_heads=[1, 2], embed_dim=8, kernel_size=3, mlp_ratio=2.0, layer_scale_init_value=0.1
    )
    peer = make_dinat({**fields, "num_labels": 5, "dilations": [[1, 1], [1, 1, 1]]}).state_dict()
    assert {re.sub("^nat", "dinat", key): value.shape for key, value in written.items()} == {
        key: value.shape for key, value in peer.items()
    }
    again = create_model("nat_base", **SMALL)
    assert load_weights(again, written).format == "huggingface"
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in again.state_dict().items())
