"""Figures: heat over the right cells, every model has a gallery, the page is self-contained."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.data.transform import EvalTransform
from vitrail.errors import VitrailError
from vitrail.explain.gallery import attention_overlays, overview, prepare
from vitrail.explain.heatmap import METHODS, heatmap
from vitrail.explain.html_page import Section, page
from vitrail.explain.image_grid import fit, font, panel, shorten, wrap
from vitrail.explain.options import OPTIONS, ExplainOptions, resolve_options
from vitrail.explain.overlay import enlarge, mark, normalised, overlay, paint, seen
from vitrail.explain.token_query import Pixel
from vitrail.preprocess import HALF_MEAN, HALF_STD, Preprocess

KINDS = ["vit", "deit", "swin", "poolformer", "mixer", "bit"]


def photo(size=(80, 64), seed=0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def at_64(build, kind):
    model = build(kind)
    model.preprocess = Preprocess(64, crop=1.0)
    return model


@pytest.mark.parametrize("preprocess", [Preprocess(192), Preprocess(160, 1.0, mean=HALF_MEAN, std=HALF_STD)])
def test_the_input_figure_is_the_preprocessed_crop(preprocess):
    image = photo((300, 260))
    [back] = seen(EvalTransform(preprocess)(image)[None], preprocess)
    scale = preprocess.resize / 260
    whole = image.resize((int(300 * scale), preprocess.resize), Image.Resampling.BICUBIC)
    left, top = round((whole.width - preprocess.size) / 2), round((whole.height - preprocess.size) / 2)
    crop = whole.crop((left, top, left + preprocess.size, top + preprocess.size))
    assert np.array_equal(np.asarray(back), np.asarray(crop))


def test_heat_is_drawn_over_its_cell():
    values = torch.zeros(4, 4)
    values[1, 2] = 1
    bright = np.asarray(overlay(Image.new("RGB", (160, 160), (90, 90, 90)), values).convert("L"), dtype=float)
    cells = bright.reshape(4, 40, 4, 40).mean((1, 3))
    assert np.unravel_index(cells.argmax(), cells.shape) == (1, 2)
    assert cells[1, 2] > 1.5 * cells[3, 0]


def test_cells_over_the_edge_are_cut_off():
    values = torch.arange(16.0).reshape(4, 4)
    whole = enlarge(values, (64, 64))
    assert torch.equal(enlarge(values, (52, 40), cover=(64 / 52, 64 / 40)), whole[:52, :40])
    assert enlarge(torch.full((3, 3), 2.0), (7, 5)).unique().tolist() == [2.0]


def test_one_hot_value_does_not_darken_the_rest_and_flat_heat_is_no_nan():
    values = torch.linspace(0, 1, 400).reshape(20, 20)
    values[0, 0] = 1e6
    assert normalised(values)[19, 19] > 0.9
    assert torch.equal(normalised(torch.ones(3, 3)), torch.zeros(3, 3))
    one = torch.zeros(20, 20)
    one[3, 4] = 5
    assert normalised(one).sum() == 1 == normalised(one)[3, 4]


def test_the_colour_map_goes_from_dark_to_bright():
    light = np.asarray(paint(torch.linspace(0, 1, 50)[None]).convert("L"), dtype=int)[0]
    assert (np.diff(light) >= 0).all() and light[-1] > light[0] + 150


def test_the_ring_is_drawn_where_the_query_is():
    before = Image.new("RGB", (100, 100), (120, 120, 120))
    changed = np.argwhere(np.asarray(mark(before, 0.25, 0.75).convert("L")) != 120)
    assert abs(changed.mean(0) - (25, 75)).max() <= 1


def test_the_ring_is_drawn_on_the_query_cell(build):
    model, images = build("poolformer"), torch.randn(1, 3, 32, 32)  # 8 x 8 cells of 4 pixels
    found = heatmap(model, images, ExplainOptions("influence", block=0))
    y, x = np.unravel_index(int(found.values[0].argmax()), (8, 8))
    assert found.spot == ((y + 0.5) / 8, (x + 0.5) / 8)
    asked = heatmap(model, images, ExplainOptions("influence", block=0, query=Pixel(31, 0)))
    assert asked.spot == (7.5 / 8, 0.5 / 8)


@pytest.mark.parametrize("kind", KINDS)
def test_every_model_has_an_overview(build, kind):
    found = overview(at_64(build, kind), [photo(seed=i) for i in range(3)])
    expected = {"Where it looks", "Block by block", "Patch filters"}
    if kind in ("vit", "deit", "swin"):
        expected |= {"Heads", "Attention distance"}
    if kind in ("vit", "deit"):
        expected |= {"Position similarity"}
    if kind == "swin":
        expected |= {"Position bias"}
    assert found.keys() == expected
    assert all(image.mode == "RGB" and min(image.size) > 80 for image in found.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [*METHODS, "auto"])
def test_every_method_draws_or_gives_a_reason(build, kind, method):
    model = at_64(build, kind)
    if method in ("maps", "rollout") and kind in ("poolformer", "mixer", "bit"):
        with pytest.raises(VitrailError, match="--method"):
            attention_overlays(model, [photo()], method)
        return
    plain, other = attention_overlays(model, [photo(), photo(seed=1)], method)
    assert plain.size == (192, 192) and plain.tobytes() != other.tobytes()
    if method == "gradcam":
        return
    [asked] = attention_overlays(model, [photo()], method, query=Pixel(60, 3))
    assert asked.tobytes() != plain.tobytes()


def test_auto_selects_a_method_that_supports_the_options(build):
    vit, bit = build("vit"), build("bit")
    assert (
        resolve_options(vit, ExplainOptions()).method == "rollout"
        and resolve_options(bit, ExplainOptions()).method == "saliency"
    )
    assert (
        resolve_options(vit, ExplainOptions(block=0)).method == "maps"
        and resolve_options(bit, ExplainOptions(query=(0, 0))).method == "influence"
    )
    with pytest.raises(VitrailError, match="Did you mean: rollout"):
        resolve_options(vit, ExplainOptions("rolout"))


def test_block_and_head_choose_the_map_that_is_shown(build, images):
    from vitrail.explain.maps import attention_maps

    model = build("vit")
    with attention_maps(model) as maps, torch.no_grad():
        model(images)
    found = heatmap(model, images, ExplainOptions("maps", block=1, head=2, query=(1, 1)))
    assert torch.allclose(found.values, maps[1].row_map((1, 1))[:, 2])
    assert found.cover == (1, 48 / 36)  # 36 columns of pixels are padded to 3 cells of 16
    with pytest.raises(VitrailError, match="no head 3: block 2 of vit_tiny_patch16_224 has 3, 0 to 2"):
        heatmap(model, images, ExplainOptions("maps", head=3))
    with pytest.raises(VitrailError, match="no block 3"):
        heatmap(model, images, ExplainOptions("maps", block=3))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("option", "value"), [("block", 0), ("head", 1), ("query", (0, 1))])
def test_an_option_changes_the_image_or_is_refused(build, images, method, option, value):
    """Whoever reads the table of options must find every one of them at work."""
    model = build("vit")
    if option in OPTIONS[method]:
        asked, plain = (
            heatmap(model, images, ExplainOptions(method, **{option: value})),
            heatmap(model, images, ExplainOptions(method)),
        )
        assert asked.values.shape != plain.values.shape or not torch.allclose(asked.values, plain.values)
        return
    with pytest.raises(VitrailError, match=f"{method} takes no {option}"):
        heatmap(model, images, ExplainOptions(method, **{option: value}))
    with pytest.raises(VitrailError, match=f"{method} takes no {option}"):
        attention_overlays(model, images, method, **{option: value})


def test_head_applies_to_attention_only(build, images):
    with pytest.raises(VitrailError, match="poolformer_s12 computes no softmax attention"):
        heatmap(build("poolformer"), images, ExplainOptions(head=0))


def test_a_block_of_a_hybrid_is_the_same_for_every_method(build, images):
    """Its first stages are a ResNet's: an index counts them too, and those that do not attend say so."""
    model = build("hybrid")
    assert (
        resolve_options(model, ExplainOptions("maps")).block
        == resolve_options(model, ExplainOptions("influence")).block
        == "2.1"
    )
    assert (
        resolve_options(model, ExplainOptions("maps", block=2)).block
        == resolve_options(model, ExplainOptions("influence", block=2)).block
        == "2.0"
    )
    assert resolve_options(model, ExplainOptions(block=0)) == ExplainOptions("influence", block="0.0")
    assert (
        heatmap(model, images, ExplainOptions("maps", block=2)).title
        == "Attention of block 2.0: what the class token attends to"
    )
    with pytest.raises(VitrailError, match=r"Block 0\.0 of .* no maps") as caught:
        heatmap(model, images, ExplainOptions("maps", block=0))
    assert "The blocks with attention are 2.0 to 2.1" in str(caught.value)


