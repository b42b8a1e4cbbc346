"""An ASGI application under test: its event loop in a thread, and a client without sockets."""

import asyncio
import io
import json
from collections.abc import Coroutine, Sequence
from contextlib import AbstractContextManager
from threading import Event, Thread
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

import vitrail
from vitrail.serving.access import access_rules
from vitrail.serving.app import create_app
from vitrail.serving.limits import Limits
from vitrail.serving.served_model import ServedModel, serve_model
from vitrail.serving.service import Service

LABELS = ("cat", "dog", "fox")


class Reply(NamedTuple):
    """An answer: status 0 if there was none."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return self.json()["error"]["code"]


class Harness(AbstractContextManager["Harness"]):
    """A service and its application; `with` starts the workers."""

    def __init__(
        self, models: Sequence[ServedModel], limits: Limits | None = None, token: str | None = None, **kw: Any
    ):
        limits = limits or models[0].limits
        self.service = Service(models, limits, **kw)
        self.app = create_app(self.service, access_rules("127.0.0.1", token, limits, self.service.sessions))
        self.loop = asyncio.new_event_loop()
        self._thread = Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> "Harness":
        self._thread.start()
        self.wait(self.service.start())
        return self

    def __exit__(self, *_: object) -> None:
        self.service.close()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    def wait(self, work: Coroutine[Any, Any, Any], timeout: float = 60) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def get(self, path: str, **headers: str) -> Reply:
        return self.request("GET", path, headers=headers)

    def post(self, path: str, body: Any, kind: str = "application/json", **headers: str) -> Reply:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", path, [data], {"content-type": kind, **headers})

    def request(self, *args: Any, **kwargs: Any) -> Reply:
        return self.wait(self.send(*args, **kwargs))

    async def send(
        self,
        method: str,
        path: str,
        chunks: Sequence[bytes] = (b"",),
        headers: dict[str, str] | None = None,
        gone: asyncio.Event | None = None,
        stalls: bool = False,
    ) -> Reply:
        """Send a request; `gone` closes the connection, `stalls` leaves the body unfinished."""
        path, _, query = path.partition("?")
        given = {"host": "127.0.0.1", **(headers or {})}
        pairs = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in given.items()]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "method": method,
            "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
            "headers": pairs, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000), "state": {},
        }  # fmt: skip
        messages = [{"type": "http.request", "body": each, "more_body": True} for each in chunks]
        if messages and not stalls:
            messages[-1]["more_body"] = False
        ended, out, start = gone or asyncio.Event(), bytearray(), {}

        async def receive() -> Any:
            if messages:
                return messages.pop(0)
            await ended.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                out.extend(message.get("body", b""))

        await self.app(scope, receive, send)
        got = {name.decode(): value.decode() for name, value in start.get("headers", ())}
        return Reply(start.get("status", 0), got, bytes(out))


class Slow:
    """A predictor whose batches wait for a signal, and count."""

    sequential = False

    def __init__(self, inner: Any):
        self.inner, self.free, self.entered, self.batches = inner, Event(), Event(), list[list[Any]]()

    def load(self, item: Any) -> Any:
        return self.inner.load(item)

    def predict(self, batch: list[Any]) -> Any:
        self.entered.set()
        assert self.free.wait(20)
        self.batches.append(batch)
        return self.inner.predict(batch)


def classifier(name: str = "pets", limits: Limits | None = None, seed: int = 0, **options: Any) -> ServedModel:
    """A small classifier of 32 x 32 images."""
    torch.manual_seed(seed)
    model = vitrail.create_model("vit_tiny_patch16_224", num_classes=3, image_size=32, depth=1, dim=24, num_heads=2)
    model.metadata = {"labels": LABELS}
    values = {"batch": 4, "optimize": False, "top": 3, **options}
    return serve_model(name, model.eval(), limits or Limits(), **values)


def png(seed: int = 0, size: tuple[int, int] = (40, 30), **save: Any) -> bytes:
    """An image of noise as PNG."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG", **save)
    return file.getvalue()


def form(*parts: tuple[str, bytes, bool], boundary: str = "frontier") -> tuple[bytes, str]:
    """A multipart form of (name, content, is a file), and its content type."""
    out = b""
    for name, content, is_file in parts:
        file = '; filename="a.png"' if is_file else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        out += head.encode() + content + b"\r\n"
    return out + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
