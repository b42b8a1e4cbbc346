"""Result type of classification: the likeliest classes of an image."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vitrail.data.image_io import open_image
from vitrail.tasks.classes.result import PAPER, ClassProbabilities, draw_class, rank_classes


@dataclass(frozen=True)
class Classification(ClassProbabilities):
    """The likeliest classes of one image, best first; or the reason why there are none.

    Args:
        image: the image itself, if it came from memory and not from a file.
        form: implementation and precision that ran, with the reason; empty if unknown.

    Example:
        >>> cat = Classification("cat.jpg", ("tabby", "lynx"), (0.9, 0.1), (281, 287))
        >>> cat.label, cat.top(1)
        ('tabby', [('tabby', 0.9)])
        >>> print(cat)
        cat.jpg: tabby 90.0%, lynx 10.0%
    """

    image: Image.Image | None = field(default=None, repr=False, compare=False)
    form: str = field(default="", repr=False, compare=False)

    def draw(self, k: int = 3, width: int = 480) -> Image.Image:
        """Return the image above its `k` likeliest classes, each with a bar of its probability.

        Args:
            k: number of classes to show.
            width: width of the drawing in pixels; the image is scaled to it.
        """
        best = self.top(k)
        image = self.image.convert("RGB") if self.image is not None else open_image(self.path)
        smooth = Image.Resampling.NEAREST if image.width * 4 <= width else Image.Resampling.LANCZOS
        image = image.resize((width, max(1, round(image.height * width / image.width))), smooth)
        row = max(20, width // 15)
        sheet = Image.new("RGB", (width, image.height + row * len(best) + row // 2), PAPER)
        sheet.paste(image, (0, 0))
        pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=row * 0.5)
        for i, (label, probability) in enumerate(best):
            place = (row // 2, image.height + row // 4 + row * i, width - row // 2, row)
            draw_class(pen, font, place, label, probability)
        return sheet

    def save(self, folder: Path) -> list[Path]:
        """Write nothing: class names are in the table."""
        return []


def classify(logits: Tensor, names: Sequence[str], labels: Sequence[str], top: int = 5) -> list[Classification]:
    """Convert logits `(B, K)` to one result per image.

    Args:
        logits: one row per image.
        names: names of the images.
        labels: names of the K classes.
        top: number of classes to keep.

    Example:
        >>> import torch
        >>> [one.label for one in classify(torch.tensor([[0.0, 2.0]]), ["a.jpg"], ["cat", "dog"])]
        ['dog']
    """
    ranked = zip(names, rank_classes(logits, labels, top), strict=True)
    return [Classification(name, *best) for name, best in ranked]
