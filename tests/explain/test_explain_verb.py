"""`vitrail explain` as a user types it."""

import pytest
import torch
from PIL import Image

from vitrail.cli import main
from vitrail.models import create_model
from vitrail.weights.folder import save_model


@pytest.fixture
def folder(tmp_path):
    model = create_model("vit_tiny_patch16_224", depth=2, dim=24, num_heads=2, num_classes=3, image_size=48)
    save_model(model, tmp_path / "model", labels=["cat", "dog", "fox"])
    for name in ("one", "two"):
        Image.effect_noise((60, 50), 80).convert("RGB").save(tmp_path / f"{name}.png")
    return tmp_path


def run(folder, *words: str, images: tuple[str, ...] = ("one.png",)) -> int:
    paths = [str(folder / name) for name in images]
    return main(["explain", str(folder / "model"), *paths, "--out", str(folder / "out"), *words])


def test_without_flags_everything_is_drawn_and_the_page_is_named(folder, capsys):
    assert run(folder) == 0
    said = capsys.readouterr().out
    assert said.strip().endswith(f"Open {folder / 'out' / 'index.html'}")
    assert "The model says" in said and any(label in said for label in ("cat", "dog", "fox"))
    written = sorted(path.name for path in (folder / "out").iterdir())
    assert written == [
        "index.html",
        "one-block-by-block.png",
        "one-heads.png",
        "one-where-it-looks.png",
        "what-the-model-learned-attention-distance.png",
        "what-the-model-learned-patch-filters.png",
        "what-the-model-learned-position-similarity.png",
    ]
    page = (folder / "out" / "index.html").read_text()
    assert page.count("<img") == 10 and page.count("<h3>") == 6 and "vit_tiny_patch16_224" in page
    for path in (folder / "out").glob("*.png"):
        with Image.open(path) as image:
            assert image.width >= 300


def test_only_distances_are_reported_to_depend_on_the_images(folder, capsys):
    assert run(folder) == 0
    assert "the same for every image; attention distances are measured on one image." in capsys.readouterr().out
    model = create_model("poolformer_s12", dims=(8, 16), depths=(1, 1), num_classes=3, image_size=48)
    save_model(model, folder / "model", labels=["cat", "dog", "fox"])
    assert run(folder) == 0
    assert "the same for every image." in capsys.readouterr().out


def test_images_of_the_same_name_do_not_replace_each_other(folder):
    (folder / "more").mkdir()
    (folder / "one.png").rename(folder / "more" / "two.png")
    assert run(folder, "--method", "rollout", images=("two.png", "more")) == 0
    assert {path.name for path in (folder / "out").glob("*.png")} == {"two-rollout.png", "two-rollout-2.png"}


@pytest.mark.parametrize(
    ("words", "written"),
    [
        (["--method", "saliency"], {"one-saliency.png"}),
        (["--block", "0", "--head", "1"], {"one-maps.png", "one-heads.png", "one-block-by-block.png"}),
        (["--query", "2,0"], {"one-maps.png", "one-heads.png", "one-block-by-block.png"}),
        (["--method", "influence", "--pixel", "47,0"], {"one-influence.png", "one-block-by-block.png"}),
    ],
)
def test_flags_choose_what_is_drawn(folder, words, written):
    assert run(folder, *words) == 0
    assert {path.name for path in (folder / "out").glob("*.png")} == written


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--block", "2"], "The blocks are 0 to 1"),
        (["--head", "2"], "no head 2: block 1 of vit_tiny_patch16_224 has 2, 0 to 1"),
        (["--query", "3,0"], "3 rows and 3 columns"),
        (["--query", "3"], "ROW,COLUMN"),
        (["--pixel", "48,0"], "48 rows and 48"),
        (["--query", "1,1", "--pixel", "1,1"], "one of them"),
        (["--limit", "0"], "at least 1"),
        (["--block", "2.1"], "The blocks are 0 to 1; -1 is the last."),
        (["--block", "last"], "no block last"),
        (["--method", "rollout", "--block", "1"], "rollout takes no block; it can be told the query"),
        (["--method", "rollout", "--head", "1"], "Methods that take a head: maps."),
        (["--method", "saliency", "--block", "1"], "Methods that take a block: maps, influence, gradcam."),
        (["--method", "saliency", "--head", "1"], "saliency takes no head"),
        (["--method", "influence", "--head", "1"], "influence takes no head"),
    ],
)
def test_a_wrong_choice_is_explained(folder, capsys, words, said):
    assert run(folder, *words) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) <= 6 and "Traceback" not in error


