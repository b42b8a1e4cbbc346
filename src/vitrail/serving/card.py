"""Route of a model's card: size and cost, licence, published figures, and the run that trained it."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from vitrail.inference.flops import counted_macs
from vitrail.models.published import PUBLISHED
from vitrail.models.published.hosted import HOSTED
from vitrail.parts.exported_file import exported_file
from vitrail.parts.model import Model
from vitrail.serving.predict_route import json_response
from vitrail.serving.refusal import Refusal
from vitrail.serving.runs import describe_run, read_summary
from vitrail.serving.served_model import ServedModel
from vitrail.serving.service import Service

router = APIRouter()

_RUN = ("data", "split", "epochs", "best_epoch", "steps", "seconds", "seed")
_STATED = ("dataset", "metrics", "command")


@router.get("/v1/models/{name}/card", summary="Card of a model")
async def card(name: str, request: Request) -> Response:
    """Return the facts of a model; an unknown one is null."""
    service: Service = request.app.state.service
    model = service.models.get(name)
    if model is None:
        raise Refusal(404, "unknown_model", "There is no model of this name; GET /v1/models lists them.")
    return json_response(await service.in_pool(lambda: model_facts(model)))


def model_facts(served: ServedModel) -> dict[str, Any]:
    """Return the facts of a card.

    The licence is that which the model folder states; that of public weights is listed with them, as weights that
    were trained here have another one.

    Example:
        >>> from vitrail import create_model
        >>> from vitrail.serving.limits import Limits
        >>> from vitrail.serving.served_model import serve_model
        >>> model = create_model("vit_tiny_patch16_224")
        >>> facts = model_facts(serve_model("tiny", model, Limits()))
        >>> facts["parameters"], facts["multiply_adds"], facts["published"]["licence"], facts["run"]
        (5717416, 1253683200, 'apache-2.0', None)
    """
    model, variant = served.model, str(getattr(served.model, "variant", ""))
    macs, uncounted = _cost(model)
    stated = {name: getattr(model, name, None) for name in _STATED}
    return {
        "name": served.name,
        "variant": variant,
        "parameters": served.parameters,
        "multiply_adds": macs,
        "uncounted": uncounted.partition("\n")[0] or None,
        "licence": getattr(model, "license", None),
        **stated,
        "edits": [edit.summary() for edit in getattr(model, "edits", ())],
        "published": _published(variant),
        "run": None if served.run is None else _run(served.run),
    }


def find_run(place: Path) -> Path | None:
    """Return the run folder of a source: the folder itself, or that above its weights.

    Example:
        >>> find_run(Path("models/none")) is None
        True
    """
    above = [place, place.parent, place.parent.parent]
    return next((folder for folder in above if (folder / "config.yaml").is_file()), None)


def _cost(model: Model) -> tuple[int | None, str]:
    if exported_file(model) or not hasattr(model, "config"):
        return None, "An exported program states no cost."
    try:
        return counted_macs(model)
    except (AttributeError, TypeError, RuntimeError, ValueError) as error:  # an architecture of the user's own
        return None, f"The cost cannot be counted: {type(error).__name__}."


def _published(variant: str) -> dict[str, Any] | None:
    if variant not in PUBLISHED:
        return None
    figures, hosted = PUBLISHED[variant], HOSTED.get(variant)
    return {
        "family": figures.family,
        "parameters": figures.parameters,
        "multiply_adds": figures.multiply_adds,
        "top1": figures.top1,
        "weights": figures.weights or None,
        "note": figures.note or None,
        "hub": hosted and hosted.hub,
        "licence": hosted and hosted.licence,
    }


def _run(folder: Path) -> dict[str, Any]:
    facts, summary = describe_run(folder.parent, folder), read_summary(folder)
    known = {name: summary.get(name) for name in _RUN}
    return {"name": facts["name"], "metrics": facts["metrics"], **known}
