"""Routes of attention: every layer and head of one image, and heatmaps through all layers."""

from typing import Any

from fastapi import APIRouter, Request
from PIL import Image
from starlette.responses import Response

from vitrail.errors import DataError
from vitrail.explain.served_heat import encode_image_heat
from vitrail.explain.served_maps import encode_image_maps
from vitrail.serving.predict_route import json_response
from vitrail.serving.refusal import Refusal
from vitrail.serving.served_model import ServedModel
from vitrail.serving.service import Service
from vitrail.serving.upload import Upload

router = APIRouter()


@router.post("/v1/models/{name}/attention", summary="Attention maps of an image")
async def attention(name: str, request: Request) -> Response:
    """Return the maps of all layers, or of the options `layer` (its address) and `query` (a token of that layer).

    The body is that of a prediction with one image. The plain model computes, on its own thread: the optimized one
    never holds a map.
    """
    service: Service = request.app.state.service
    model = service.find(name)
    with service.request(model):
        upload = await service.upload(request, model)
        if model.kind != "image" or not model.layers_with_maps:
            raise Refusal(400, "no_maps", model.without_layers or f"{name} has no attention maps of images.")
        image, choice = await read_one_image(service, model, upload), _choice(upload.options)
        outcome = await service.call(model, lambda: encode_image_maps(model.model, image, **choice), request)
        return Response(outcome.value, media_type="application/octet-stream")


@router.post("/v1/models/{name}/heatmap", summary="Rollout or Grad-CAM of an image")
async def heatmap(name: str, request: Request) -> Response:
    """Return a heatmap through all blocks, see `explain.served_heat`; the option `kind` is `rollout` or `gradcam`."""
    service: Service = request.app.state.service
    model = service.find(name)
    with service.request(model):
        upload = await service.upload(request, model)
        kind = upload.options.get("kind")
        if model.kind != "image" or not model.heatmaps:
            raise Refusal(400, "no_maps", model.without_layers or f"{name} has no heatmaps of images.")
        if kind not in model.heatmaps or len(upload.options) > 1:
            raise Refusal(400, "bad_request", f"The only option is `kind`: {' or '.join(model.heatmaps)}.")
        image = await read_one_image(service, model, upload)
        outcome = await service.call(model, lambda: encode_image_heat(model.model, image, str(kind)), request)
        return json_response(outcome.value)


async def read_one_image(service: Service, model: ServedModel, upload: Upload) -> Image.Image:
    """Return the decoded image of a request with one image.

    Raises:
        Refusal: it has several (400), or the image cannot be read (422).
    """
    if not upload.single:
        raise Refusal(400, "bad_request", "Send one image.")
    try:
        item: Any = model.item(upload.inputs[0], 0, False)
        return await service.in_pool(item.read)
    except DataError as error:
        raise Refusal(422, "unreadable_input", str(getattr(error, "reason", None) or error)) from None


def _choice(options: dict[str, Any]) -> dict[str, Any]:
    """Check the options.

    Raises:
        Refusal: there is another one, or a value of another type.
    """
    kinds = {"layer": str, "query": int}
    for name, value in options.items():
        if name not in kinds:
            raise Refusal(400, "bad_request", "The options of attention maps are `layer` and `query`.")
        if type(value) is not kinds[name]:
            raise Refusal(400, "bad_request", f"`{name}` must be of type {kinds[name].__name__}.")
    return options
