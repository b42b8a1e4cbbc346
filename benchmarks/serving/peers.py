"""Other servers of the same model: LitServe, and a plain FastAPI handler.

    python benchmarks/serving/peers.py litserve|fastapi FOLDER PORT

They are written as their documentation shows: the plain model in evaluation mode, with the preprocessing of
`vitrail predict`.
`--optimized` gives them `vitrail.optimize(model)`, to tell the effect of the server from that of the model.
"""

import argparse
import base64
import io
from typing import Any

import torch
from PIL import Image

import vitrail
from vitrail.data.transform import EvalTransform
from vitrail.native.image_resize import best_pixels
from vitrail.weights.folder import load_model

try:
    from litserve import LitAPI  # pyright: ignore[reportMissingImports]
except ImportError:
    LitAPI: Any = object


class Pipeline:
    """The steps that both servers share."""

    def __init__(self, folder: str, optimized: bool):
        model: Any = load_model(folder, torch.device("cpu"))
        self.prepare, self.labels = EvalTransform(model.preprocess, best_pixels(None)), model.labels
        self.model = vitrail.optimize(model, "fp32") if optimized else model
        self.predict(torch.zeros(1, 3, model.preprocess.size, model.preprocess.size, dtype=torch.uint8))

    def decode(self, text: str) -> torch.Tensor:
        """Return pixels at the model's size."""
        return self.prepare.to_pixels(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))

    @torch.inference_mode()
    def predict(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return probabilities."""
        return self.model(self.prepare.batch(pixels)).softmax(1)

    def encode(self, probabilities: torch.Tensor) -> dict[str, Any]:
        """Return the five likeliest classes."""
        values, indices = (each.tolist() for each in probabilities.topk(5))
        return {"top": [{"label": self.labels[i], "probability": p} for p, i in zip(values, indices, strict=True)]}


def run_fastapi(pipeline: Pipeline, port: int) -> None:
    """Serve with a handler that a thread pool runs."""
    import uvicorn
    from fastapi import FastAPI

    app = FastAPI()

    @app.post("/predict")
    def predict(values: dict[str, Any]) -> dict[str, Any]:
        return pipeline.encode(pipeline.predict(pipeline.decode(values["input"])[None])[0])

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


class LitPipeline(LitAPI):
    """The steps as LitServe calls them, in a process of its own."""

    def __init__(self, folder: str, optimized: bool, **batching: Any):
        super().__init__(**batching)
        self.folder, self.optimized = folder, optimized

    def setup(self, device: str) -> None:
        """Load the model."""
        self.pipeline = Pipeline(self.folder, self.optimized)

    def decode_request(self, request, **_):  # LitServe makes a parameter of the route from an annotation
        """Return pixels."""
        return self.pipeline.decode(request["input"])

    def batch(self, inputs: Any) -> Any:
        """Return a batch of pixels."""
        return torch.stack(list(inputs))

    def predict(self, x: Any, **_: Any) -> Any:
        """Return probabilities."""
        return self.pipeline.predict(x)

    def unbatch(self, output: Any) -> Any:
        """Return the rows."""
        return list(output)

    def encode_response(self, output: Any, **_: Any) -> Any:
        """Return plain values."""
        return self.pipeline.encode(output)


def run_litserve(folder: str, optimized: bool, port: int, batch: int, wait: float) -> None:
    """Serve with LitServe's batching."""
    from litserve import LitServer  # pyright: ignore[reportMissingImports]

    api = LitPipeline(folder, optimized, max_batch_size=batch, batch_timeout=wait)
    server = LitServer(api, accelerator="cpu", timeout=30)
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)


def main() -> None:
    """Run one server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", choices=("litserve", "fastapi"))
    parser.add_argument("folder")
    parser.add_argument("port", type=int)
    parser.add_argument("--optimized", action="store_true")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--wait", type=float, default=0.01, help="LitServe's batch_timeout in seconds")
    options = parser.parse_args()
    if options.server == "litserve":
        run_litserve(options.folder, options.optimized, options.port, options.batch, options.wait)
    else:
        run_fastapi(Pipeline(options.folder, options.optimized), options.port)


if __name__ == "__main__":
    main()
