"""Figures of pixel_gpt, counted at 128 pixels; MNIST test: 0.30 nats a pixel with the published weights of xxs."""

from vitrail.models.published.figures import text

PUBLISHED = {
    "pixel_gpt_xxs": text(39_344, 7_372_800, "complete"),
    "pixel_gpt_xs": text(452_288, 67_239_936, "complete"),
}
