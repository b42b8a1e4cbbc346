"""Routes of models: list, description, prediction."""

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

import vitrail
from vitrail.errors import VitrailError
from vitrail.serving.job import Outcome
from vitrail.serving.refusal import Refusal
from vitrail.serving.served_model import ServedModel
from vitrail.serving.service import Service
from vitrail.serving.upload import Upload

router = APIRouter()
_SHOWN = ("body", "pixels", "drawn_pixels", "text", "inputs", "timeout")


@router.get("/v1/models", summary="List the models")
async def list_models(request: Request) -> Response:
    """Return all models, with their tasks, options and limits."""
    service: Service = request.app.state.service
    limits = {name: value for name, value in asdict(service.limits).items() if name in _SHOWN}
    limits |= {"body_bytes": limits["body"], "timeout_s": limits["timeout"]}
    models = [model.describe() for model in service.models.values()]
    return json_response({"models": models, "limits": limits, "version": vitrail.__version__})


@router.get("/v1/models/{name}", summary="Describe a model")
async def describe_model(name: str, request: Request) -> Response:
    """Return the facts of one model."""
    service: Service = request.app.state.service
    if name not in service.models:
        service.find(name)
    return json_response(service.models[name].describe())


@router.post(
    "/v1/models/{name}/predict",
    summary="Predict",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {
                            "input": {
                                "type": "string",
                                "description": "base64 or data: URL of a file; a text as it is",
                            },
                            "inputs": {"type": "array", "items": {"type": "string"}, "description": "a batch"},
                            "options": {"type": "object", "description": "see `options` of the model"},
                            "draw": {"type": "boolean", "default": False},
                            "images": {"type": "boolean", "default": True},
                        },
                    }
                },
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {
                            "input": {"type": "array", "items": {"type": "string", "format": "binary"}},
                            "options": {"type": "string", "description": "JSON"},
                            "draw": {"type": "boolean"},
                            "images": {"type": "boolean"},
                        },
                    }
                },
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
)
async def predict(name: str, request: Request) -> Response:
    """Predict one input or a batch: JSON, a multipart form, or the bytes of one file (options in the query)."""
    service: Service = request.app.state.service
    model = service.find(name)
    with service.request(model):
        upload = await service.upload(request, model)
        outcomes = await service.predict(model, upload, request)
        if upload.single:
            check_readable(outcomes[0])
        if upload.draw or any(hasattr(each.value, "images") for each in outcomes):
            return await service.in_pool(lambda: _answer(model, upload, outcomes))
        return _answer(model, upload, outcomes)


def _answer(model: ServedModel, upload: Upload, outcomes: Sequence[Outcome]) -> Response:
    results = [render(each, upload) for each in outcomes]
    timing = [each.timing() for each in outcomes]
    values: dict[str, Any] = {"model": model.name, "task": model.task_name}
    if upload.single:
        values |= {"result": results[0], "timing": timing[0]}
    else:
        values |= {"results": results, "timing": timing}
    return json_response(values)


def render(outcome: Outcome, upload: Upload) -> dict[str, Any]:
    """Return the result of an outcome as plain values, with its images encoded anew."""
    if outcome.error is not None:
        return {"error": _message(outcome.error)}
    result = outcome.value
    values = {name: value for name, value in result.to_dict().items() if name != "path"}
    if result.error is not None:
        return values
    if upload.images and hasattr(result, "images"):
        values["images"] = {name: _png_url(data) for name, data in result.images().items()}
    if upload.draw:
        from vitrail.tasks.data_url import encode

        values["drawing"] = encode(result.draw())
    return values


def _png_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def check_readable(outcome: Outcome) -> None:
    """Raise the failure of the only input of a request, if it failed.

    Raises:
        Refusal: 422 if the input cannot be read, or the status of the failure.

    Example:
        >>> check_readable(Outcome(error=VitrailError("not an image")))
        Traceback (most recent call last):
        vitrail.serving.refusal.Refusal: not an image
    """
    if isinstance(outcome.error, Refusal):
        raise outcome.error
    reason = getattr(outcome.value, "error", None) if outcome.error is None else _message(outcome.error)
    if reason is not None:
        raise Refusal(422, "unreadable_input", reason)


def _message(error: Exception) -> str:
    return (
        str(getattr(error, "reason", None) or error) if isinstance(error, VitrailError | Refusal) else "internal error"
    )


def json_response(values: object, status: int = 200) -> Response:
    """Return values as JSON in ASCII.

    Example:
        >>> json_response({"a": 1}).body
        b'{"a": 1}'
    """
    return Response(json.dumps(values, allow_nan=False), status, media_type="application/json")
