"""A real server for the browser: small models of every task, uvicorn on a free port in a thread."""

import asyncio
import io
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch
import uvicorn
from PIL import Image

import vitrail
from vitrail.serving.access import access_rules
from vitrail.serving.app import create_app
from vitrail.serving.limits import Limits
from vitrail.serving.served_model import serve_model
from vitrail.serving.service import Service
from vitrail.text.learning import learn_characters, learn_framed, learn_vocabulary

HOSTILE = '<img src=x onerror="document.title=1">'
"""A class name that would be markup."""
TEXT = "a warm and funny film, a dull and cold film\n"
_VIT = {"image_size": 32, "depth": 2, "dim": 24, "num_heads": 3, "num_classes": 3}
_TINY = {"dim": 16, "depth": 1, "num_heads": 2}


def _labelled(model: Any, *labels: str, **metadata: Any) -> Any:
    model.metadata = {**(model.metadata or {}), "labels": labels, **metadata}
    return model


def _with_words(model: Any, vocabulary: Any, task: str = "", **metadata: Any) -> Any:
    model.inputs, model.metadata = vocabulary, {**(model.metadata or {}), **metadata}
    model.task = task or model.task
    return model


def _pets() -> Any:
    return _labelled(vitrail.create_model("vit_tiny_patch16_224", **_VIT, patch_size=4), "cat", "dog", HOSTILE)


def _birds() -> Any:
    sizes = {"dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4, "image_size": 64}
    return _labelled(vitrail.create_model("swin_tiny_patch4_window7_224", **sizes, num_classes=2), "owl", "hen")


def _pools() -> Any:
    model = vitrail.create_model("poolformer_s12", dims=(8, 16), depths=(1, 1), num_classes=2)
    return _labelled(model, "day", "night")


def _scene() -> Any:
    numbers = {"dims": (8, 16), "depths": (1, 1), "num_heads": (1, 2), "sr_ratios": (4, 1), "mlp_ratios": (2.0, 2.0)}
    model = vitrail.create_model(
        "fpn_segmenter", backbone="pvt_v2_b0", backbone_config=numbers, channels=8, num_classes=3
    )
    return _labelled(model, "ground", "disc", "box")


def _cells() -> Any:
    sizes = {"backbone": "vit_tiny_patch16_224", "channels": 16, "hidden": 16, "image_size": 64, "num_classes": 2}
    model = vitrail.create_model("mask_rcnn", **sizes, backbone_config={**_TINY, "patch_size": 8})
    return _labelled(model, "cell", "plate")


def _sharp() -> Any:
    return vitrail.create_model("swinir_light_x2", dim=12, depths=(2,), num_heads=2, window_size=4)


def _rows() -> Any:
    return vitrail.create_model("pixel_gpt_xxs", dim=8, depth=1, num_heads=1, side=8)


def _tags() -> Any:
    model = vitrail.create_model("vit_tiny_patch16_224", **{**_VIT, "depth": 1}, patch_size=8)
    model.task = "multilabel"
    return _labelled(model, "sky", "sea", "sand")


def _clouds() -> Any:
    return _labelled(vitrail.create_model("pointnet", dim=16, global_dim=32, num_classes=2), "lamp", "cone")


def _parts() -> Any:
    model = vitrail.create_model("pointnet_parts", dim=16, global_dim=32, num_classes=2)
    return _labelled(model, "base", "shade")


def _films() -> Any:
    vocabulary = learn_framed([TEXT], 300, ("<s>", "</s>", "<mask>"))
    model = vitrail.create_model("text_encoder_tiny", **_TINY, num_classes=2, vocab_size=len(vocabulary))
    return _labelled(_with_words(model, vocabulary, max_length=64), "bad", "good")


def _german() -> Any:
    vocabulary = learn_vocabulary([TEXT], 290, ("<s>", "</s>", "[PAD]"))
    sizes = {**_TINY, "hidden": 32, "vocab_size": len(vocabulary)}
    model = vitrail.create_model("transformer_tiny_multi30k", **sizes)
    return _with_words(model, vocabulary, source="en", target="de", max_length=24)


def _writer() -> Any:
    vocabulary = learn_characters(TEXT)
    model = vitrail.create_model("text_decoder_tiny", **_TINY, vocab_size=len(vocabulary))
    return _with_words(model, vocabulary, context=32)


def _masked() -> Any:
    vocabulary = learn_framed([TEXT], 300, ("[CLS]", "[SEP]", "[MASK]"))
    model = vitrail.create_model("bert_tiny", **_TINY, vocab_size=len(vocabulary))
    return _with_words(model, vocabulary, "pretrain")


MODELS: dict[str, Callable[[], Any]] = {
    "pets": _pets,
    "birds": _birds,
    "pools": _pools,
    "scene": _scene,
    "cells": _cells,
    "sharp": _sharp,
    "rows": _rows,
    "tags": _tags,
    "clouds": _clouds,
    "parts": _parts,
    "films": _films,
    "german": _german,
    "writer": _writer,
    "masked": _masked,
}
"""A small random model of each task by its name in routes."""


class LiveServer(AbstractContextManager["LiveServer"]):
    """A server on a free port of this machine.

    Args:
        names: models of `MODELS`.
        token: token of the server.
        runs: folder of runs.
        limits: limits of requests.
    """

    def __init__(
        self, names: Sequence[str], token: str | None = None, runs: Path | None = None, limits: Limits | None = None
    ):
        limits = limits or Limits()
        models = []
        for name in names:
            torch.manual_seed(1)
            models.append(serve_model(name, MODELS[name]().eval(), limits, optimize=False))
        self.service = Service(models, limits, runs=runs)
        app = create_app(self.service, access_rules("127.0.0.1", token, limits, self.service.sessions))
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self.service.start())
        self._loop.run_until_complete(self._server.serve(sockets=[self._socket]))

    def __enter__(self) -> "LiveServer":
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.02)
            assert self._thread.is_alive(), "the server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self.service.close()
        self._loop.close()
        self._socket.close()


def image_file(folder: Path, name: str = "photo.png", size: tuple[int, int] = (90, 60)) -> Path:
    """Write an image with a bright square on a gradient."""
    y, x = np.mgrid[: size[1], : size[0]]
    pixels = np.stack([2 * x, 3 * y, x + y], axis=-1).clip(0, 255).astype(np.uint8)
    pixels[20:40, 30:50] = 255
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG" if name.endswith("jpg") else "PNG")
    (folder / name).write_bytes(content.getvalue())
    return folder / name
