"""Images of `docs/gallery.md`, each made by a command that the page shows.

    python recipes/gallery.py                             # public weights, downloaded once
    python recipes/gallery.py --vit vit_tiny.pt          # a file of its weights

The photographs are scikit-learn's samples (CC BY), the digits its test images. Files are small PNGs with 128 colours.

    cost      about a minute on 2 CPU cores
    result    docs/gallery.md and docs/gallery/*.png, under 1 MB together
"""

import argparse
import os
import shutil
import sys
from pathlib import Path
from shlex import split
from typing import NamedTuple

from PIL import Image
from sklearn.datasets import load_sample_image

from vitrail.cli import main
from vitrail.data.datasets import open_dataset

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "gallery"
WIDEST = 960


class Shot(NamedTuple):
    """An image of the gallery: heading, sentence, the command, the file that it writes."""

    title: str
    text: str
    command: str
    file: str


VIT = "vit_tiny_patch16_224 --weights pretrained"
SHOTS = (
    Shot(
        "Where a ViT looks",
        "Attention rollout, the last block and saliency of ViT-Ti/16 on a photograph.",
        f"vitrail explain {VIT} china.jpg --out looks",
        "looks/china-where-it-looks.png",
    ),
    Shot(
        "What single heads attend to",
        "The class token of the last block, head by head; the number is the contrast of the map.",
        f"vitrail explain {VIT} flower.jpg --out looks",
        "looks/flower-heads.png",
    ),
    Shot(
        "From block to block",
        "The mean over heads: early blocks look everywhere, late ones at the flower.",
        f"vitrail explain {VIT} flower.jpg --out looks",
        "looks/flower-block-by-block.png",
    ),
    Shot(
        "One cell's view",
        "What the cell below the marked pixel attends to.",
        f"vitrail explain {VIT} china.jpg --pixel 60,110 --out cell",
        "cell/china-block-by-block.png",
    ),
    Shot(
        "How far heads look",
        "Mean attention distance by depth, as in figure 7 of the ViT paper.",
        f"vitrail explain {VIT} china.jpg flower.jpg --out both",
        "both/what-the-model-learned-attention-distance.png",
    ),
    Shot(
        "Learned positions",
        "The cosine of each position embedding with all others: rows and columns were learned from the images.",
        f"vitrail explain {VIT} china.jpg flower.jpg --out both",
        "both/what-the-model-learned-position-similarity.png",
    ),
    Shot(
        "Patch filters",
        "The principal components of the patch embedding.",
        f"vitrail explain {VIT} china.jpg flower.jpg --out both",
        "both/what-the-model-learned-patch-filters.png",
    ),
    Shot(
        "A model trained in two minutes",
        "A neighborhood-attention model that learned handwritten digits: attention and saliency of one of them.",
        "vitrail train digits --model nat_mini --imgsz 32 --set dim=48 depths=2,2 num_heads=3,6 kernel_size=3"
        " --epochs 20 --batch 64 --lr 2e-3 --out digits\nvitrail explain digits digit.png --out digit",
        "digit/digit-where-it-looks.png",
    ),
)


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vit", default="pretrained", help="weights of vit_tiny_patch16_224")
    parser.add_argument("--work", type=Path, default=Path("runs/gallery"), help="folder to work in")
    return parser.parse_args()


def write_images() -> None:
    """Write the photographs and a digit into the current folder."""
    for name in ("china.jpg", "flower.jpg"):
        image = Image.fromarray(load_sample_image(name))
        side = min(image.size)
        left = (image.width - side) // 2
        image.crop((left, 0, left + side, side)).save(name, quality=95)
    open_dataset("digits").require("test").image(4).save("digit.png")


def run(commands: str, weights: str, done: set[str]) -> None:
    """Run the commands of an image that have not run yet."""
    for command in commands.splitlines():
        if command in done:
            continue
        done.add(command)
        words = [weights if word == "pretrained" else word for word in split(command)[1:]]
        if main(words):
            sys.exit(f"failed: {command}")


def keep(source: Path, name: str) -> Path:
    """Write a small PNG of an image into the gallery."""
    image = Image.open(source).convert("RGB")
    image.thumbnail((WIDEST, 2 * WIDEST), Image.Resampling.LANCZOS)
    target = FOLDER / f"{name}.png"
    image.quantize(128, dither=Image.Dither.FLOYDSTEINBERG).save(target, optimize=True)
    return target


def page(shots: list[tuple[Shot, Path]]) -> str:
    """Return the page."""
    lines = [
        "# Gallery",
        "",
        "Real pictures, each with the command that made it. `recipes/gallery.py` runs them all; the",
    ]
    lines += ["photographs are scikit-learn's sample images, the weights ViT-Ti's of its authors.", ""]
    for shot, path in shots:
        lines += [f"## {shot.title}", "", shot.text, "", "```sh", *shot.command.splitlines(), "```", ""]
        lines += [f"![{shot.title}](gallery/{path.name})", ""]
    return "\n".join(lines)


def build() -> None:
    """Run the commands and write page and images."""
    options = parse()
    weights = options.vit if options.vit == "pretrained" else str(Path(options.vit).resolve())
    FOLDER.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    before, kept, done = Path.cwd(), [], set[str]()
    os.chdir(options.work)
    try:
        write_images()
        for shot in SHOTS:
            run(shot.command, weights, done)
            kept.append((shot, keep(Path(shot.file), "-".join(shot.title.lower().replace("'", "").split()))))
    finally:
        os.chdir(before)
    (ROOT / "docs" / "gallery.md").write_text(page(kept))


if __name__ == "__main__":
    build()
