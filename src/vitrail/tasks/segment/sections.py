"""Report of an evaluation: classes, confusions, worst images."""

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from vitrail.tasks.formatting import percent
from vitrail.tasks.results import ReportSection

if TYPE_CHECKING:
    from vitrail.tasks.segment.evaluation import SegmentEvaluation

_BAR = Markup(
    '<tr><td>{name}</td><td class="num">{iou}</td><td><span style="display:inline-block;height:.7em;'
    'background:currentColor;opacity:.55;width:{width}px"></span></td><td class="num">{recall}</td>'
    '<td class="num">{precision}</td><td class="num">{pixels}</td></tr>'
)
_HEAD = Markup(
    "<table><thead><tr><th>class</th><th>IoU</th><th></th><th>recall</th><th>precision</th><th>pixels</th></tr></thead>"
)
_WORST = Markup(
    '<li><img src="{truth}" alt="True classes of {id}"><img src="{found}" alt="Predicted classes of {id}">'
    '<img src="{errors}" alt="Wrong pixels of {id}"><p><strong>{accuracy}</strong> of the pixels, mean IoU {miou}</p>'
    '<p class="id" title="{id}">{id}</p></li>'
)


def report_sections(evaluation: "SegmentEvaluation") -> list[ReportSection]:
    """Return the sections of the report."""
    found = [
        ReportSection("Class by class", _classes(evaluation)),
        ReportSection("What is taken for what", _confused(evaluation)),
    ]
    if evaluation.worst:
        found.append(ReportSection("Worst images", _worst(evaluation.worst)))
    return found


def _classes(evaluation: "SegmentEvaluation") -> Markup:
    rows = Markup("").join(
        _BAR.format(
            name=name,
            iou=percent(iou),
            width=round(160 * iou),
            recall=_known(recall),
            precision=_known(precision),
            pixels=f"{pixels:,}",
        )
        for name, iou, recall, precision, pixels in evaluation.class_rows()
    )
    note = Markup(
        '<p class="caption">Intersection over union of each class, from one confusion matrix pooled over all images.'
        " Void pixels are not counted; a class that is neither labelled nor predicted has no score.</p>"
    )
    return _HEAD + Markup("<tbody>") + rows + Markup("</tbody></table>") + note


def _confused(evaluation: "SegmentEvaluation") -> Markup:
    row = Markup("<tr><td>{}</td><td>{}</td><td class='num'>{}</td></tr>")
    rows = Markup("").join(row.format(truth, taken, percent(share)) for truth, taken, share in evaluation.confused())
    if not rows:
        return Markup("<p>Nothing: every labelled pixel is right.</p>")
    head = Markup("<table><thead><tr><th>true class</th><th>predicted</th><th>of its pixels</th></tr></thead><tbody>")
    return head + rows + Markup("</tbody></table>")


def _worst(images: tuple[dict[str, Any], ...]) -> Markup:
    items = Markup("").join(
        _WORST.format(
            **{key: each[key] for key in ("id", "truth", "found", "errors")},
            accuracy=percent(each["accuracy"]),
            miou=_known(each["miou"]),
        )
        for each in images
    )
    note = Markup(
        '<p class="caption">The images with the least pixel accuracy: true classes, predicted classes, wrong pixels.'
        " Look for wrong masks, for scenes unlike the training images, and for classes that swallow others.</p>"
    )
    return note + Markup('<ul class="cards">') + items + Markup("</ul>")


def _known(value: float | None) -> str:
    return percent(None if value is None or value != value else value)
