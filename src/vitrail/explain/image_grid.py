"""Images side by side, with titles."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

INK, FAINT, PAPER = (24, 26, 31), (104, 110, 122), (255, 255, 255)
GAP, MARGIN = 8, 16


@cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Load DejaVu Sans, which matplotlib brings along on every machine.

    Example:
        >>> font(12).size
        12
    """
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def fit(image: Image.Image, side: int) -> Image.Image:
    """Scale an image so that its longer side is `side`; small ones keep hard pixels.

    Example:
        >>> fit(Image.new("RGB", (8, 4)), 100).size
        (100, 50)
    """
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale > 3 else Image.Resampling.LANCZOS)


def panel(
    images: Sequence[Image.Image],
    columns: int,
    title: str,
    captions: Sequence[str] = (),
    note: str = "",
    side: int = 224,
    gap: int = GAP,
) -> Image.Image:
    """Arrange images in rows, with a title above, a caption under each and a note at the foot.

    Args:
        images: the images, row by row.
        columns: images in a row.
        title: one line; wrapped where the panel is narrow.
        captions: one for each image, or none.
        note: small print, wrapped.
        side: longer side of each image in pixels.
        gap: pixels between images.
    """
    assert len(captions) in (0, len(images)), (len(captions), len(images))
    tiles = [fit(image, side) for image in images]
    columns = min(columns, len(tiles))
    cell_w, cell_h = max(tile.width for tile in tiles), max(tile.height for tile in tiles)
    caption_h = 20 if captions else 0
    width = max(columns * (cell_w + gap) - gap, 300) + 2 * MARGIN
    heading, small = wrap(title, font(17, bold=True), width - 2 * MARGIN), wrap(note, font(12), width - 2 * MARGIN)
    rows = -(-len(tiles) // columns)
    top = MARGIN + 24 * len(heading) + 8
    bottom = top + rows * (cell_h + caption_h + gap)
    sheet = Image.new("RGB", (width, bottom + 17 * len(small) + MARGIN - (0 if small else gap)), PAPER)
    draw = ImageDraw.Draw(sheet)
    _lines(draw, heading, MARGIN, 24, font(17, bold=True), INK)
    _lines(draw, small, bottom, 17, font(12), FAINT)
    for i, tile in enumerate(tiles):
        x, y = MARGIN + i % columns * (cell_w + gap), top + i // columns * (cell_h + caption_h + gap)
        sheet.paste(tile, (x + (cell_w - tile.width) // 2, y), tile if tile.mode == "RGBA" else None)
        if captions:
            text = shorten(captions[i], font(12), cell_w)
            draw.text((x + cell_w / 2, y + cell_h + 4), text, FAINT, font(12), anchor="ma")
    return sheet


def wrap(text: str, face: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break text into lines that fit in `width` pixels.

    Example:
        >>> len(wrap("a long caption of an image", font(12), 60)) > 1
        True
    """
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and face.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def shorten(text: str, face: ImageFont.FreeTypeFont, width: int) -> str:
    """Cut text at the end so that it fits in `width` pixels.

    Example:
        >>> shorten("a long caption of an image", font(12), 60).endswith("…")
        True
    """
    if face.getlength(text) <= width:
        return text
    while text and face.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"


def _lines(
    draw: ImageDraw.ImageDraw,
    lines: list[str],
    y: int,
    step: int,
    face: ImageFont.FreeTypeFont,
    ink: tuple[int, int, int],
) -> None:
    for i, line in enumerate(lines):
        draw.text((MARGIN, y + i * step), line, ink, face)
