"""Each task is served by the same route, with the results of `vitrail.predict`."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

pytest.importorskip("fastapi", reason="needs the extra `serve`")
from harness import Harness, png
from live import MODELS

from vitrail.inference.predict import predict
from vitrail.serving.limits import Limits
from vitrail.serving.served_model import serve_model

CLOUD = b"".join(b"%d %d %d\n" % (i % 7, i % 5, i % 3) for i in range(60))
OFFLINE: dict[str, dict[str, Any]] = {"writer": {"tokens": 4, "seed": 3}, "cells": {"threshold": 0.1}}
TEXTS = {"masked": "a [MASK] film"}
IMAGES = {"scene": "mask", "sharp": "restored"}
NAMES = [name for name in MODELS if name not in ("birds", "pools")]


@pytest.fixture(scope="module")
def server() -> Iterator[Harness]:
    models = []
    for name in NAMES:
        torch.manual_seed(1)
        models.append(serve_model(name, MODELS[name]().eval(), Limits(), optimize=False, batch=2))
    with Harness(models) as harness:
        yield harness


def close(a: Any, b: Any) -> bool:
    """Compare plain values, numbers up to rounding."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(close, a, b))
    return abs(a - b) < 1e-3 if isinstance(a, float) and isinstance(b, float) else a == b


@pytest.mark.parametrize("name", NAMES)
def test_the_response_equals_predict(server: Harness, name: str, tmp_path: Path) -> None:
    served, options = server.service.models[name], OFFLINE.get(name, {})
    suffix = {"image": ".png", "points": ".xyz", "text": ".txt"}[served.kind]
    content = {"image": png(size=(24, 20)), "points": CLOUD, "text": TEXTS.get(name, "a warm film").encode()}[
        served.kind
    ]
    (tmp_path / f"input{suffix}").write_bytes(content)
    [wanted] = predict(served.model, tmp_path / f"input{suffix}", optimize=False, **options)
    assert wanted.error is None, wanted.error
    text = content.decode() if served.kind == "text" else base64.b64encode(content).decode()
    reply = server.post(f"/v1/models/{name}/predict", {"input": text, "options": options, "draw": True})
    assert reply.status == 200, reply.body
    result = reply.json()["result"]
    drawing, images = result.pop("drawing"), result.pop("images", {})
    wanted_values = {key: value for key, value in wanted.to_dict().items() if key != "path"}
    assert close(result, wanted_values), (result, wanted_values)
    Image.open(io.BytesIO(base64.b64decode(drawing.partition(",")[2]))).load()
    assert set(images) >= {IMAGES[name]} if name in IMAGES else True
    for url in images.values():
        Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).load()


def test_a_restored_image_keeps_depth_and_alpha_and_loses_metadata(server: Harness) -> None:
    noise = torch.randint(0, 255, (12, 10, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "secret place"
    Image.fromarray(noise).save(file, "PNG", exif=exif)
    reply = server.post("/v1/models/sharp/predict", file.getvalue(), "image/png").json()["result"]
    data = base64.b64decode(reply["images"]["restored"].partition(",")[2])
    image = Image.open(io.BytesIO(data))
    assert image.size == (20, 24) and image.mode == "RGBA" and b"secret" not in data and not image.getexif()


def test_large_outputs_are_refused_before_they_are_computed(server: Harness) -> None:
    huge = io.BytesIO()
    Image.new("1", (4000, 4000)).save(huge, "PNG")
    reply = server.post("/v1/models/sharp/predict", huge.getvalue(), "image/png")
    assert reply.status == 422 and "pixels" in reply.json()["error"]["message"]