def test_a_corrupt_image_is_named_and_the_others_are_drawn(folder, capsys):
    (folder / "two.png").write_bytes(b"not an image")
    assert run(folder, "--method", "rollout", images=("one.png", "two.png")) == 3
    assert "two.png" in capsys.readouterr().err
    assert (folder / "out" / "one-rollout.png").exists() and (folder / "out" / "index.html").exists()
    (folder / "one.png").write_bytes(b"")
    assert run(folder, "--method", "rollout") == 3
    assert "None of the images" in capsys.readouterr().err


def test_a_model_without_maps_gets_another_method_by_default_and_a_reason_on_request(folder, capsys):
    model = create_model("poolformer_s12", dims=(8, 16), depths=(1, 1), num_classes=3, image_size=48)
    save_model(model, folder / "model")
    assert run(folder) == 0
    assert (folder / "out" / "one-where-it-looks.png").exists()
    capsys.readouterr()
    assert run(folder, "--method", "maps") == 2
    assert "poolformer_s12 computes no softmax attention" in capsys.readouterr().err


def test_block_names_equal_those_under_the_figures(folder, capsys):
    small = {"dim": 8, "depths": (1, 2), "num_heads": (1, 2), "window_size": 3, "image_size": 48}
    model = create_model("swin_tiny_patch4_window7_224", num_classes=3, **small)
    save_model(model, folder / "model")
    assert run(folder, "--block", "1.0", "--head", "1") == 0
    by_address = (folder / "out" / "one-maps.png").read_bytes()
    assert run(folder, "--block", "1", "--head", "1") == 0  # counted through both stages
    assert (folder / "out" / "one-maps.png").read_bytes() == by_address
    assert run(folder, "--block", "-1", "--head", "1") == 0
    assert (folder / "out" / "one-maps.png").read_bytes() != by_address
    capsys.readouterr()
    assert run(folder, "--block", "1.2") == 2
    said = "There is no block 1.2. The blocks are 0.0 to 1.1, STAGE.BLOCK counted from 0, the stages have 1 and 2;"
    assert said in capsys.readouterr().err


def test_a_model_of_points_is_refused_by_name(folder, capsys):
    model = create_model("set_transformer_modelnet40", dim=16, inducing_points=3, num_heads=2, num_classes=3)
    save_model(model, folder / "model")
    assert run(folder) == 2
    assert "is of the task points, which is not explained" in capsys.readouterr().err


def test_the_limit_is_reported(folder, capsys):
    assert run(folder, "--limit", "1", "--method", "rollout", images=("one.png", "two.png")) == 0
    assert "first 1 of 2" in capsys.readouterr().out
    assert len(list((folder / "out").glob("*.png"))) == 1


@pytest.mark.shared
def test_the_trained_vit_attends_to_the_animal(shared):
    """Rollout over three photographs, against boxes drawn by hand around the animal (rows and columns in 224ths)."""
    from vitrail.data.image_io import open_image
    from vitrail.explain.gallery import prepare
    from vitrail.explain.rollout import rollout

    model = create_model("vit_tiny_patch16_224", weights=shared / "weights" / "vit_tiny_patch16_224.pt")
    boxes = {
        "n01735189_11267": (10, 60, 224, 180),
        "n01855032_1046": (60, 85, 145, 200),
        "n02018795_102": (25, 0, 224, 165),
    }
    images = [open_image(shared / "data" / "imagenet17" / f"{name}.JPEG") for name in boxes]
    found = rollout(model, prepare(model, images))
    for one, (top, left, bottom, right) in zip(found, boxes.values(), strict=True):
        rows, columns = slice(top // 16, -(-bottom // 16)), slice(left // 16, -(-right // 16))
        inside = torch.zeros(14, 14, dtype=torch.bool)
        inside[rows, columns] = True
        assert one[inside].mean() > 1.2 * one[~inside].mean()
