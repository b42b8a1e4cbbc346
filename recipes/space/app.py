"""A Hugging Face Space for a classifier in the folder `model/`: classes of an image, and a heatmap."""

from pathlib import Path
from typing import Any

import gradio  # pyright: ignore[reportMissingImports]

import vitrail
from vitrail.explain.gallery import attention_overlays

MODEL = Path(__file__).parent / "model"


def answer(model: Any, image: Any) -> tuple[dict[str, float], Any]:
    """Return the probabilities of the likeliest classes, and the image with a heatmap."""
    [found] = vitrail.predict(model, image, top=5)
    return dict(found.top(5)), attention_overlays(model, [image])[0]


def demo(folder: Path = MODEL) -> Any:
    """Return the page."""
    model = vitrail.load_model(folder)
    return gradio.Interface(
        lambda image: answer(model, image),
        inputs=gradio.Image(type="pil", label="image"),
        outputs=[gradio.Label(label="classes"), gradio.Image(label="where the model looks")],
        title=model.variant,
        flagging_mode="never",
    )


if __name__ == "__main__":
    demo().launch()
