"""Explanation section of the report: heatmaps of correct and wrong predictions, and figures of the weights."""

from typing import Any

from PIL import Image

from vitrail.data.bands import band_mode, bands_of
from vitrail.errors import VitrailError
from vitrail.explain.gallery import attention_overlays, portraits, prepare, scenes
from vitrail.explain.options import best_method
from vitrail.parts.exported_file import exported_file
from vitrail.parts.model import Model
from vitrail.report.run_folder import RecordedRun
from vitrail.tasks.data_url import decode, encode
from vitrail.weights.folder import load_model

NOTES = {
    "rollout": "Attention rollout: bright places are the ones that reach the answer when attention is followed through "
    "all layers.",
    "saliency": "Saliency: bright places are the ones where a small change of the pixels moves the answer most.",
}
"""Captions of the heatmap overlays, by method."""


def look_inside(run: RecordedRun, model: Model | None = None) -> dict[str, Any]:
    """Return heatmap overlays and weight figures of the run's model, or the `reason` why there are none.

    The result is empty for a run without an evaluation, which has no images to explain.
    """
    chosen = [] if run.evaluation is None else run.evaluation.images_to_explain()
    if model is None and chosen and run.model:
        model = load_model(run.model)
    if not chosen or model is None or exported_file(model):  # a file has no layers to look into
        return {}
    mode = band_mode(model.preprocess.channels)
    if bands_of(mode) is not None:  # the evaluation keeps images for display, not all bands
        return {"reason": f"The model takes images of {mode}; vitrail explain RUN FILE shows where it looks in one."}
    images = prepare(model, [decode(each.image) for each in chosen])
    try:
        heat = attention_overlays(model, images)
        more = scenes(model, images[:1]) | portraits(model, images)
    except VitrailError as error:
        return {"reason": str(error)}
    pairs = [(example, encode(_small(overlay))) for example, overlay in zip(chosen, heat, strict=True)]
    return {"pairs": pairs, "note": NOTES[best_method(model)], "more": [figure.html() for figure in more.values()]}


def _small(image: Image.Image) -> Image.Image:
    image = image.convert("RGB")
    image.thumbnail((224, 224))
    return image
