"""Route of attention maps: every layer and head of one image, in the form of `explain.served_maps`."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from vitrail.errors import DataError
from vitrail.explain.served_maps import encode_image_maps
from vitrail.serving.refusal import Refusal
from vitrail.serving.service import Service

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
            raise Refusal(400, "no_maps", f"{name} has no attention maps of images.")
        if not upload.single:
            raise Refusal(400, "bad_request", "Attention maps are of one image.")
        choice = _choice(upload.options)
        try:
            image = await service.in_pool(model.item(upload.inputs[0], 0, False).read)
        except DataError as error:
            raise Refusal(422, "unreadable_input", str(getattr(error, "reason", None) or error)) from None
        outcome = await service.call(model, lambda: encode_image_maps(model.model, image, **choice), request)
        return Response(outcome.value, media_type="application/octet-stream")


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
