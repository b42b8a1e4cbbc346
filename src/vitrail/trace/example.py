"""A drawn image for traces without one: shapes at known places, so that windows and rolls can be followed by eye."""

from PIL import Image, ImageDraw


def example_image(side: int = 384) -> Image.Image:
    """Return the image.

    Example:
        >>> example_image(64).size
        (64, 64)
    """
    image = Image.new("RGB", (side, side))
    draw = ImageDraw.Draw(image)
    for y in range(side):
        level = y / side
        draw.line([(0, y), (side, y)], fill=(int(70 + 90 * level), int(130 + 60 * level), int(210 - 60 * level)))
    unit = side / 16
    draw.rectangle([0, 11 * unit, side, side], fill=(92, 138, 74))
    draw.ellipse([11 * unit, unit, 14.5 * unit, 4.5 * unit], fill=(247, 205, 84))
    draw.rectangle([2 * unit, 6.5 * unit, 8 * unit, 13 * unit], fill=(176, 74, 58))
    draw.polygon([(1.2 * unit, 6.7 * unit), (8.8 * unit, 6.7 * unit), (5 * unit, 3 * unit)], fill=(84, 52, 60))
    draw.rectangle([4.2 * unit, 9.4 * unit, 5.9 * unit, 13 * unit], fill=(58, 38, 30))
    for left in (2.6, 6.2):
        draw.rectangle([left * unit, 7.6 * unit, (left + 1.3) * unit, 8.9 * unit], fill=(240, 232, 190))
    draw.rectangle([12.1 * unit, 8 * unit, 12.9 * unit, 13.2 * unit], fill=(96, 66, 40))
    draw.ellipse([10.4 * unit, 5 * unit, 14.6 * unit, 9.6 * unit], fill=(44, 104, 62))
    return image
