"""Route of the page: a prediction with the overlays of its panel, such as the points of a cloud."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from vitrail.serving.predict_route import check_readable, json_response, render
from vitrail.serving.refusal import Refusal
from vitrail.serving.service import Service
from vitrail.tasks.results import Viewer

router = APIRouter()


@router.post("/v1/models/{name}/view", summary="Predict, with what a viewer draws")
async def view(name: str, request: Request) -> Response:
    """Return the prediction of one input and `view`, see `Viewer.view` of its task; empty if the task has none."""
    service: Service = request.app.state.service
    model = service.find(name)
    with service.request(model):
        upload = await service.upload(request, model)
        if not upload.single:
            raise Refusal(400, "bad_request", "A view is of one input.")
        [outcome] = await service.predict(model, upload, request)
        check_readable(outcome)
        predictor, shown = model.find(upload.options), dict[str, Any]()
        if isinstance(predictor, Viewer):
            shown = (await service.call(model, lambda: predictor.view(outcome.value), request)).value
        values = {"model": model.name, "task": model.task_name, "timing": outcome.timing()}
        return await service.in_pool(
            lambda: json_response({**values, "result": render(outcome, upload), "view": shown})
        )
