"""A page of the sensitivity of layers: a bar for each layer and format, and sums by kind of layer."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from vitrail.compress.sensitivity import Sensitivity
from vitrail.tasks.page_design import page_glass, page_head

COLORS = {"int8": "#2f6db3", "int4": "#c9721f", "codebook": "#4f8a3c"}
ROW, LEFT, WIDTH = 12, 330, 520


def sensitivity_page(
    name: str, found: Sequence[Sensitivity], chosen: Mapping[str, str] | None = None, command: str = ""
) -> str:
    """Return the page as HTML that needs no other file.

    Args:
        name: name of the model.
        found: from `layer_sensitivity`.
        chosen: formats of a mixed plan, marked in the chart.
        command: command line that makes the page.

    Example:
        >>> "head" in sensitivity_page("vit", [Sensitivity("head", "int8", 0.01, 100)])
        True
    """
    kinds = by_kind(found)
    sections = [
        (
            "By layer",
            "Growth of the loss with this layer alone quantized; * is the format of the plan.",
            found,
            chosen,
        ),
        ("By operator", "Sums over the layers of one kind.", kinds, None),
    ]
    body = Markup("\n").join(
        Markup("<section><h2>{}</h2><p class='caption'>{}</p>{}</section>").format(title, text, _chart(rows, plan))
        for title, text, rows, plan in sections
    )
    return Markup(
        '<!doctype html>\n<html lang="en">\n<head>\n{}\n</head>\n<body>\n<main>\n<header>{}'
        '<p class="kicker">Vitrail compress</p><h1>{}</h1></header>\n{}\n'
        "<section><h2>Repeat it</h2><pre><code>{}</code></pre></section>\n</main>\n</body>\n</html>\n"
    ).format(page_head(f"Sensitivity of {name} – Vitrail"), page_glass(), f"Sensitivity of {name}", body, command)


def by_kind(found: Sequence[Sensitivity]) -> list[Sensitivity]:
    """Return sums over the layers whose names differ in numbers alone.

    Example:
        >>> by_kind([Sensitivity("blocks.0.fc1", "int8", 1.0, 2), Sensitivity("blocks.1.fc1", "int8", 2.0, 2)])
        [Sensitivity(layer='blocks.*.fc1', format='int8', loss=3.0, saved=4)]
    """
    sums: dict[tuple[str, str], tuple[float, int]] = {}
    for one in found:
        kind = ".".join("*" if part.isdigit() else part for part in one.layer.split("."))
        loss, saved = sums.get((kind, one.format), (0.0, 0))
        sums[kind, one.format] = loss + one.loss, saved + one.saved
    return [Sensitivity(kind, name, loss, saved) for (kind, name), (loss, saved) in sums.items()]


def _chart(rows: Sequence[Sensitivity], chosen: Mapping[str, str] | None) -> Markup:
    most = max((abs(one.loss) for one in rows), default=0.0) or 1.0
    bars, place, last = [], 0, ""
    for one in rows:
        title = one.layer if one.layer != last else ""
        place, last = place + ROW + (6 if title else 0), one.layer
        length = max(1.0, abs(one.loss) / most * WIDTH)
        mark = " *" if chosen and chosen.get(one.layer) == one.format else ""
        bars.append(
            Markup(
                '<text x="{}" y="{}" text-anchor="end">{}</text>'
                '<rect x="{}" y="{}" width="{:.1f}" height="{}" fill="{}" fill-opacity="{}"/>'
                '<text x="{:.1f}" y="{}">{} {:+.3g}{}</text>'
            ).format(
                LEFT - 8,
                place,
                title,
                LEFT,
                place - ROW + 3,
                length,
                ROW - 3,
                COLORS.get(one.format, "#777777"),
                1 if one.loss >= 0 else 0.4,
                LEFT + length + 6,
                place,
                one.format,
                one.loss,
                mark,
            )
        )
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="Growth of the loss by layer and format" '
        'style="width:100%;font:10px sans-serif;fill:currentColor">{}</svg>'
    ).format(LEFT + WIDTH + 150, place + 10, Markup("").join(bars))