@pytest.mark.parametrize("method", [method for method in METHODS if "query" in OPTIONS[method]])
def test_a_cell_is_the_same_by_index_and_by_row_and_column(build, images, method):
    """The index counts prefix tokens, also for saliency, whose map has none."""
    model = build("deit")  # two prefix tokens, 3 x 3 cells
    by_place, by_index = (heatmap(model, images, ExplainOptions(method, query=query)) for query in ((1, 2), 2 + 3 + 2))
    assert torch.equal(by_place.values, by_index.values) and by_place.spot == by_index.spot


def test_a_prefix_token_has_no_pixels_of_its_own(build, images):
    with pytest.raises(VitrailError, match="Token 1 is no cell"):
        heatmap(build("deit"), images, ExplainOptions("saliency", query=1))


def test_a_preprocessed_batch_is_not_changed_and_an_empty_one_refused(build, images):
    model = build("vit")
    assert prepare(model, images) is images
    with pytest.raises(VitrailError, match="no images"):
        prepare(model, [])


def test_panels_hold_all_images_and_captions():
    tiles = [Image.new("RGB", (50, 30), (200, 0, 0)) for _ in range(5)]
    sheet = panel(
        tiles, 3, "A title that is so long that it needs more than one line here", ["caption"] * 5, "a note", side=100
    )
    red = np.asarray(sheet)[..., 0] - np.asarray(sheet)[..., 1].astype(int) > 150
    assert red.sum() == 5 * 100 * 60
    face = font(12)
    assert all(face.getlength(line) <= 90 for line in wrap("some words that do not fit in one line", face, 90))
    assert face.getlength(shorten("a very long caption", face, 60)) <= 60
    assert shorten("short", face, 60) == "short"
    assert fit(Image.new("L", (3, 9)), 90).size == (30, 90)


def test_the_page_is_self_contained_and_escapes_texts():
    html = page("<b>", "a & b", [Section("one.png <i>", "said", {"pic": Image.new("RGB", (4, 4))})], "vitrail <x>")
    assert "<b>" not in html and "<i>" not in html and "<x>" not in html and "a &amp; b" in html
    assert re.findall(r'(?:src|href)="(?!data:)', html) == []
    assert "http:" not in html and "https:" not in html and html.count("<img") == 1


def test_a_model_of_single_downsampling_blocks_has_an_overview(build, images):
    model = build("bit of single blocks")
    assert [*overview(model, images)] == ["Where it looks", "Patch filters"]
    assert heatmap(model, images, ExplainOptions("saliency", query=Pixel(5, 7))).spot is not None
    with pytest.raises(VitrailError, match=r"no block that mixes tokens on one grid(.|\n)*saliency"):
        heatmap(model, images, ExplainOptions("influence"))
